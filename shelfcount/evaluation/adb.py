"""Latency on a phone that is attached: LiteRT's own benchmark_model, run through adb.

The tool's lines are read as its source prints them: google-ai-edge/LiteRT, tflite/tools/benchmark/benchmark_model.cc;
the line of a series of runs comes from StatWithPercentiles in tsl/util/stats_calculator.h, which older releases
print without percentiles.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shelfcount.records import ShelfcountError
from shelfcount.stamp import stamp

# Where adb's shell user may write and run files; the tool's own README puts it there.
REMOTE = "/data/local/tmp"
WARMUP_RUNS = 5
# The tool stops by itself after 150 s; the rest is for a slow start.
LONGEST_S = 240.0
# What `adb devices -l` appends to a state: packages/modules/adb, transport.cpp.
_DEVICE = re.compile(r"^(\S+)\s+(.+?)(?:\s+(?:usb|product|model|device|transport_id):.*)?$")
_SERIES = re.compile(r"count=(\d+)(.*)")
_TIMINGS = re.compile(
    r"Inference timings in us: Init: (\S+), First inference: (\S+), Warmup \(avg\): (\S+), Inference \(avg\): (\S+)"
)
# 'Peak memory footprint (MB)' in 2020: github.com/tensorflow/tensorflow issue 42507.
_MEMORY = re.compile(r"emory footprint .*?\(MB\): init=(\S+) overall=(\S+)")


@dataclass(frozen=True)
class Timings:
    """What benchmark_model said of one file.

    Attributes:
        runs: Counted runs.
        p50_ms: Their median; None where the tool is too old to print it.
        mean_ms, min_ms, max_ms, std_ms: Over the counted runs.
        init_ms: From the file to the first run.
        memory_mb: Growth of the process from its start to its end, 10^6 bytes; None where the system does not tell.
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
    """A measurement on a phone, and all that it depends on.

    Attributes:
        model: Of the phone, as Android names it.
        chip: Manufacturer and model of its system on a chip, or the platform where Android is older than 12.
        android: Release.
        threads: Of LiteRT.
        cores: Mask of the processor's cores that it was kept on, hexadecimal; empty for all.
        timings: What was measured.
        file_sha256, tool_sha256: Of the .tflite file and of benchmark_model.
        stamp: Commit, versions, and the computer that the phone was attached to.
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
        return asdict(self)


def choose(serial: str | None = None) -> str:
    """The serial of the phone to measure on.

    Args:
        serial: As `adb devices` lists it; needed where several phones are attached.

    Raises:
        ShelfcountError: If adb is missing or fails, no phone is attached, several are and none is named, or the
            phone is not ready.
    """
    attached = devices(_adb(["devices", "-l"], None))
    if not attached:
        raise ShelfcountError(
            "adb must see a phone, got none. Connect one, switch on USB debugging in its developer options, and look with `adb devices`."
        )
    if serial is not None and serial not in attached:
        raise ShelfcountError(f"--adb-serial must be one of {', '.join(attached)}, got '{serial}'")
    if serial is None and len(attached) > 1:
        raise ShelfcountError(
            f"adb sees {len(attached)} phones: {', '.join(attached)}. Name one with --adb-serial."
        )
    chosen = serial or next(iter(attached))
    state = attached[chosen]
    if state == "unauthorized":
        raise ShelfcountError(
            f"phone '{chosen}' is unauthorized: unlock it and allow USB debugging from this computer"
        )
    if state != "device":
        raise ShelfcountError(
            f"phone '{chosen}' must be ready ('device'), got '{state}'. Reconnect it, or run `adb reconnect`."
        )
    return chosen


def devices(listed: str) -> dict[str, str]:
    """State by serial, from what `adb devices -l` prints."""
    _, _, lines = listed.partition("List of devices attached")
    found = (_DEVICE.match(line.strip()) for line in lines.splitlines())
    return {match[1]: match[2] for match in found if match}


def phone_model(serial: str) -> str:
    """What Android calls the phone, such as 'Pixel 4'."""
    return _property(serial, "ro.product.model")


def measure(
    model: Path, binary: Path, serial: str, *, threads: int, runs: int = 50, cores: str = ""
) -> PhoneRun:
    """Put a file and the tool on the phone, run, and take both away again.

    Args:
        model: A .tflite file.
        binary: benchmark_model for the phone's processor; the user's choice, as none is shipped.
        serial: From `choose`.
        threads: Of LiteRT.
        runs: Counted runs; the tool runs for a second at least, and may count more.
        cores: Hexadecimal mask of the cores to keep to; empty for all.

    Raises:
        ShelfcountError: If a file is missing, adb or the tool fails, or the tool prints no timings.
    """
    for option, path in (("--adb-binary", binary), ("the model", model)):
        if not path.is_file():
            raise ShelfcountError(
                f"{option} must be a file, got '{path}', where none is. LiteRT publishes benchmark_model for Android."
            )
    # Android 12 and newer know the chip; before, the platform has to do.
    keys = (
        "product.model",
        "soc.manufacturer",
        "soc.model",
        "board.platform",
        "build.version.release",
    )
    name, maker, soc, platform, android = (_property(serial, f"ro.{key}") for key in keys)
    # A folder of its own: nothing of the user's is overwritten, and one command removes it.
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
        file_sha256=_sha256(model),
        tool_sha256=_sha256(binary),
        stamp=stamp(threads=threads),
    )


def read_timings(said: str) -> Timings:
    """What benchmark_model printed, as numbers.

    Raises:
        ShelfcountError: If its timings are not there.
    """
    timings, series, memory = _TIMINGS.search(said), _SERIES.findall(said), _MEMORY.search(said)
    if timings is None or not series:
        end = " / ".join(line.strip() for line in said.strip().splitlines()[-3:]) or "nothing"
        raise ShelfcountError(
            f"benchmark_model must print 'Inference timings in us', got: {end}. Is it built for the phone's processor?"
        )
    # The first series is the warm-up.
    count, rest = series[-1]
    values = {key: float(value) for key, value in re.findall(r"(\w+)=([\d.e+]+)", rest)}
    mean = float(timings[4])
    # Where all runs took the same time it prints 'curr' alone.
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
        # What went wrong before says more than this; a phone that was unplugged keeps 10 MB in its folder for temporary files.
        return


def _adb(words: Sequence[str], serial: str | None) -> str:
    """What adb printed on both streams: the tool logs on either, by its age."""
    command = ["adb", *(["-s", serial] if serial else []), *words]
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LONGEST_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise ShelfcountError(
            "adb must be on the PATH to measure on a phone, and is not. It comes with Android's platform-tools (Debian: `adb`). "
            "Without --adb-binary, latency is estimated."
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ShelfcountError(f"`{' '.join(command)}` failed: {error}") from error
    said = done.stdout.decode(errors="replace").replace("\r\n", "\n")
    if done.returncode:
        end = " / ".join(line.strip() for line in said.strip().splitlines()[-3:]) or "nothing"
        raise ShelfcountError(
            f"`{' '.join(command)}` must exit with 0, got {done.returncode} and: {end}"
        )
    return said


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
