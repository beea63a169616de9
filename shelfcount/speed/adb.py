"""Latency on an attached phone, measured with LiteRT's benchmark_model through adb.

The output format is that of google-ai-edge/LiteRT, tflite/tools/benchmark/benchmark_model.cc. The
line of a series of runs comes from StatWithPercentiles in tsl/util/stats_calculator.h; older
releases print no percentiles.
"""

from __future__ import annotations

import re
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shelfcount.files import sha256_of
from shelfcount.records import ShelfcountError
from shelfcount.stamp import stamp

# A folder in which adb's shell user can write and run files; the README of the tool uses it too.
REMOTE = "/data/local/tmp"
WARMUP_RUNS = 5
# Timeout of an adb command. The tool stops by itself after 150 s; the difference allows for a slow
# start.
ADB_TIMEOUT_S = 240.0
# A line of `adb devices -l`, which appends fields to the state: packages/modules/adb,
# transport.cpp.
_DEVICE = re.compile(r"^(\S+)\s+(.+?)(?:\s+(?:usb|product|model|device|transport_id):.*)?$")
_SERIES = re.compile(r"count=(\d+)(.*)")
_TIMINGS = re.compile(
    r"Inference timings in us: Init: (\S+), First inference: (\S+), "
    r"Warmup \(avg\): (\S+), Inference \(avg\): (\S+)"
)
# Releases of 2020 print 'Peak memory footprint (MB)'.
_MEMORY = re.compile(r"emory footprint .*?\(MB\): init=(\S+) overall=(\S+)")


@dataclass(frozen=True)
class Timings:
    """Results of benchmark_model for one file.

    Attributes:
        runs: Number of measured runs.
        p50_ms: Median of the measured runs. None if the tool is too old to print it.
        mean_ms, min_ms, max_ms, std_ms: Statistics over the measured runs.
        init_ms: Time from opening the file to the first run.
        memory_mb: Growth of the memory of the process over its lifetime, in 10^6 bytes. None if the
            tool does not print it.
    """

    runs: int
    p50_ms: float | None
    mean_ms: float
    min_ms: float
    max_ms: float
    std_ms: float
    init_ms: float
    memory_mb: float | None


@dataclass(frozen=True)
class PhoneRun:
    """A measurement on a phone, with everything it depends on.

    Attributes:
        model: Model of the phone (Android's ro.product.model).
        chip: Manufacturer and model of the system on a chip, or the board platform before Android
            12.
        android: Android release.
        threads: Number of LiteRT threads.
        cores: Hexadecimal mask of the processor cores used; empty for all.
        timings: The measured times.
        file_sha256, tool_sha256: SHA-256 of the .tflite file and of benchmark_model.
        stamp: Commit, versions, and the computer to which the phone was attached.
    """

    model: str
    chip: str
    android: str
    threads: int
    cores: str
    timings: Timings
    file_sha256: str
    tool_sha256: str
    stamp: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the measurement as a JSON object."""
        return asdict(self)


def choose_phone(serial: str | None = None) -> str:
    """Return the serial number of the phone to measure on.

    Args:
        serial: Serial number from `adb devices`. Needed only if several phones are attached.

    Returns:
        The serial number of a phone that is ready.

    Raises:
        ShelfcountError: If adb is missing or fails, no phone is attached, `serial` is not attached
            or is missing although several phones are, or the phone is not ready.
    """
    attached = devices(_adb(["devices", "-l"], None))
    if not attached:
        raise ShelfcountError(
            "adb lists no phone. Connect one, enable USB debugging in its developer options, and "
            "check with `adb devices`."
        )
    if serial is not None and serial not in attached:
        raise ShelfcountError(f"--adb-serial must be one of {', '.join(attached)}, got '{serial}'")
    if serial is None and len(attached) > 1:
        raise ShelfcountError(
            f"{len(attached)} phones are attached: {', '.join(attached)}. Choose one with "
            "--adb-serial."
        )
    chosen = serial or next(iter(attached))
    state = attached[chosen]
    if state == "unauthorized":
        raise ShelfcountError(
            f"phone '{chosen}' is unauthorized. Unlock it and allow USB debugging from this "
            "computer."
        )
    if state != "device":
        raise ShelfcountError(
            f"phone '{chosen}' is not ready: its state is '{state}' instead of 'device'. Reconnect "
            "it, or run `adb reconnect`."
        )
    return chosen


def devices(listed: str) -> dict[str, str]:
    """Parse the output of `adb devices -l` into the state of each phone by serial number."""
    _, _, lines = listed.partition("List of devices attached")
    matches = (_DEVICE.match(line.strip()) for line in lines.splitlines())
    return {match[1]: match[2] for match in matches if match}


def android_model(serial: str) -> str:
    """Return Android's name of the phone model, such as 'Pixel 4'."""
    return _property(serial, "ro.product.model")


def benchmark_on_phone(
    model: Path, binary: Path, serial: str, *, threads: int, runs: int = 50, cores: str = ""
) -> PhoneRun:
    """Copy a model and benchmark_model to the phone, run the tool, and remove both from the phone.

    Args:
        model: A .tflite file.
        binary: benchmark_model for the phone's processor. It is not part of shelfcount.
        serial: Serial number from `choose_phone`.
        threads: Number of LiteRT threads.
        runs: Minimum number of measured runs. The tool measures for at least one second, so there
            may be more.
        cores: Hexadecimal mask of the processor cores to use; empty for all.

    Returns:
        The measurement.

    Raises:
        ShelfcountError: If a file is missing, adb or the tool fails, or the tool prints no timings.
    """
    for option, path in (("--adb-binary", binary), ("the model", model)):
        if not path.is_file():
            raise ShelfcountError(
                f"{option}: '{path}' does not exist or is not a file. LiteRT publishes "
                "benchmark_model for Android."
            )
    # Android names the chip from version 12 on; before, only the platform is known.
    keys = (
        "product.model",
        "soc.manufacturer",
        "soc.model",
        "board.platform",
        "build.version.release",
    )
    name, maker, soc, platform, android = (_property(serial, f"ro.{key}") for key in keys)
    # In a new folder nothing is overwritten, and one command removes everything.
    folder = f"{REMOTE}/shelfcount-{uuid.uuid4().hex[:12]}"
    try:
        _shell(serial, ["mkdir", folder])
        for path, target in ((binary, "benchmark_model"), (model, "model.tflite")):
            _adb(["push", str(path), f"{folder}/{target}"], serial)
        _shell(serial, ["chmod", "755", f"{folder}/benchmark_model"])
        words = ["taskset", cores] if cores else []
        words += [
            f"{folder}/benchmark_model",
            f"--graph={folder}/model.tflite",
            f"--num_threads={threads}",
        ]
        words += [f"--num_runs={runs}", f"--warmup_runs={WARMUP_RUNS}", "--use_xnnpack=true"]
        timings = read_timings(_shell(serial, words))
    finally:
        _remove(serial, folder)
    return PhoneRun(
        model=name,
        chip=f"{maker} {soc}".strip() or platform or "unknown chip",
        android=android,
        threads=threads,
        cores=cores,
        timings=timings,
        file_sha256=sha256_of(model),
        tool_sha256=sha256_of(binary),
        stamp=stamp(threads=threads),
    )


def read_timings(output: str) -> Timings:
    """Parse the output of benchmark_model.

    Args:
        output: Everything that the tool printed.

    Returns:
        The timings, in milliseconds and 10^6 bytes.

    Raises:
        ShelfcountError: If the output contains no timings.
    """
    timings, series, memory = (
        _TIMINGS.search(output),
        _SERIES.findall(output),
        _MEMORY.search(output),
    )
    if timings is None or not series:
        last = " / ".join(line.strip() for line in output.strip().splitlines()[-3:]) or "nothing"
        raise ShelfcountError(
            f"benchmark_model printed no 'Inference timings in us', but: {last}. Check that it was "
            "built for the phone's processor."
        )
    # The first series is the warm-up.
    count, statistics = series[-1]
    values = {key: float(value) for key, value in re.findall(r"(\w+)=([\d.e+]+)", statistics)}
    mean = float(timings[4])
    # If all runs took the same time, the tool prints only 'curr'.
    low, high, std = (
        values.get(key, other) for key, other in (("min", mean), ("max", mean), ("std", 0.0))
    )
    median = values.get("median")
    return Timings(
        runs=int(count),
        p50_ms=None if median is None else _milliseconds(median),
        mean_ms=_milliseconds(mean),
        min_ms=_milliseconds(low),
        max_ms=_milliseconds(high),
        std_ms=_milliseconds(std),
        init_ms=_milliseconds(float(timings[1])),
        # The tool's MB are 1,024 * 1,024 bytes.
        memory_mb=round(float(memory[2]) * 1024**2 / 1e6, 2) if memory else None,
    )


def _milliseconds(microseconds: float) -> float:
    return round(microseconds / 1e3, 4)


def _property(serial: str, name: str) -> str:
    return _shell(serial, ["getprop", name]).strip()


def _shell(serial: str, words: Sequence[str]) -> str:
    return _adb(["shell", " ".join(words)], serial)


def _remove(serial: str, folder: str) -> None:
    try:
        _shell(serial, ["rm", "-rf", folder])
    except ShelfcountError:
        # An earlier error is more helpful than this one. After an error about 10 MB may remain in
        # the phone's folder for temporary files.
        return


def _adb(words: Sequence[str], serial: str | None) -> str:
    """Run adb and return its output, stdout and stderr together.

    benchmark_model logs on one or the other, depending on its release.

    Raises:
        ShelfcountError: If adb is missing, fails or exceeds `ADB_TIMEOUT_S`.
    """
    command = ["adb", *(["-s", serial] if serial else []), *words]
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=ADB_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise ShelfcountError(
            "adb is not on the PATH. It is needed to measure on a phone, and is part of Android's "
            "platform-tools (Debian package: adb). Without --adb-binary, latency is estimated."
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ShelfcountError(f"`{' '.join(command)}` failed: {error}") from error
    output = done.stdout.decode(errors="replace").replace("\r\n", "\n")
    if done.returncode:
        last = " / ".join(line.strip() for line in output.strip().splitlines()[-3:]) or "nothing"
        raise ShelfcountError(
            f"`{' '.join(command)}` failed with exit status {done.returncode}: {last}"
        )
    return output
