"""Training augmentation: torchvision.transforms.v2, mosaic, copy-paste and photo conditions.

Every sample depends only on (seed, epoch, index), whatever the number of worker processes. Thus a
run can be repeated, and an interrupted run continues with the same samples.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset as TorchDataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from shelfcount.config import AugmentConfig
from shelfcount.records import Dataset, Detections
from shelfcount.vision.conditions import CONDITIONS, SEVERITIES
from shelfcount.vision.homography import MIN_VISIBLE
from shelfcount.vision.images import FILL_GREY, read_input, stretch

# Share of a photo's products that copy-paste replaces.
PASTED_SHARE = 0.25
# Maximum difference in log width and in log height between a pasted product and the one it
# replaces.
MAX_SIZE_DIFFERENCE = float(np.log(1.35))

TrainingSample = dict[str, torch.Tensor]


def transforms(config: AugmentConfig, height: int, width: int) -> tuple[v2.Transform, v2.Transform]:
    """Return the geometric and the photometric transform of training photos.

    Args:
        config: Probabilities and ranges of the transforms.
        height, width: Size of the network's input in pixels.

    Returns:
        The geometric transform, for an image and its boxes, and the photometric transform, for an
        image only.
    """
    geometry = v2.Compose(
        [
            v2.RandomHorizontalFlip(config.flip),
            v2.RandomApply(
                [v2.RandomPerspective(distortion_scale=0.15, p=1.0, fill=FILL_GREY)],
                p=config.perspective,
            ),
            v2.RandomAffine(
                degrees=config.rotate, translate=(0.1, 0.1), scale=config.scale, fill=FILL_GREY
            ),
        ]
    )
    # The look is torchvision's, not that of vision.effects: it works on tensors like the rest of
    # the transform, and needs no stated severities in linear light.
    noise = [
        v2.ToDtype(torch.float32, scale=True),
        v2.GaussianNoise(sigma=0.03),
        v2.ToDtype(torch.uint8, scale=True),
    ]
    look = v2.Compose(
        [
            v2.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue),
            v2.RandomApply([v2.GaussianBlur(5, sigma=(0.3, 1.6))], p=config.blur),
            v2.RandomApply(noise, p=config.noise),
            v2.RandomApply([v2.JPEG((35, 95))], p=config.jpeg),
        ]
    )
    return geometry, look


@dataclass(frozen=True)
class _Products:
    """All products of the training photos that copy-paste can draw.

    Attributes:
        photos: (n,) int64, index of the photo.
        boxes: (n, 4) int64 xyxy, pixels of the network's input.
        log_sizes: (n, 2) float64, logarithms of width and height.
        classes: (n,) int64, class indices.
        weights: (n,) float64, sampling weights; products of rare classes have larger ones.
    """

    photos: NDArray[np.int64]
    boxes: NDArray[np.int64]
    log_sizes: NDArray[np.float64]
    classes: NDArray[np.int64]
    weights: NDArray[np.float64]


def _products(dataset: Dataset, height: int, width: int) -> _Products:
    photos, boxes, classes = [], [], []
    for index, photo in enumerate(dataset.photos):
        truth = photo.truth
        scaled = truth.boxes * np.array([width / photo.width, height / photo.height] * 2)
        inside = np.clip(np.rint(scaled), 0, (width, height, width, height)).astype(np.int64)
        good = ~truth.ignore & ((inside[:, 2:] - inside[:, :2]) >= 4).all(axis=1)
        photos.append(np.full(int(good.sum()), index))
        boxes.append(inside[good])
        classes.append(truth.classes[good])
    place, corner, kind = np.concatenate(photos), np.concatenate(boxes), np.concatenate(classes)
    counts = np.bincount(kind, minlength=1)
    # A compromise between uniform sampling of products, in which rare classes remain rare, and
    # uniform sampling of classes, in which the same few products of a rare class are repeated.
    weights = 1 / np.sqrt(np.maximum(counts[kind], 1))
    return _Products(
        place, corner, np.log(np.maximum(corner[:, 2:] - corner[:, :2], 1)), kind, weights
    )


class TrainingPhotos(TorchDataset[TrainingSample]):
    """Augmented training photos, decoded once and kept in memory at the network's input size.

    The key of a sample is (epoch, index of the photo).

    Args:
        dataset: Labelled photos.
        height, width: Size of the network's input in pixels.
        config: Augmentation settings; None returns the photos without augmentation.
        epochs: Number of epochs of the run, from which the last epoch with mosaic follows.
        seed: Seed of all random choices.
    """

    def __init__(
        self,
        dataset: Dataset,
        height: int,
        width: int,
        config: AugmentConfig | None,
        epochs: int = 1,
        seed: int = 0,
    ) -> None:
        self.dataset, self.height, self.width = dataset, height, width
        self.config, self.epochs, self.seed = config, epochs, seed
        if config is not None:
            self.geometry, self.look = transforms(config, height, width)
        self.pixels = torch.empty(len(dataset), 3, height, width, dtype=torch.uint8)
        for i, photo in enumerate(dataset.photos):
            pixels = read_input(photo.path, height, width)
            self.pixels[i] = torch.from_numpy(pixels).permute(2, 0, 1)
        # Worker processes share this memory instead of copying it.
        self.pixels.share_memory_()
        self.products = _products(dataset, height, width)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> TrainingSample:
        epoch, index = key
        image, boxes, classes, ignore = self._photo(index)
        if self.config is not None:
            rng = np.random.default_rng((self.seed, epoch, index))
            # torchvision uses the global random generators.
            random.seed(int(rng.integers(2**32)))
            torch.manual_seed(int(rng.integers(2**63)))
            if rng.random() < self.config.mosaic and epoch < self.config.mosaic_until * self.epochs:
                image, boxes, classes, ignore = self._mosaic(index, rng)
            if self.config.paste and rng.random() < self.config.paste:
                image, classes = self._paste(image, boxes, classes, ignore, rng)
            image, boxes, ignore = self._move(image, boxes, ignore, rng)
            image = self.look(image)
            if self.config.conditions and rng.random() < self.config.condition:
                image, boxes, ignore = self._under_condition(image, boxes, ignore, rng)
            if self.config.window:
                image, boxes, ignore = self._through_window(image, boxes, ignore, rng)
        sized = ((boxes[:, 2:] - boxes[:, :2]) > 1).all(dim=1)
        return {
            "image": image.as_subclass(torch.Tensor),
            "boxes": boxes[sized],
            "classes": classes[sized],
            "ignore": ignore[sized],
        }

    def _photo(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        photo = self.dataset.photos[index]
        scale = torch.tensor(
            [self.width / photo.width, self.height / photo.height] * 2, dtype=torch.float32
        )
        truth = photo.truth
        boxes = torch.from_numpy(truth.boxes.copy()) * scale
        return (
            self.pixels[index],
            boxes,
            torch.from_numpy(truth.classes.copy()),
            torch.from_numpy(truth.ignore.copy()),
        )

    def _mosaic(
        self, index: int, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return a mosaic of windows from four photos that meet at a random point.

        Products thus get new neighbours. Boxes that a window cuts to less than `MIN_VISIBLE` are
        marked `ignore`.
        """
        center_x = int(self.width * rng.uniform(0.35, 0.65))
        center_y = int(self.height * rng.uniform(0.35, 0.65))
        canvas = torch.empty_like(self.pixels[index])
        parts = []
        others = rng.integers(len(self), size=3)
        corners = [(0, 0, center_x, center_y), (center_x, 0, self.width, center_y)]
        corners += [
            (0, center_y, center_x, self.height),
            (center_x, center_y, self.width, self.height),
        ]
        for source, (left, top, right, bottom) in zip([index, *others], corners, strict=True):
            image, boxes, classes, ignore = self._photo(int(source))
            # A window of this size at a random position of the source photo, without scaling.
            x = int(rng.integers(0, self.width - (right - left) + 1))
            y = int(rng.integers(0, self.height - (bottom - top) + 1))
            canvas[:, top:bottom, left:right] = image[:, y : y + bottom - top, x : x + right - left]
            moved = boxes + boxes.new_tensor([left - x, top - y] * 2)
            kept = _cut(moved, left, top, right, bottom)
            visible = (kept[:, 2:] > kept[:, :2]).all(dim=1)
            ignore = ignore | _hidden(kept, moved)
            parts.append((kept[visible], classes[visible], ignore[visible]))
        boxes, classes, ignore = (torch.cat(column) for column in zip(*parts, strict=True))
        return canvas, boxes, classes, ignore

    def _paste(
        self,
        image: torch.Tensor,
        boxes: torch.Tensor,
        classes: torch.Tensor,
        ignore: torch.Tensor,
        rng: np.random.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the image and classes after copy-paste.

        A random part of the products is replaced by products of similar size from the training
        photos, with preference for rare classes.
        """
        image, classes = image.clone(), classes.clone()
        whole = boxes.round().long()
        whole[:, :2].clamp_(min=0)
        whole[:, 2:] = torch.minimum(whole[:, 2:], whole.new_tensor([self.width, self.height]))
        sizes = (whole[:, 2:] - whole[:, :2]).numpy()
        for place in np.flatnonzero(rng.random(len(boxes)) < PASTED_SHARE):
            width, height = sizes[place]
            if ignore[place] or min(width, height) < 4:
                continue
            likeness = np.abs(self.products.log_sizes - np.log((width, height))).max(axis=1)
            weight = self.products.weights * (likeness < MAX_SIZE_DIFFERENCE)
            if not weight.any():
                continue
            chosen = int(
                np.searchsorted(np.cumsum(weight), rng.random() * weight.sum(), side="right")
            )
            source, (x1, y1, x2, y2) = self.products.photos[chosen], self.products.boxes[chosen]
            crop = self.pixels[source, :, y1:y2, x1:x2]
            left, top, right, bottom = whole[place].tolist()
            image[:, top:bottom, left:right] = v2.functional.resize(
                crop, [bottom - top, right - left], antialias=True
            )
            classes[place] = int(self.products.classes[chosen])
        return image, classes

    def _move(
        self,
        image: torch.Tensor,
        boxes: torch.Tensor,
        ignore: torch.Tensor,
        rng: np.random.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        # The midpoints of the edges are transformed, not the corners, as by the rule "edges" of
        # vision.homography.map_boxes. The points are passed as boxes without size, which
        # torchvision does not clamp on request, so that the remaining share of each box can be
        # computed.
        points = _edge_middles(boxes).reshape(-1, 2)
        canvas = (self.height, self.width)
        frame = tv_tensors.BoundingBoxes(
            points.repeat(1, 2), format="XYXY", canvas_size=canvas, clamping_mode=None
        )  # type: ignore[call-arg]
        picture, frame = self.geometry(tv_tensors.Image(image), frame)
        moved = _around(frame.as_subclass(torch.Tensor)[:, :2].reshape(-1, 4, 2))
        # Cut the boxes before the picture is narrowed: the part outside the frame is lost, and
        # narrowing would move its box back onto the grey fill.
        kept = _cut(moved, 0, 0, self.width, self.height)
        stretch_x = 1 + rng.uniform(-self.config.aspect, self.config.aspect) if self.config else 1.0
        if abs(stretch_x - 1) > 0.02:
            picture = _widen(picture, stretch_x)
            moved, kept = (_widen_boxes(b, stretch_x, self.width) for b in (moved, kept))
            kept = _cut(kept, 0, 0, self.width, self.height)
        return picture, kept, ignore | _hidden(kept, moved)

    def _under_condition(
        self,
        image: torch.Tensor,
        boxes: torch.Tensor,
        ignore: torch.Tensor,
        rng: np.random.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the sample under a random condition of the config at a random severity.

        Boxes outside the frame get no size and are marked `ignore`.
        """
        assert self.config is not None
        condition = CONDITIONS[
            self.config.conditions[int(rng.integers(len(self.config.conditions)))]
        ]
        changed = condition.apply(
            np.ascontiguousarray(image.permute(1, 2, 0).numpy()), int(rng.choice(SEVERITIES)), rng
        )
        height, width = changed.image.shape[:2]
        seen, kept = changed.move(
            Detections(boxes.numpy(), np.zeros(len(boxes)), ignore=ignore.numpy())
        )
        moved, hidden = torch.zeros_like(boxes), torch.ones_like(ignore)
        moved[kept] = torch.from_numpy(
            seen.boxes * np.array([self.width / width, self.height / height] * 2, np.float32)
        )
        hidden[kept] = torch.from_numpy(seen.ignore.copy())
        # A condition may change the size of the photo; the input of the network is of constant
        # size.
        return (
            torch.from_numpy(stretch(changed.image, self.height, self.width)).permute(2, 0, 1),
            moved,
            hidden,
        )

    def _through_window(
        self,
        image: torch.Tensor,
        boxes: torch.Tensor,
        ignore: torch.Tensor,
        rng: np.random.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return a square window of the sample at a random position.

        Boxes outside the window get no size and are marked `ignore`.
        """
        assert self.config is not None
        side = self.config.window
        top, left = (int(rng.integers(0, size - side + 1)) for size in (self.height, self.width))
        moved = boxes - boxes.new_tensor([left, top] * 2)
        kept = _cut(moved, 0, 0, side, side)
        return image[:, top : top + side, left : left + side], kept, ignore | _hidden(kept, moved)


def _edge_middles(boxes: torch.Tensor) -> torch.Tensor:
    """Return the midpoints of box edges.

    Args:
        boxes: (n, 4) float32 xyxy, pixels.

    Returns:
        (n, 4, 2) float32, (x, y) of the left, top, right and bottom edge.
    """
    left, top, right, bottom = boxes.unbind(dim=1)
    x, y = (left + right) / 2, (top + bottom) / 2
    return torch.stack([left, y, x, top, right, y, x, bottom], dim=1).reshape(-1, 4, 2)


def _around(points: torch.Tensor) -> torch.Tensor:
    """Return the (n, 4) xyxy bounding boxes of (n, k, 2) points (x, y)."""
    return torch.cat([points.amin(dim=1), points.amax(dim=1)], dim=1)


def _widen(image: torch.Tensor, share: float) -> torch.Tensor:
    """Return the image stretched by `share` in x around its centre, with the same size.

    Args:
        image: (3, h, w) uint8.
        share: Factor of the width; below 1 the sides are filled with grey.
    """
    height, width = image.shape[-2:]
    wide = v2.functional.resize(image, [height, round(width * share)], antialias=False)
    # center_crop of torchvision fills with black. After this padding it only cuts.
    missing = max(width - wide.shape[-1], 0)
    wide = v2.functional.pad(wide, [missing // 2, 0, missing - missing // 2, 0], fill=[FILL_GREY])
    return v2.functional.center_crop(wide, [height, width])


def _widen_boxes(boxes: torch.Tensor, share: float, width: int) -> torch.Tensor:
    """Return the (n, 4) xyxy boxes of an image of `width` pixels after `_widen`."""
    scaled = boxes.clone()
    scaled[:, [0, 2]] = (boxes[:, [0, 2]] - width / 2) * share + width / 2
    return scaled


def _cut(boxes: torch.Tensor, left: int, top: int, right: int, bottom: int) -> torch.Tensor:
    """Return the (n, 4) xyxy boxes cut at a window; boxes outside it get no size."""
    low, high = boxes.new_tensor([left, top] * 2), boxes.new_tensor([right, bottom] * 2)
    return torch.minimum(torch.maximum(boxes, low), high)


def _hidden(kept: torch.Tensor, uncut: torch.Tensor) -> torch.Tensor:
    """Return (n,) bool: boxes of which less than `MIN_VISIBLE` of the area is left.

    Args:
        kept: (n, 4) xyxy, boxes after the cut.
        uncut: (n, 4) xyxy, the same boxes before the cut.
    """
    left_over, before = ((boxes[:, 2:] - boxes[:, :2]).prod(dim=1) for boxes in (kept, uncut))
    return left_over < MIN_VISIBLE * before
