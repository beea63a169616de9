"""Tests of measurements on a phone, with a fake adb that stores the phone in a folder.

The output of the tool is replayed: benchmark_model_2021.txt is from a comment on XNNPACK issue 999
on GitHub, benchmark_model_2023.txt from one on TensorFlow issue 61946. benchmark_model_litert.txt
has the lines of the current source (google-ai-edge/LiteRT,
tflite/tools/benchmark/benchmark_model.cc) with invented numbers.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shelfcount.cli import app
from shelfcount.data.coco import write_coco
from shelfcount.records import Dataset, Detections, Photo, ShelfcountError
from shelfcount.runtime.bundle import read_bundle
from shelfcount.speed import adb

DATA = Path(__file__).parent / "data"
PHONES = Path(__file__).parents[1] / "shelfcount" / "speed" / "phones"
# Lines of adb 29; the last one as on Linux without the udev rule (adb's transport.cpp).
PIXEL = (
    "99251FFAZ000XX         device usb:1-4 product:flame model:Pixel_4 "
    "device:flame transport_id:3\n"
)
EMULATOR = (
    "emulator-5554          device product:sdk_gphone_x86 model:sdk_gphone_x86 "
    "device:generic_x86 transport_id:1\n"
)
LOCKED = "0A041FDD4000XX         unauthorized usb:1-2 transport_id:2\n"
OFFLINE = "192.168.1.7:5555       offline transport_id:9\n"
FORBIDDEN = (
    "????????????           no permissions (user in plugdev group; are your udev rules wrong?); "
    "see [http://developer.android.com/tools/device.html] usb:1-1 transport_id:4\n"
)
PROPERTIES = {
    "ro.product.model": "Pixel 4",
    "ro.soc.manufacturer": "Qualcomm",
    "ro.soc.model": "SM8150",
    "ro.board.platform": "msmnile",
    "ro.build.version.release": "13",
}


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the fake adb presents as an attached Pixel 4."""
    folder = tmp_path / "phone"
    (folder / "disk" / "data" / "local" / "tmp").mkdir(parents=True)
    (folder / "devices").write_text(PIXEL)
    (folder / "properties").write_text(
        "".join(f"{key}={value}\n" for key, value in PROPERTIES.items())
    )
    (folder / "said").write_text((DATA / "benchmark_model_litert.txt").read_text())
    (folder / "exit").write_text("0")
    programs = tmp_path / "programs"
    programs.mkdir()
    shutil.copy(DATA / "adb", programs / "adb")
    (programs / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("ADB_PHONE", str(folder))
    return folder


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A fake model file and a fake benchmark_model."""
    model, tool = tmp_path / "model.tflite", tmp_path / "benchmark_model"
    model.write_bytes(b"\x1c\0\0\0TFL3")
    tool.write_bytes(b"\x7fELF")
    return model, tool


def on_disk(phone: Path) -> list[str]:
    return [
        str(path.relative_to(phone / "disk"))
        for path in (phone / "disk" / "data" / "local" / "tmp").iterdir()
    ]


def test_a_measurement_names_phone_chip_threads_and_files(
    phone: Path, files: tuple[Path, Path]
) -> None:
    run = adb.benchmark_on_phone(*files, adb.choose_phone(), threads=4, runs=50, cores="f0")
    assert (run.model, run.chip, run.android, run.threads, run.cores) == (
        "Pixel 4",
        "Qualcomm SM8150",
        "13",
        4,
        "f0",
    )
    # The second series of benchmark_model_litert.txt, in microseconds; memory is 23.8594 times
    # 1.048576.
    assert run.timings == adb.Timings(62, 15.902, 15.9987, 15.493, 18.204, 0.402, 21.046, 25.02)
    # SHA-256 of the eight bytes of the fake model, from sha256sum.
    assert run.file_sha256.startswith("368044902ecf8fef")
    assert run.stamp["threads"] == 4
    assert run.to_json()["timings"]["p50_ms"] == 15.902
    log = (phone / "log").read_text().splitlines()
    (call,) = [line for line in log if "--graph" in line]
    assert call.startswith("-s 99251FFAZ000XX shell taskset f0 /data/local/tmp/shelfcount-")
    assert call.endswith(
        "/model.tflite --num_threads=4 --num_runs=50 --warmup_runs=5 --use_xnnpack=true"
    )
    assert log[-1].startswith("-s 99251FFAZ000XX shell rm -rf /data/local/tmp/shelfcount-")
    assert on_disk(phone) == []


def test_android_before_12_names_its_platform(phone: Path, files: tuple[Path, Path]) -> None:
    (phone / "properties").write_text(
        "ro.product.model=Pixel 2\nro.board.platform=msm8998\nro.build.version.release=11\n"
    )
    run = adb.benchmark_on_phone(*files, adb.choose_phone(), threads=1)
    assert (run.model, run.chip, run.android) == ("Pixel 2", "msm8998", "11")
    assert "taskset" not in (phone / "log").read_text()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("2021", adb.Timings(50, None, 55.0432, 53.077, 60.727, 1.562, 18.777, 19.63)),
        ("2023", adb.Timings(50, None, 116.066, 111.222, 121.324, 1.906, 0.53, 12.78)),
    ],
)
def test_older_tools_have_no_median(name: str, expected: adb.Timings) -> None:
    assert adb.read_timings((DATA / f"benchmark_model_{name}.txt").read_text()) == expected


def test_memory_in_the_format_of_2020() -> None:
    output = (DATA / "benchmark_model_2021.txt").read_text()
    delta = "Memory footprint delta from the start of the tool (MB)"
    assert delta in output
    # The line is from TensorFlow issue 42507 on GitHub; 12.8672 times 1.048576.
    older = output.split(delta)[0] + "Peak memory footprint (MB): init=0 overall=12.8672\n"
    assert adb.read_timings(older).memory_mb == 13.49


def test_equal_runs_and_a_tool_without_memory() -> None:
    # tsl/util/stats_calculator.h prints this if all runs took the same; large means are like
    # 1.2e+06.
    output = (
        "count=1 curr=1200000\ncount=50 curr=1200000(all same)\n"
        "Inference timings in us: Init: 10, First inference: 1200000, "
        "Warmup (avg): 1.2e+06, Inference (avg): 1.2e+06\n"
    )
    timings = adb.Timings(50, None, 1200.0, 1200.0, 1200.0, 0.0, 0.01, None)
    assert adb.read_timings(output) == timings


def test_devices_by_state() -> None:
    listed = (
        "* daemon started successfully\nList of devices attached\n"
        + PIXEL
        + LOCKED
        + OFFLINE
        + FORBIDDEN
        + "\n"
    )
    states = adb.devices(listed)
    assert list(states) == ["99251FFAZ000XX", "0A041FDD4000XX", "192.168.1.7:5555", "????????????"]
    assert list(states.values())[:3] == ["device", "unauthorized", "offline"]
    assert states["????????????"].startswith("no permissions (user in plugdev group")
    assert adb.devices("List of devices attached\n\n") == {}


@pytest.mark.parametrize(
    ("listed", "serial", "message"),
    [
        ("", None, r"adb lists no phone\. Connect one, enable USB debugging"),
        ("", "A1", r"adb lists no phone\."),
        (
            PIXEL + EMULATOR,
            None,
            r"2 phones are attached: 99251FFAZ000XX, emulator-5554\. Choose one with --adb-serial",
        ),
        (PIXEL, "A1", r"--adb-serial must be one of 99251FFAZ000XX, got 'A1'"),
        (LOCKED, None, r"phone '0A041FDD4000XX' is unauthorized\. Unlock it"),
        (
            OFFLINE,
            None,
            r"phone '192\.168\.1\.7:5555' is not ready: its state is 'offline' instead of 'device'",
        ),
        (
            FORBIDDEN,
            None,
            r"phone '\?+' is not ready: its state is 'no permissions \(user in plugdev group",
        ),
    ],
)
def test_a_phone_that_cannot_be_measured_on(
    phone: Path, listed: str, serial: str | None, message: str
) -> None:
    (phone / "devices").write_text(listed)
    with pytest.raises(ShelfcountError, match=message):
        adb.choose_phone(serial)


def test_one_of_several_by_its_serial(phone: Path) -> None:
    (phone / "devices").write_text(LOCKED + EMULATOR + PIXEL)
    assert adb.choose_phone("99251FFAZ000XX") == "99251FFAZ000XX"
    assert adb.android_model("99251FFAZ000XX") == "Pixel 4"


def test_without_adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ShelfcountError,
        match=r"adb is not on the PATH\. .* Without --adb-binary, latency is estimated",
    ):
        adb.choose_phone()


def test_a_binary_that_does_not_exist(
    phone: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(
        ShelfcountError, match=r"--adb-binary: '.*nowhere' does not exist or is not a file"
    ):
        adb.benchmark_on_phone(files[0], tmp_path / "nowhere", "99251FFAZ000XX", threads=1)
    assert not (phone / "log").exists()


@pytest.mark.parametrize(
    ("said", "code", "message"),
    [
        # Messages of Android's shell and of the tool.
        (
            "/system/bin/sh: benchmark_model: not executable: 64-bit ELF file",
            "126",
            r"failed with exit status 126: .*64-bit ELF file",
        ),
        (
            "ERROR: Failed to load model model.tflite\nERROR: Benchmarking failed.",
            "1",
            r"failed with exit status 1: .* / ERROR: Benchmarking failed\.",
        ),
        (
            "INFO: STARTING!\n",
            "0",
            r"printed no 'Inference timings in us', but: INFO: STARTING!\. Check that it was",
        ),
        ("", "0", r"printed no 'Inference timings in us', but: nothing\."),
    ],
)
def test_a_tool_that_fails_leaves_no_files_on_the_phone(
    phone: Path, files: tuple[Path, Path], said: str, code: str, message: str
) -> None:  # fmt: skip
    (phone / "said").write_text(said)
    (phone / "exit").write_text(code)
    with pytest.raises(ShelfcountError, match=message):
        adb.benchmark_on_phone(*files, "99251FFAZ000XX", threads=4)
    assert on_disk(phone) == []


def test_a_phone_that_was_unplugged(
    phone: Path, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., str] = adb._adb

    def unplug(words: list[str], serial: str | None) -> str:
        if words[0] == "push":
            (phone / "devices").write_text("")
        return real(words, serial)

    monkeypatch.setattr(adb, "_adb", unplug)
    with pytest.raises(
        ShelfcountError,
        match=r"failed with exit status 1: adb: error: .* device '99251FFAZ000XX' not found",
    ):
        adb.benchmark_on_phone(*files, "99251FFAZ000XX", threads=4)


def golden_labels(bundle: Path, folder: Path) -> Path:
    """Copy a bundle's golden photos with their labels as a COCO file, and return its path."""
    classes = read_bundle(bundle).spec.classes
    photos = []
    for entry in json.loads((bundle / "golden" / "golden.json").read_text())["photos"]:
        boxes = np.array([product["box"] for product in entry["truth"]])
        boxes[:, 2:] += boxes[:, :2]
        truth = Detections(boxes, [classes.index(product["class"]) for product in entry["truth"]])
        copied = shutil.copy(bundle / "golden" / entry["file"], folder)
        photos.append(Photo(Path(copied), entry["width"], entry["height"], truth))
    write_coco(Dataset(classes, tuple(photos)), folder / "labels.json")
    return folder / "labels.json"


@pytest.mark.slow
def test_bench_evaluates_the_attached_phone(
    phone: Path,
    files: tuple[Path, Path],
    released: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    labels = golden_labels(released, tmp_path)
    tight = tmp_path / "tight.toml"
    # The released file exceeds 1 MB, and no latency is published for this phone.
    tight.write_text('name = "tight"\n[budget]\nsize_mb = 1\nlatency_ms = 1\n')
    arguments = [
        "bench",
        released,
        "--baseline",
        released,
        "--data",
        labels,
        "--quick",
        "--out",
        tmp_path / "report",
    ]
    arguments += ["--phone", PHONES / "pixel4.toml", "--phone", tight, "--adb-binary", files[1]]
    monkeypatch.setattr(sys, "argv", ["shelfcount", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        app.main()
    assert stop.value.code == 1
    output = capsys.readouterr().out
    assert (
        "kept   latency, 4 threads: 15.9 ms, budget at most 33 ms "
        "(measured: median of 62 runs on Pixel 4" in output
    )
    assert "missed size: 1.72 MB, budget at most 1.00 MB (the file)" in output
    assert "open   latency, 1 thread: not measured" in output
    measured, small = json.loads((tmp_path / "report" / "result.json").read_text())["phones"]
    assert (
        measured["latency_measured"]["file_sha256"] == read_bundle(released).files["model.tflite"]
    )
    assert [verdict["missed"] for verdict in (measured, small)] == [False, True]
    # The baseline is the bundle itself.
    assert {line["name"]: line["state"] for line in measured["lines"]}[
        "F1 against the baseline"
    ] == "kept"
