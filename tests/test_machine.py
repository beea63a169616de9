"""Tests of the machine description and of the precision that training chooses from it."""

import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from shelfcount import machine
from shelfcount.config import TrainConfig
from shelfcount.stamp import stamp
from shelfcount.training.optimization import training_precision

ZEN_2 = (
    "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx avx2 fma\n\n"
    "processor\t: 1\nmodel name\t: other\nflags\t\t: avx512f\n"
)
ZEN_4 = "model name\t: AMD EPYC\nflags\t\t: avx2 avx512f avx512_vnni avx512_bf16\n"
# /proc/cpuinfo of Arm processors has no model name.
NEOVERSE = "processor\t: 0\nFeatures\t: fp asimd asimddp sve i8mm bf16\n"


@pytest.fixture
def on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Return a function that simulates a machine with the given content of /proc/cpuinfo."""

    def become(cpuinfo: str) -> None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
        monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
        machine._field.cache_clear()

    yield become
    machine._field.cache_clear()


@pytest.mark.parametrize(
    ("cpuinfo", "device", "taken"),
    [
        (ZEN_2, "AMD EPYC (avx2), ", "32-true"),
        (ZEN_4, "AMD EPYC (avx2 avx512f avx512_vnni avx512_bf16), ", "bf16-mixed"),
        (NEOVERSE, "(sve asimddp i8mm bf16), ", "bf16-mixed"),
    ],
)
def test_processor_decides_the_precision(
    on: Callable[[str], None], cpuinfo: str, device: str, taken: str
) -> None:
    on(cpuinfo)
    assert device in machine.describe_device()
    assert stamp()["device"] == machine.describe_device()
    assert training_precision(TrainConfig(accelerator="cpu")) == taken
    assert training_precision(TrainConfig(accelerator="cpu", precision="16-mixed")) == "16-mixed", (
        "a precision in the config is not changed"
    )


def test_system_without_cpuinfo_takes_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on: Callable[[str], None]
) -> None:
    on(ZEN_4)
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "none")
    machine._field.cache_clear()
    assert machine.instructions() == frozenset()
    assert machine.describe_device().endswith(
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    )
    assert training_precision(TrainConfig(accelerator="cpu")) == "32-true"


@pytest.mark.parametrize(("bfloat16", "taken"), [(True, "bf16-mixed"), (False, "16-mixed")])
def test_gpu_decides_whatever_the_processor(
    on: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, bfloat16: bool, taken: str
) -> None:
    on(ZEN_2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat16 or including_emulation
    )
    assert training_precision(TrainConfig()) == taken
    assert training_precision(TrainConfig(accelerator="cpu")) == "32-true"


def test_precision_that_is_taken_is_no_slow_one(one_thread: None) -> None:
    # Without bfloat16 instructions, a convolution and its gradient take many times as long.
    layer, x = torch.nn.Conv2d(48, 48, 3, padding=1), torch.rand(4, 48, 40, 40)

    def seconds(mixed: bool) -> float:
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = layer(x).float().sum()
        loss.backward()
        return time.perf_counter() - begin

    mixed = training_precision(TrainConfig(accelerator="cpu")) == "bf16-mixed"
    taken, plain = (min(seconds(way) for _ in range(5)) for way in (mixed, False))
    assert taken < 4 * plain
