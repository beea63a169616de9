"""What a network is punished for: which anchors stand for which product, and how far off they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torchvision.ops import box_iou, generalized_box_iou_loss, sigmoid_focal_loss

from shelfcount.vision.anchors import CODER_SCALES

# What a product's anchor is worth at least where none lies inside it: enough to pull a box near that
# does not overlap it yet, little enough that the score stays low until it does.
LEAST_QUALITY = 0.1


@dataclass(frozen=True)
class Truth:
    """The products on one photo, for training.

    Attributes:
        boxes: (n, 4) float32 xyxy, input pixels.
        classes: (n,) int64.
        ignore: (n,) bool.
    """

    boxes: torch.Tensor
    classes: torch.Tensor
    ignore: torch.Tensor


def decode(location: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """`vision.anchors.decode` for tensors, to xyxy input pixels.

    Args:
        location: (..., A, 4) deltas (y, x, h, w).
        anchors: (A, 4) (ycenter, xcenter, h, w) in input pixels.
    """
    delta = location / location.new_tensor(CODER_SCALES)
    center = delta[..., :2] * anchors[:, 2:] + anchors[:, :2]
    # A size beyond 8 times the anchor's is a network not yet trained; the exponential must not overflow.
    half = torch.exp(delta[..., 2:].clamp(max=2.08)) * anchors[:, 2:] / 2
    return torch.cat([center - half, center + half], dim=-1)[..., [1, 0, 3, 2]]


def _corners(anchors: torch.Tensor) -> torch.Tensor:
    half = anchors[:, 2:] / 2
    return torch.cat([anchors[:, :2] - half, anchors[:, :2] + half], dim=1)[:, [1, 0, 3, 2]]


def _inside(points: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """(n, A) whether (A, 2) points (y, x) lie within (n, 4) xyxy boxes."""
    y, x = points[:, 0], points[:, 1]
    return (x > boxes[:, :1]) & (x < boxes[:, 2:3]) & (y > boxes[:, 1:2]) & (y < boxes[:, 3:4])


def task_aligned(
    location: torch.Tensor,
    logits: torch.Tensor,
    truths: Sequence[Truth],
    anchors: torch.Tensor,
    *,
    top: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
    box_weight: float = 2.5,
    smoothing: float = 0.0,
    forgive: float = 1.0,
) -> dict[str, torch.Tensor]:
    """Task-aligned assignment (Feng et al. 2021, arXiv:2108.07755) with soft targets.

    A product trains the `top` anchors inside it that find it best by score^alpha * IoU^beta; their
    target is that quality, so the score says how well the box fits, and one threshold serves both.

    Args:
        location: (B, A, 4).
        logits: (B, A, C).
        truths: B of them.
        anchors: (A, 4) (ycenter, xcenter, h, w) in input pixels.
        top: Anchors a product trains.
        alpha, beta: Exponents of the alignment; the values of YOLOv8's public recipe.
        box_weight: Of the box loss against the class loss; arXiv:2108.07755 uses 2 to 2.5.
        smoothing: Share of a product's target that is spread evenly over the classes.
        forgive: A place that no labelled product claims and that scores above it, whatever the class, is
            left out of the class loss: on partly labelled photos it may well be a product.

    Returns:
        'class' and 'box', scalars, summed over the batch and divided by the targets' sum.
    """
    location, logits = location.float(), logits.float()
    boxes = decode(location, anchors)
    targets = torch.zeros_like(logits)
    weights = torch.ones_like(logits[..., :1])
    matched: list[tuple[int, torch.Tensor, torch.Tensor]] = []
    with torch.no_grad():
        for i, truth in enumerate(truths):
            wanted = truth.boxes[~truth.ignore]
            if truth.ignore.any():
                weights[i, _inside(anchors[:, :2], truth.boxes[truth.ignore]).any(dim=0)] = 0
            if forgive < 1:
                weights[i, logits[i].amax(dim=1).sigmoid() > forgive] = 0
            if not len(wanted):
                continue
            classes = truth.classes[~truth.ignore]
            anchor, product, quality = _align(
                boxes[i], logits[i], wanted, classes, anchors, top, alpha, beta
            )
            if smoothing:
                targets[i, anchor] = quality[:, None] * smoothing / logits.shape[-1]
            targets[i, anchor, classes[product]] += quality * (1 - smoothing)
            weights[i, anchor] = 1
            matched.append((i, anchor, wanted[product]))
    normalizer = targets.sum().clamp(min=1.0)
    class_loss = (
        F.binary_cross_entropy_with_logits(logits, targets, weight=weights, reduction="sum")
        / normalizer
    )
    box_loss = location.sum() * 0.0
    for i, anchor, wanted in matched:
        quality = targets[i, anchor].max(dim=1).values
        box_loss = (
            box_loss
            + (generalized_box_iou_loss(boxes[i, anchor], wanted) * quality).sum() / normalizer
        )
    return {"class": class_loss, "box": box_weight * box_loss}


def _align(
    boxes: torch.Tensor,
    logits: torch.Tensor,
    wanted: torch.Tensor,
    classes: torch.Tensor,
    anchors: torch.Tensor,
    top: int,
    alpha: float,
    beta: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    overlap = box_iou(wanted, boxes).clamp(min=0)
    inside = _inside(anchors[:, :2], wanted)
    alignment = logits[:, classes].T.sigmoid().pow(alpha) * overlap.pow(beta) * inside
    best = alignment.topk(min(top, alignment.shape[1]), dim=1)
    chosen = torch.zeros_like(inside).scatter_(1, best.indices, best.values > 1e-9)
    # A product too small for any place inside it still trains the nearest one.
    lonely = ~chosen.any(dim=1)
    if lonely.any():
        nearest = _distance(wanted[lonely], anchors).argmin(dim=1)
        chosen[lonely.nonzero().squeeze(1), nearest] = True
    # An anchor wanted by two products goes to the one it overlaps more.
    product = (overlap * chosen).argmax(dim=0)
    positive = chosen.any(dim=0).nonzero().squeeze(1)
    product = product[positive]
    own = torch.zeros_like(chosen)
    own[product, positive] = True
    strength = alignment * own
    scale = (overlap * own).max(dim=1).values / strength.max(dim=1).values.clamp(min=1e-9)
    quality = (strength[product, positive] * scale[product]).clamp(0.0, 1.0)
    # The alignment of a lonely product's anchor is 0, as it lies outside; its overlap has to serve.
    quality = torch.where(
        lonely[product], overlap[product, positive].clamp(min=LEAST_QUALITY), quality
    )
    return positive, product, quality


def _distance(boxes: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    size = (boxes[:, 2:] - boxes[:, :2])[:, [1, 0]]
    near = torch.cdist(center[:, [1, 0]], anchors[:, :2])
    return near + (size[:, None] - anchors[None, :, 2:]).abs().sum(dim=2)


def focal(
    location: torch.Tensor, logits: torch.Tensor, truths: Sequence[Truth], anchors: torch.Tensor
) -> dict[str, torch.Tensor]:
    """RetinaNet's loss: anchors matched by overlap (0.5 for, 0.4 against), focal and GIoU loss.

    The thresholds, and the best anchor of a product matched whatever its overlap, are those of
    arXiv:1708.02002 and torchvision's reference. Arguments and result as in `task_aligned`.
    """
    location, logits = location.float(), logits.float()
    boxes, corners = decode(location, anchors), _corners(anchors)
    class_loss, box_loss, count = logits.sum() * 0.0, location.sum() * 0.0, 0
    for i, truth in enumerate(truths):
        anchor, wanted, classes, judged = _matched(truth, anchors, corners)
        target = torch.zeros_like(logits[i])
        target[anchor, classes] = 1.0
        box_loss = box_loss + generalized_box_iou_loss(boxes[i, anchor], wanted, reduction="sum")
        class_loss = class_loss + (sigmoid_focal_loss(logits[i], target) * judged[:, None]).sum()
        count += len(anchor)
    return {"class": class_loss / max(count, 1), "box": box_loss / max(count, 1)}


def multibox(
    location: torch.Tensor,
    logits: torch.Tensor,
    truths: Sequence[Truth],
    anchors: torch.Tensor,
    *,
    negatives: int = 3,
) -> dict[str, torch.Tensor]:
    """SSD's loss (arXiv:1512.02325): softmax over the classes and background, with the hardest background places.

    Background has the fixed logit 0, so that the head needs no channel for it and a sigmoid still reads
    the scores. Arguments and result as in `task_aligned`.

    Args:
        negatives: Background places for each matched one, those with the largest loss; SSD's 3.
    """
    location, logits = location.float(), logits.float()
    boxes, corners = decode(location, anchors), _corners(anchors)
    class_loss, box_loss, count = logits.sum() * 0.0, location.sum() * 0.0, 0
    for i, truth in enumerate(truths):
        anchor, wanted, classes, judged = _matched(truth, anchors, corners)
        background = logits.shape[-1]
        target = torch.full((len(anchors),), background, device=logits.device)
        target[anchor] = classes
        loss = F.cross_entropy(F.pad(logits[i], (0, 1)), target, reduction="none")
        free = (target == background) & judged
        hardest = loss[free].topk(min(int(free.sum()), negatives * max(len(anchor), 1))).values
        box_loss = box_loss + generalized_box_iou_loss(boxes[i, anchor], wanted, reduction="sum")
        class_loss = class_loss + loss[anchor].sum() + hardest.sum()
        count += len(anchor)
    return {"class": class_loss / max(count, 1), "box": box_loss / max(count, 1)}


def _matched(
    truth: Truth, anchors: torch.Tensor, corners: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Matched anchors (m,), their boxes (m, 4) and classes (m,), and which anchors (A,) are to be judged at all."""
    wanted, classes = truth.boxes[~truth.ignore], truth.classes[~truth.ignore]
    judged = torch.ones(len(anchors), dtype=torch.bool, device=anchors.device)
    if truth.ignore.any():
        judged &= ~_inside(anchors[:, :2], truth.boxes[truth.ignore]).any(dim=0)
    if not len(wanted):
        return classes.new_zeros(0), wanted, classes, judged
    overlap = box_iou(wanted, corners)
    value, product = overlap.max(dim=0)
    best = overlap.max(dim=1, keepdim=True).values
    forced = (overlap >= best - 1e-6) & (overlap > 0)
    product = torch.where(forced.any(dim=0), forced.float().argmax(dim=0), product)
    positive = (value >= 0.5) | forced.any(dim=0)
    judged &= (value < 0.4) | positive
    judged |= positive
    anchor = positive.nonzero().squeeze(1)
    return anchor, wanted[product[anchor]], classes[product[anchor]], judged


LOSSES: dict[str, Callable[..., dict[str, torch.Tensor]]] = {
    "task_aligned": task_aligned,
    "focal": focal,
    "multibox": multibox,
}
