"""Losses: correct predictions cost nothing, ignored areas give no gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from shelfcount.records import AnchorLevel
from shelfcount.training.losses import (
    LOSSES,
    MIN_QUALITY,
    Truth,
    decode_tensor,
    focal,
    task_aligned,
)
from shelfcount.vision import anchors as anchor_math

SIZE, CLASSES = 64, 3
LEVELS = (AnchorLevel(8, ((16.0, 12.0),)), AnchorLevel(16, ((32.0, 24.0),)))
RATIOS = anchor_math.anchor_grid(LEVELS, SIZE, SIZE)
ANCHORS = torch.from_numpy(RATIOS) * SIZE
COUNT = len(ANCHORS)

both = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def _truth(boxes: list, classes: list[int], ignore: list[bool] | None = None) -> Truth:
    return Truth(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(classes, dtype=torch.int64),
        torch.tensor(ignore if ignore is not None else [False] * len(classes), dtype=torch.bool),
    )


SHELF = _truth([[4, 6, 18, 22], [20, 4, 34, 21], [30, 26, 60, 62]], [0, 2, 1])


def _heads(seed: int, photos: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    location = torch.randn(photos, COUNT, 4, generator=generator)
    logits = torch.randn(photos, COUNT, CLASSES, generator=generator) - 2
    return location.requires_grad_(), logits.requires_grad_()


def _perfect(truth: Truth) -> tuple[torch.Tensor, torch.Tensor]:
    """Return outputs in which each anchor predicts the box of its nearest product exactly.

    Only the nearest anchor of each product has a high score.
    """
    centers = (truth.boxes[:, :2] + truth.boxes[:, 2:]) / 2
    distance = torch.cdist(ANCHORS[:, [1, 0]], centers)
    nearest = distance.argmin(dim=1)
    yxyx = truth.boxes[nearest][:, [1, 0, 3, 2]] / SIZE
    location = torch.from_numpy(anchor_math.encode(yxyx.numpy(), RATIOS).astype(np.float32))
    logits = torch.full((COUNT, CLASSES), -30.0)
    logits[distance.argmin(dim=0), truth.classes] = 30.0
    return location[None].requires_grad_(), logits[None].requires_grad_()


def _total(parts: dict[str, torch.Tensor]) -> torch.Tensor:
    return parts["class"] + parts["box"]


def _value(part: torch.Tensor) -> float:
    return part.detach().item()


def test_decode_equals_that_of_the_runtime_in_pixels() -> None:
    # Below the clamp at 8 times the anchor's size, which only an untrained network reaches.
    location = np.random.default_rng(0).normal(0, 2, (2, COUNT, 4)).astype(np.float32)
    expected = anchor_math.decode(location, RATIOS)[..., [1, 0, 3, 2]] * SIZE
    np.testing.assert_allclose(
        decode_tensor(torch.from_numpy(location), ANCHORS), expected, rtol=1e-4, atol=1e-3
    )


def test_perfect_predictions_cost_almost_nothing() -> None:
    parts = task_aligned(*_perfect(SHELF), [SHELF], ANCHORS)
    # Other anchors inside a product have a target of about exp(-15), so the loss is not exactly 0.
    assert _value(parts["class"]) < 1e-3
    assert _value(parts["box"]) < 1e-3
    assert _value(_total(task_aligned(*_heads(0), [SHELF], ANCHORS))) > 1


def test_wrong_classes_and_wrong_boxes_cost() -> None:
    location, logits = _perfect(SHELF)
    swapped = task_aligned(location, logits[..., [1, 2, 0]], [SHELF], ANCHORS)
    assert _value(swapped["class"]) > 10
    moved = task_aligned(location + 2.0, logits, [SHELF], ANCHORS)
    assert _value(moved["box"]) > 0.1


@both
def test_anchors_in_ignored_areas_get_no_gradient(loss: Callable) -> None:
    unclear = _truth([[0, 0, 24, 64], [36, 8, 60, 50]], [1, 2], [True, False])
    location, logits = _heads(1)
    _total(loss(location, logits, [unclear], ANCHORS)).backward()
    inside = ANCHORS[:, 1] < 24
    assert inside.sum() == 3 * 8 + 1 * 4  # Columns 4, 12 and 20 of stride 8, column 8 of stride 16.
    assert (logits.grad[0, inside] == 0).all()
    assert (location.grad[0, inside] == 0).all()
    assert (logits.grad[0, ~inside] != 0).any()


@both
def test_a_product_before_an_ignored_box_is_still_trained(loss: Callable) -> None:
    box = [20, 4, 34, 21]
    location, logits = _heads(2)
    _total(
        loss(location, logits, [_truth([[0, 0, 64, 64], box], [0, 2], [True, False])], ANCHORS)
    ).backward()
    assert (logits.grad[0, :, 2] < 0).any()
    assert (location.grad != 0).any()


@both
@pytest.mark.parametrize(
    "box", [[25.0, 25.0, 27.0, 27.0], [0.0, 0.0, 3.0, 3.0], [61.5, 30.0, 64.0, 33.0]]
)
def test_a_product_smaller_than_a_stride_is_trained(loss: Callable, box: list[float]) -> None:
    # None of the boxes contains the centre of a feature-map cell. With deltas of 0, every predicted
    # box equals its anchor.
    location, logits = (
        torch.zeros(1, COUNT, 4, requires_grad=True),
        torch.full((1, COUNT, CLASSES), -4.6, requires_grad=True),
    )
    _total(loss(location, logits, [_truth([box], [1])], ANCHORS)).backward()
    trained = (logits.grad[0, :, 1] < 0).nonzero().flatten()
    assert len(trained)
    middle = torch.tensor([(box[1] + box[3]) / 2, (box[0] + box[2]) / 2])
    assert (torch.linalg.vector_norm(ANCHORS[trained, :2] - middle, dim=1) < 12).all()
    # The anchors are larger than the product, so the predicted boxes have to shrink.
    assert (location.grad[0, trained, 2:] > 0).all()


def test_a_product_without_an_anchor_attracts_a_box_that_does_not_overlap_it() -> None:
    # Every box is two anchor sizes to the lower right of its anchor: 20 / 10 in y and x.
    location = torch.tensor([20.0, 20.0, 0.0, 0.0]).expand(1, COUNT, 4).clone().requires_grad_()
    logits = torch.full((1, COUNT, CLASSES), -4.6, requires_grad=True)
    _total(task_aligned(location, logits, [_truth([[25, 25, 27, 27]], [1])], ANCHORS)).backward()
    trained = (logits.grad[0, :, 1] < 0).nonzero().flatten()
    assert len(trained) == 1
    assert (location.grad[0, trained, :2] > 0).all()


def test_an_anchor_in_two_products_is_assigned_to_the_one_its_box_fits() -> None:
    first, second = [2.0, 2.0, 34.0, 34.0], [10.0, 10.0, 30.0, 38.0]
    truth = _truth([first, second], [0, 2])
    middle = int(torch.linalg.vector_norm(ANCHORS[:, :2] - 20, dim=1).argmin())
    # All boxes equal the second product; the anchor between the centres is a candidate for both.
    yxyx = np.tile(np.array(second)[[1, 0, 3, 2]] / SIZE, (COUNT, 1))
    location = torch.from_numpy(anchor_math.encode(yxyx, RATIOS).astype(np.float32))[None]
    logits = torch.full((1, COUNT, CLASSES), -2.0, requires_grad=True)
    _total(task_aligned(location, logits, [truth], ANCHORS)).backward()
    assert logits.grad[0, middle, 2] < 0 < logits.grad[0, middle, 0]


def test_a_product_without_an_anchor_is_learned_completely() -> None:
    truth = _truth([[25.0, 25.0, 27.5, 27.5]], [1])
    location, logits = (
        torch.zeros(1, COUNT, 4, requires_grad=True),
        torch.full((1, COUNT, CLASSES), -4.6, requires_grad=True),
    )
    optimizer = torch.optim.Adam([location, logits], lr=0.3)
    for _ in range(150):
        optimizer.zero_grad()
        _total(task_aligned(location, logits, [truth], ANCHORS)).backward()
        optimizer.step()
    best = int(logits[0, :, 1].argmax())
    assert torch.sigmoid(logits[0, best, 1]) > 3 * MIN_QUALITY
    np.testing.assert_allclose(
        decode_tensor(location[0].detach(), ANCHORS)[best], truth.boxes[0], atol=0.5
    )


@both
def test_order_of_photos_and_products_does_not_matter(loss: Callable) -> None:
    location, logits = _heads(3, photos=3)
    truths = [SHELF, _truth([], []), _truth([[10, 10, 40, 40]], [1])]
    flipped = Truth(SHELF.boxes.flip(0), SHELF.classes.flip(0), SHELF.ignore.flip(0))
    first = loss(location, logits, truths, ANCHORS)
    second = loss(location[[2, 0, 1]], logits[[2, 0, 1]], [truths[2], flipped, truths[1]], ANCHORS)
    for name in ("class", "box"):
        torch.testing.assert_close(first[name], second[name], rtol=1e-5, atol=1e-6)


@both
@pytest.mark.parametrize("scale", [1.0, 1e3])
@pytest.mark.parametrize(
    "truths",
    [[_truth([], [])], [_truth([[1, 1, 9, 9]], [0], [True])], [SHELF]],
    ids=["empty", "all ignored", "shelf"],
)
def test_gradients_are_finite(loss: Callable, scale: float, truths: list[Truth]) -> None:
    location, logits = (h.detach().mul(scale).requires_grad_() for h in _heads(4))
    parts = loss(location, logits, truths, ANCHORS)
    _total(parts).backward()
    assert torch.isfinite(_total(parts))
    assert torch.isfinite(logits.grad).all()
    # Without products, the box head has a gradient of 0, not none: DDP waits for every parameter.
    assert torch.isfinite(location.grad).all()


@both
def test_half_precision_heads_give_a_float32_loss(loss: Callable) -> None:
    location, logits = (h.detach().bfloat16() for h in _heads(5))
    assert all(
        part.dtype == torch.float32 for part in loss(location, logits, [SHELF], ANCHORS).values()
    )


def test_focal_by_hand() -> None:
    # Anchors (y, x, h, w): one on the product, one with IoU 0.45, and one far away.
    anchors = torch.tensor(
        [[20.0, 20.0, 20.0, 20.0], [20.0, 27.59, 20.0, 20.0], [50.0, 50.0, 20.0, 20.0]]
    )
    truth = _truth([[10, 10, 30, 30]], [1])
    location, logits = torch.zeros(1, 3, 4), torch.tensor([[[0.3, -0.2], [1.0, 2.0], [-1.0, 0.5]]])
    shared = (20 - 7.59) / (20 + 7.59)
    assert 0.4 < shared < 0.5
    parts = focal(location, logits, [truth], anchors)
    # The second anchor is left out. The first is the only positive one, with class 1.
    counted = logits[0, [0, 2]]
    expected = sigmoid_focal_loss(counted, torch.tensor([[0.0, 1.0], [0.0, 0.0]]), reduction="sum")
    torch.testing.assert_close(parts["class"], expected)
    # The prediction of the first anchor is the product itself.
    torch.testing.assert_close(parts["box"], torch.tensor(0.0), atol=1e-6, rtol=0)


def test_focal_matches_the_best_anchor_whatever_its_overlap() -> None:
    anchors = torch.tensor([[20.0, 20.0, 20.0, 20.0], [50.0, 50.0, 20.0, 20.0]])
    truth = _truth([[26, 26, 32, 32]], [0])
    parts = focal(torch.zeros(1, 2, 4), torch.zeros(1, 2, 2), [truth], anchors)
    expected = generalized_box_iou_loss(
        torch.tensor([[10.0, 10, 30, 30]]), truth.boxes, reduction="sum"
    )
    torch.testing.assert_close(parts["box"], expected)


def test_a_background_anchor_with_a_high_score_can_be_left_out_of_the_loss() -> None:
    location, logits = _perfect(SHELF)
    with torch.no_grad():
        background = int(ANCHORS[:, 0].argmax())
        logits[0, background] = torch.tensor([3.0, -30.0, -30.0])
    counted = _value(task_aligned(location, logits, [SHELF], ANCHORS)["class"])
    left_out = _value(task_aligned(location, logits, [SHELF], ANCHORS, forgive=0.9)["class"])
    clean = _value(task_aligned(*_perfect(SHELF), [SHELF], ANCHORS)["class"])
    assert counted > clean + 0.5
    assert left_out == pytest.approx(clean, abs=1e-5)
