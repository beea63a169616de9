"""Detection losses: assignment of anchors to labelled boxes, classification loss and box loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torchvision.ops import box_iou, generalized_box_iou_loss, sigmoid_focal_loss

from shelfcount.vision.anchors import CODER_SCALES

# Minimum target of the anchor that is assigned to a product without an anchor centre inside it:
# high enough to move a predicted box that does not overlap the product yet, and low enough to keep
# the score low until it does.
MIN_QUALITY = 0.1


@dataclass(frozen=True)
class Truth:
    """Ground truth of one photo, for training.

    Attributes:
        boxes: (n, 4) float32 xyxy in input pixels.
        classes: (n,) int64 class indices.
        ignore: (n,) bool; True for an ignored area. Anchors in it that are not assigned to a
            product are left out of the classification loss.
    """

    boxes: torch.Tensor
    classes: torch.Tensor
    ignore: torch.Tensor


def decode_tensor(location: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """Decode box deltas to boxes, as `vision.anchors.decode`, but for tensors and in pixels.

    Args:
        location: (..., A, 4) float32 deltas (y, x, h, w), multiplied by `CODER_SCALES`.
        anchors: (A, 4) float32 (ycenter, xcenter, h, w) in input pixels.

    Returns:
        (..., A, 4) float32 xyxy in input pixels. No side is longer than 8 times the anchor's.
    """
    delta = location / location.new_tensor(CODER_SCALES)
    center = delta[..., :2] * anchors[:, 2:] + anchors[:, :2]
    # Only an untrained network predicts more than 8 times the anchor's size. The limit prevents an
    # overflow of the exponential.
    half = torch.exp(delta[..., 2:].clamp(max=2.08)) * anchors[:, 2:] / 2
    return torch.cat([center - half, center + half], dim=-1)[..., [1, 0, 3, 2]]


def _corners(anchors: torch.Tensor) -> torch.Tensor:
    """Convert (A, 4) anchors (ycenter, xcenter, h, w) to (A, 4) xyxy."""
    half = anchors[:, 2:] / 2
    return torch.cat([anchors[:, :2] - half, anchors[:, :2] + half], dim=1)[:, [1, 0, 3, 2]]


def _inside(points: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Return the (n, A) bool mask of the (A, 2) points (y, x) inside each of (n, 4) xyxy boxes."""
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
    forgive: float = 1.0,
) -> dict[str, torch.Tensor]:
    """Compute the loss with task-aligned assignment (Feng et al. 2021, arXiv:2108.07755).

    Among the anchors whose centre is inside a product, the `top` ones with the highest alignment
    score^alpha * IoU^beta are assigned to it. Their classification target is the alignment, scaled
    per product so that its maximum is the product's best IoU. The score thus also predicts how well
    the box fits. The classification loss is binary cross-entropy, the box loss is GIoU, weighted by
    the target.

    Args:
        location: (B, A, 4) predicted box deltas.
        logits: (B, A, C) predicted class logits.
        truths: Ground truth of each of the B photos.
        anchors: (A, 4) float32 (ycenter, xcenter, h, w) in input pixels.
        top: Maximum number of anchors per product.
        alpha: Exponent of the score in the alignment. Default: the value of YOLOv8's public recipe.
        beta: Exponent of the IoU in the alignment. Default: the value of YOLOv8's public recipe.
        box_weight: Weight of the box loss relative to the classification loss; arXiv:2108.07755
            uses 2 to 2.5.
        forgive: Background anchors predicted with a higher score than this in any class are left
            out of the classification loss, since the product may be unlabelled. 1 disables it.

    Returns:
        'class' and 'box': scalar float32 losses, summed over the batch and divided by the sum of
        the targets (at least 1).
    """
    location, logits = location.float(), logits.float()
    boxes = decode_tensor(location, anchors)
    targets = torch.zeros_like(logits)
    weights = torch.ones_like(logits[..., :1])
    matched: list[tuple[int, torch.Tensor, torch.Tensor]] = []
    with torch.no_grad():
        for i, truth in enumerate(truths):
            products = truth.boxes[~truth.ignore]
            if truth.ignore.any():
                weights[i, _inside(anchors[:, :2], truth.boxes[truth.ignore]).any(dim=0)] = 0
            if forgive < 1:
                weights[i, logits[i].amax(dim=1).sigmoid() > forgive] = 0
            if not len(products):
                continue
            classes = truth.classes[~truth.ignore]
            anchor, product, quality = _align(
                boxes[i], logits[i], products, classes, anchors, top, alpha, beta
            )
            targets[i, anchor, classes[product]] = quality
            weights[i, anchor] = 1
            matched.append((i, anchor, products[product]))
    normalizer = targets.sum().clamp(min=1.0)
    class_loss = (
        F.binary_cross_entropy_with_logits(logits, targets, weight=weights, reduction="sum")
        / normalizer
    )
    box_loss = location.sum() * 0.0
    for i, anchor, matched_boxes in matched:
        quality = targets[i, anchor].max(dim=1).values
        giou_loss = generalized_box_iou_loss(boxes[i, anchor], matched_boxes)
        box_loss = box_loss + (giou_loss * quality).sum() / normalizer
    return {"class": class_loss, "box": box_weight * box_loss}


def _align(
    boxes: torch.Tensor,
    logits: torch.Tensor,
    targets: torch.Tensor,
    classes: torch.Tensor,
    anchors: torch.Tensor,
    top: int,
    alpha: float,
    beta: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Assign anchors to the products of one photo; see `task_aligned`.

    Args:
        boxes: (A, 4) predicted boxes, xyxy in input pixels.
        logits: (A, C) predicted class logits.
        targets: (n, 4) boxes of the products, xyxy in input pixels.
        classes: (n,) int64 classes of the products.
        anchors: (A, 4) (ycenter, xcenter, h, w) in input pixels.
        top: Maximum number of anchors per product.
        alpha: Exponent of the score.
        beta: Exponent of the IoU.

    Returns:
        Indices (m,) of the assigned anchors, the index (m,) of the product of each, and the
        classification target (m,) of each, in [0, 1].
    """
    overlap = box_iou(targets, boxes).clamp(min=0)
    inside = _inside(anchors[:, :2], targets)
    alignment = logits[:, classes].T.sigmoid().pow(alpha) * overlap.pow(beta) * inside
    best = alignment.topk(min(top, alignment.shape[1]), dim=1)
    chosen = torch.zeros_like(inside).scatter_(1, best.indices, best.values > 1e-9)
    # A product to which no anchor is assigned, for example since it is smaller than a feature-map
    # cell, gets the nearest anchor.
    lonely = ~chosen.any(dim=1)
    if lonely.any():
        nearest = _distance(targets[lonely], anchors).argmin(dim=1)
        chosen[lonely.nonzero().squeeze(1), nearest] = True
    # An anchor of two products is assigned to the one whose box its prediction overlaps more.
    product = (overlap * chosen).argmax(dim=0)
    positive = chosen.any(dim=0).nonzero().squeeze(1)
    product = product[positive]
    assigned = torch.zeros_like(chosen)
    assigned[product, positive] = True
    metric = alignment * assigned
    scale = (overlap * assigned).max(dim=1).values / metric.max(dim=1).values.clamp(min=1e-9)
    quality = (metric[product, positive] * scale[product]).clamp(0.0, 1.0)
    # An anchor outside its product has alignment 0, so its target is its overlap.
    quality = torch.where(
        lonely[product], overlap[product, positive].clamp(min=MIN_QUALITY), quality
    )
    return positive, product, quality


def _distance(boxes: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """Return (n, A) distances in pixels of centres and sizes, added, from boxes to anchors."""
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    size = (boxes[:, 2:] - boxes[:, :2])[:, [1, 0]]
    near = torch.cdist(center[:, [1, 0]], anchors[:, :2])
    return near + (size[:, None] - anchors[None, :, 2:]).abs().sum(dim=2)


def focal(
    location: torch.Tensor, logits: torch.Tensor, truths: Sequence[Truth], anchors: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Compute RetinaNet's loss: matching by IoU, focal loss and GIoU loss.

    Anchors with an IoU of at least 0.5 with a product are positive, and anchors with an IoU below
    0.4 with every product are background. All others are left out, except that the best anchor of
    each product is positive if it overlaps the product at all. These rules are those of
    arXiv:1708.02002 and torchvision's reference.

    Args:
        location: (B, A, 4) predicted box deltas.
        logits: (B, A, C) predicted class logits.
        truths: Ground truth of each of the B photos.
        anchors: (A, 4) float32 (ycenter, xcenter, h, w) in input pixels.

    Returns:
        'class' and 'box': scalar float32 losses, summed over the batch and divided by the number of
        positive anchors (at least 1).
    """
    location, logits = location.float(), logits.float()
    boxes, corners = decode_tensor(location, anchors), _corners(anchors)
    class_loss, box_loss, count = logits.sum() * 0.0, location.sum() * 0.0, 0
    for i, truth in enumerate(truths):
        anchor, products, classes, counted = _matched(truth, anchors, corners)
        target = torch.zeros_like(logits[i])
        target[anchor, classes] = 1.0
        box_loss = box_loss + generalized_box_iou_loss(boxes[i, anchor], products, reduction="sum")
        class_loss = class_loss + (sigmoid_focal_loss(logits[i], target) * counted[:, None]).sum()
        count += len(anchor)
    return {"class": class_loss / max(count, 1), "box": box_loss / max(count, 1)}


def _matched(
    truth: Truth, anchors: torch.Tensor, corners: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Match anchors to the products of one photo by IoU; see `focal`.

    Args:
        truth: Ground truth of the photo.
        anchors: (A, 4) (ycenter, xcenter, h, w) in input pixels.
        corners: (A, 4) the same anchors, xyxy.

    Returns:
        Indices (m,) of the positive anchors, the box (m, 4) and class (m,) of the product of each,
        and the mask (A,) of the anchors that count in the classification loss.
    """
    products, classes = truth.boxes[~truth.ignore], truth.classes[~truth.ignore]
    counted = torch.ones(len(anchors), dtype=torch.bool, device=anchors.device)
    if truth.ignore.any():
        counted &= ~_inside(anchors[:, :2], truth.boxes[truth.ignore]).any(dim=0)
    if not len(products):
        return classes.new_zeros(0), products, classes, counted
    overlap = box_iou(products, corners)
    value, product = overlap.max(dim=0)
    best = overlap.max(dim=1, keepdim=True).values
    forced = (overlap >= best - 1e-6) & (overlap > 0)
    product = torch.where(forced.any(dim=0), forced.float().argmax(dim=0), product)
    positive = (value >= 0.5) | forced.any(dim=0)
    counted &= (value < 0.4) | positive
    counted |= positive
    anchor = positive.nonzero().squeeze(1)
    return anchor, products[product[anchor]], classes[product[anchor]], counted


# Values of `train.loss`.
LOSSES: dict[str, Callable[..., dict[str, torch.Tensor]]] = {
    "task_aligned": task_aligned,
    "focal": focal,
}
