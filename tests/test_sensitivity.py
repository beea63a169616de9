"""Which operators' rounding costs most: each alone, against all together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shelfcount.deploy import sensitivity
from shelfcount.records import AnchorLevel, ShelfcountError
from shelfcount.training.detector import build
from shelfcount.training.fake_quant import FakeQuantized

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    return torch.from_numpy(
        np.random.default_rng(0).uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32)
    )


@pytest.fixture(scope="module")
def net(photo: torch.Tensor) -> FakeQuantized:
    torch.manual_seed(0)
    levels = (AnchorLevel(8, ((40.0, 20.0),)), AnchorLevel(16, ((60.0, 30.0),)))
    quantized = FakeQuantized(build("mobilenet_v2_050", 2, levels, 16).eval()).eval()
    quantized.calibrate([photo])
    return quantized


def test_all_rounding_together_costs_more_than_the_worst_alone(
    net: FakeQuantized, photo: torch.Tensor
) -> None:
    done: list[tuple[int, int]] = []
    everything, alone = sensitivity.by_step(net, [photo], lambda i, n: done.append((i, n)))
    assert [one.worst for one in alone] == sorted(one.worst for one in alone)
    # One more pass than there are steps that round: reshaping rounds nothing.
    assert len(alone) == sum(step.kind != "rows" for step in net.steps)
    assert done == [(i + 1, len(alone) + 1) for i in range(len(alone) + 1)]
    assert everything.location < alone[0].location + 3
    # Afterwards all rounds again.
    assert net._rounding is None


def test_the_step_that_was_spoilt_is_found(net: FakeQuantized, photo: torch.Tensor) -> None:
    row = net.rounded["smooth.0.0.0"]
    kept = net.ranges[row].clone()
    # One step of this scale is more than anything that is written there.
    net.ranges[row] = torch.tensor([-5000.0, 5000.0])
    _, alone = sensitivity.by_step(net, [photo])
    net.ranges[row] = kept
    assert alone[0].step == "smooth.0.0.0"


def test_decibels_are_ten_a_power_of_ten() -> None:
    # Signal 1, noise 0.1: a hundredth of the power.
    assert sensitivity._decibels(torch.ones(4), torch.full((4,), 1.1)) == pytest.approx(
        20, abs=1e-4
    )
    assert sensitivity._decibels(torch.ones(4), torch.ones(4)) == sensitivity.FLAWLESS


def test_photos_are_needed(net: FakeQuantized) -> None:
    with pytest.raises(ShelfcountError, match="measured on photos, got none"):
        sensitivity.by_step(net, [])
