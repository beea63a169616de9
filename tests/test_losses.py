"""Losses: right answers cost nothing, unclear ones teach nothing, small products are not forgotten."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from shelfcount.records import AnchorLevel
from shelfcount.training.losses import (
    LEAST_QUALITY,
    LOSSES,
    Truth,
    decode,
    focal,
    multibox,
    task_aligned,
)
from shelfcount.vision import anchors as anchor_math

SIZE, CLASSES = 64, 3
LEVELS = (AnchorLevel(8, ((16.0, 12.0),)), AnchorLevel(16, ((32.0, 24.0),)))
RATIOS = anchor_math.layout(LEVELS, SIZE, SIZE)
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
    """Each anchor at its nearest product exactly; only the best anchor of each product is sure of it."""
    centers = (truth.boxes[:, :2] + truth.boxes[:, 2:]) / 2
    distance = torch.cdist(ANCHORS[:, [1, 0]], centers)
    own = distance.argmin(dim=1)
    yxyx = truth.boxes[own][:, [1, 0, 3, 2]] / SIZE
    location = torch.from_numpy(anchor_math.encode(yxyx.numpy(), RATIOS).astype(np.float32))
    logits = torch.full((COUNT, CLASSES), -30.0)
    logits[distance.argmin(dim=0), truth.classes] = 30.0
    return location[None].requires_grad_(), logits[None].requires_grad_()


def _total(parts: dict[str, torch.Tensor]) -> torch.Tensor:
    return parts["class"] + parts["box"]


def _value(part: torch.Tensor) -> float:
    return part.detach().item()


def test_decode_is_the_runtimes_in_pixels() -> None:
    # Below the clamp at 8 times the anchor's size, which only an untrained network reaches.
    location = np.random.default_rng(0).normal(0, 2, (2, COUNT, 4)).astype(np.float32)
    expected = anchor_math.decode(location, RATIOS)[..., [1, 0, 3, 2]] * SIZE
    np.testing.assert_allclose(
        decode(torch.from_numpy(location), ANCHORS), expected, rtol=1e-4, atol=1e-3
    )


def test_perfect_answers_cost_almost_nothing() -> None:
    parts = task_aligned(*_perfect(SHELF), [SHELF], ANCHORS)
    # Further anchors inside a product have a target of about exp(-15), so a little is left.
    assert _value(parts["class"]) < 1e-3
    assert _value(parts["box"]) < 1e-3
    assert _value(_total(task_aligned(*_heads(0), [SHELF], ANCHORS))) > 1


def test_wrong_class_and_wrong_place_cost() -> None:
    location, logits = _perfect(SHELF)
    swapped = task_aligned(location, logits[..., [1, 2, 0]], [SHELF], ANCHORS)
    assert _value(swapped["class"]) > 10
    moved = task_aligned(location + 2.0, logits, [SHELF], ANCHORS)
    assert _value(moved["box"]) > 0.1


@both
def test_places_within_ignored_boxes_teach_nothing(loss: Callable) -> None:
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
    # None of these holds the centre of a place; an untrained head gives every anchor its own size.
    location, logits = (
        torch.zeros(1, COUNT, 4, requires_grad=True),
        torch.full((1, COUNT, CLASSES), -4.6, requires_grad=True),
    )
    _total(loss(location, logits, [_truth([box], [1])], ANCHORS)).backward()
    trained = (logits.grad[0, :, 1] < 0).nonzero().flatten()
    assert len(trained)
    middle = torch.tensor([(box[1] + box[3]) / 2, (box[0] + box[2]) / 2])
    assert (torch.linalg.vector_norm(ANCHORS[trained, :2] - middle, dim=1) < 12).all()
    assert (
        location.grad[0, trained, 2:] > 0
    ).all()  # Anchors are larger than it and have to shrink.


def test_a_lonely_product_pulls_a_box_that_does_not_overlap_it() -> None:
    # Every box stands two anchor sizes to the lower right of its place: 20 / 10 in y and x.
    location = torch.tensor([20.0, 20.0, 0.0, 0.0]).expand(1, COUNT, 4).clone().requires_grad_()
    logits = torch.full((1, COUNT, CLASSES), -4.6, requires_grad=True)
    _total(task_aligned(location, logits, [_truth([[25, 25, 27, 27]], [1])], ANCHORS)).backward()
    trained = (logits.grad[0, :, 1] < 0).nonzero().flatten()
    assert len(trained) == 1
    assert (location.grad[0, trained, :2] > 0).all()


def test_an_anchor_within_two_products_goes_to_the_one_its_box_fits() -> None:
    first, second = [2.0, 2.0, 34.0, 34.0], [10.0, 10.0, 30.0, 38.0]
    truth = _truth([first, second], [0, 2])
    middle = int(torch.linalg.vector_norm(ANCHORS[:, :2] - 20, dim=1).argmin())
    # All boxes are the second product's; both want the anchor between them.
    yxyx = np.tile(np.array(second)[[1, 0, 3, 2]] / SIZE, (COUNT, 1))
    location = torch.from_numpy(anchor_math.encode(yxyx, RATIOS).astype(np.float32))[None]
    logits = torch.full((1, COUNT, CLASSES), -2.0, requires_grad=True)
    _total(task_aligned(location, logits, [truth], ANCHORS)).backward()
    assert logits.grad[0, middle, 2] < 0 < logits.grad[0, middle, 0]


def test_a_lonely_product_is_learned_to_the_end() -> None:
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
    assert torch.sigmoid(logits[0, best, 1]) > 3 * LEAST_QUALITY
    np.testing.assert_allclose(
        decode(location[0].detach(), ANCHORS)[best], truth.boxes[0], atol=0.5
    )


@both
def test_order_of_photos_and_products_does_not_matter(loss: Callable) -> None:
    location, logits = _heads(3, photos=3)
    truths = [SHELF, _truth([], []), _truth([[10, 10, 40, 40]], [1])]
    turned = Truth(SHELF.boxes.flip(0), SHELF.classes.flip(0), SHELF.ignore.flip(0))
    first = loss(location, logits, truths, ANCHORS)
    second = loss(location[[2, 0, 1]], logits[[2, 0, 1]], [truths[2], turned, truths[1]], ANCHORS)
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
    # A photo without products still gives the box head a gradient, of 0: DDP waits for every parameter.
    assert torch.isfinite(location.grad).all()


@both
def test_half_precision_heads_give_a_float32_loss(loss: Callable) -> None:
    location, logits = (h.detach().bfloat16() for h in _heads(5))
    assert all(
        part.dtype == torch.float32 for part in loss(location, logits, [SHELF], ANCHORS).values()
    )


def test_focal_by_hand() -> None:
    # Anchors, (y, x, h, w): one on the product, one that shares 0.45 of it, one far away.
    anchors = torch.tensor(
        [[20.0, 20.0, 20.0, 20.0], [20.0, 27.59, 20.0, 20.0], [50.0, 50.0, 20.0, 20.0]]
    )
    truth = _truth([[10, 10, 30, 30]], [1])
    location, logits = torch.zeros(1, 3, 4), torch.tensor([[[0.3, -0.2], [1.0, 2.0], [-1.0, 0.5]]])
    shared = (20 - 7.59) / (20 + 7.59)
    assert 0.4 < shared < 0.5
    parts = focal(location, logits, [truth], anchors)
    # The middle one is neither for nor against; the first has class 1; one positive.
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


def test_smoothing_spreads_a_share_of_the_target_evenly() -> None:
    location, logits = _perfect(SHELF)
    plain = _value(task_aligned(location, logits, [SHELF], ANCHORS)["class"])
    smoothed = _value(task_aligned(location, logits, [SHELF], ANCHORS, smoothing=0.3)["class"])
    # A logit of -30 where the target is 0.1 of the quality costs 3 quality, two of three classes are such,
    # and the sure class, 30 where 0.8 of the quality is wanted, costs 6 of it: 12 in all, per target.
    assert plain < 0.1
    assert smoothed == pytest.approx(12, rel=0.05)


def test_an_unlabelled_place_that_scores_high_is_forgiven_and_a_labelled_one_is_not() -> None:
    location, logits = _perfect(SHELF)
    with torch.no_grad():
        surplus = int(ANCHORS[:, 0].argmax())
        logits[0, surplus] = torch.tensor([3.0, -30.0, -30.0])
    punished = _value(task_aligned(location, logits, [SHELF], ANCHORS)["class"])
    forgiven = _value(task_aligned(location, logits, [SHELF], ANCHORS, forgive=0.9)["class"])
    clean = _value(task_aligned(*_perfect(SHELF), [SHELF], ANCHORS)["class"])
    assert punished > clean + 0.5
    assert forgiven == pytest.approx(clean, abs=1e-5)


def test_multibox_takes_three_hardest_background_places_a_match() -> None:
    location, logits = torch.zeros(1, COUNT, 4), torch.zeros(1, COUNT, CLASSES)
    # Equal logits everywhere: each of the matched and the three times as many background places costs log(classes + 1).
    assert _value(multibox(location, logits, [SHELF], ANCHORS)["class"]) == pytest.approx(
        4 * np.log(CLASSES + 1), rel=1e-5
    )
