"""Training of neck and heads on cached features of a frozen backbone.

The backbone's features are computed once and cached, so that each training run takes seconds
instead of an hour. Each photo is cached in several augmented views, since augmentation changes the
features. Augmentations that combine several photos (mosaic, copy-paste) are not used: the other
photos could be test photos of a later split.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim.swa_utils import AveragedModel

from shelfcount.config import AugmentConfig, Config
from shelfcount.files import write_whole
from shelfcount.records import Dataset, Detections, ModelSpec, Photo, Progress, ShelfcountError
from shelfcount.training.augmentation import TrainingPhotos, TrainingSample
from shelfcount.training.batches import collate
from shelfcount.training.inputs import make_spec
from shelfcount.training.losses import Truth
from shelfcount.training.networks import BASELINE, build
from shelfcount.training.optimization import (
    cosine_schedule,
    ema_update,
    make_loss,
    training_precision,
    weight_decay_groups,
)
from shelfcount.training.runs import normalise
from shelfcount.training.starting_weights import start_weights
from shelfcount.vision import anchors
from shelfcount.vision.postprocess import detections_from_heads

# Number of photos per pass through the backbone when features are cached.
_BATCH = 8
# Batch size and peak learning rate for neck and heads. Those of a configuration are chosen for many
# epochs of the whole network. In few epochs, smaller batches with a higher learning rate give far
# better results, and there are no pretrained weights that a high learning rate could destroy.
HEAD_BATCH, HEAD_RATE = 4, 1e-2
# Maximum span of the weight EMA, as a share of all steps.
AVERAGED = 0.05
# File of the labels in a cache folder.
LABELS = "labels.npz"


@dataclass(frozen=True, eq=False)
class CachedFeatures:
    """Cached backbone features and labels of photos, each in several views.

    View 0 is the unchanged photo; the other views are augmented.

    Attributes:
        levels: Features of each backbone level, finest first, each a float16 array of shape
            (photos, views, height, width, channels).
        boxes: (n, 4) float32 xyxy in input pixels, of all views of all photos one after the other.
        classes: (n,) int64 class indices.
        ignore: (n,) bool; True for an ignored area.
        ends: (photos * views + 1,) int64 offsets into `boxes`: with i = p * views + v, view v of
            photo p has the boxes from ``ends[i]`` up to, not including, ``ends[i + 1]``.
    """

    levels: tuple[NDArray[np.float16], ...]
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    ignore: NDArray[np.bool_]
    ends: NDArray[np.int64]

    @property
    def views(self) -> int:
        """Number of views per photo."""
        return self.levels[0].shape[1]

    def features(self, photos: Sequence[int], views: Sequence[int]) -> list[torch.Tensor]:
        """Return the features of some photos, each in one view.

        Args:
            photos: Indices of B photos.
            views: Index of the view for each of the B photos.

        Returns:
            Features of each level, finest first, (B, C, h, w) float32 in channels-last memory
            format.
        """
        return [
            torch.from_numpy(np.asarray(level[photos, views])).permute(0, 3, 1, 2).float()
            for level in self.levels
        ]

    def truth(self, photo: int, view: int) -> Truth:
        """Return the ground truth of one view of a photo.

        Args:
            photo: Index of the photo.
            view: Index of the view.
        """
        entry = photo * self.views + view
        part = slice(self.ends[entry], self.ends[entry + 1])
        return Truth(
            *(
                torch.from_numpy(np.array(column[part]))
                for column in (self.boxes, self.classes, self.ignore)
            )
        )


def cache_features(
    data: Dataset,
    config: Config,
    views: int,
    folder: Path,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Compute the backbone features of all photos and cache them in a folder.

    Nothing is done if the folder contains a complete cache. All processes of the machine can share
    the cache.

    Args:
        data: Labelled photos.
        config: Configuration of a run. The backbone, its weights and the input size are those of
            ``model``; the augmentation is ``augment``, without mosaic, copy-paste and window.
        views: Number of views per photo, including the unchanged one.
        folder: Cache folder; it is created if needed. An incomplete cache is computed again.
        seed: Seed of the augmentation.
        progress: Called with (views done, total number of views).

    Raises:
        ShelfcountError: If the model is the baseline, or its starting weights cannot be used.
    """
    if (folder / LABELS).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    backbone = _frozen_backbone(data, config)
    model, size = config.model, len(data)
    plain = TrainingPhotos(data, model.height, model.width, None)
    alone = AugmentConfig(
        **{**config.augment.model_dump(), "mosaic": 0.0, "paste": 0.0, "window": 0}
    )
    changed = TrainingPhotos(data, model.height, model.width, alone, views, seed)
    levels: list[NDArray[np.float16]] = []
    samples: dict[tuple[int, int], TrainingSample] = {}
    for view in range(views):
        for start in range(0, size, _BATCH):
            photos = list(range(start, min(start + _BATCH, size)))
            batch = [(plain if view == 0 else changed)[(view, photo)] for photo in photos]
            for i, features in enumerate(_backbone_features(backbone, collate(batch)[0], config)):
                if len(levels) == i:
                    levels.append(_open(folder, i, (size, views, *features.shape[1:])))
                levels[i][photos, view] = features
            samples |= {(photo, view): sample for photo, sample in zip(photos, batch, strict=True)}
            if progress:
                progress(view * size + photos[-1] + 1, views * size)
    for level in levels:
        level.flush()  # type: ignore[attr-defined]
    _write_labels(folder, [samples[photo, view] for photo in range(size) for view in range(views)])


def load_features(folder: Path, mapped: bool = True) -> CachedFeatures:
    """Load features that `cache_features` wrote.

    Args:
        folder: Cache folder.
        mapped: Whether to map the features into memory, so that all processes of a machine share
            one copy. If False, they are read into memory.

    Returns:
        Features and labels of all photos.

    Raises:
        ShelfcountError: If the cache is missing or incomplete.
    """
    try:
        with np.load(folder / LABELS) as labels:
            columns = [labels[name] for name in ("boxes", "classes", "ignore", "ends")]
            levels = [
                np.load(folder / f"level{i}.npy", mmap_mode="r" if mapped else None)
                for i in range(int(labels["levels"]))
            ]
    except (OSError, ValueError, KeyError) as error:
        raise ShelfcountError(
            f"cached features in '{folder}' cannot be read: {error}. "
            "Delete this folder; the features will be computed again."
        ) from error
    return CachedFeatures(tuple(levels), *columns)


def train_heads(
    views: CachedFeatures,
    photos: Sequence[int],
    spec: ModelSpec,
    config: Config,
    epochs: int,
    seed: int,
) -> nn.Module:
    """Train neck and heads from their starting weights on some of the cached photos.

    Args:
        views: Cached features of all photos.
        photos: Indices of the training photos.
        spec: Model specification with anchors for the training photos.
        config: Configuration of a run: starting weights, loss, weight decay, warm-up, EMA, gradient
            clipping and precision are used.
        epochs: Number of times that each photo is used, each time in a random view.
        seed: Seed of the random weights, the order of the photos and the choice of views.

    Returns:
        Network with the EMA weights, in evaluation mode. Its backbone is an identity: only
        ``from_features`` can be used.
    """
    torch.manual_seed(seed)
    options = config.train
    net: Any = build(spec.architecture, len(spec.classes), spec.levels, config.model.neck)
    start_weights(net, spec.architecture, config.model.weights)
    net.trunk = nn.Identity()
    net = net.to(memory_format=torch.channels_last).train()
    batches = _batches(len(photos), HEAD_BATCH, epochs, seed)
    # In such a short training, an EMA over more steps would still contain the starting weights.
    averaged = AveragedModel(
        net,
        multi_avg_fn=ema_update(min(options.ema, 1 - 1 / (AVERAGED * len(batches)))),
        use_buffers=True,
    )
    averaged.requires_grad_(False)
    optimizer = torch.optim.AdamW(
        weight_decay_groups(list(net.parameters()), HEAD_RATE, options.weight_decay)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, cosine_schedule(len(batches), options.warmup)
    )
    loss, places = make_loss(options), _places(spec)
    for step, batch in enumerate(batches):
        rng = np.random.default_rng((seed, step))
        chosen, drawn = np.asarray(photos)[batch], rng.integers(views.views, size=len(batch))
        with _precision(config):
            location, logits = net.from_features(views.features(chosen, drawn))  # type: ignore[arg-type]
        truths = [views.truth(p, v) for p, v in zip(chosen, drawn, strict=True)]
        parts = loss(location, logits, truths, places)
        optimizer.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        nn.utils.clip_grad_norm_(net.parameters(), options.clip)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(net)
    return averaged.module.eval()


@torch.inference_mode()
def detect_cached(
    net: nn.Module, views: CachedFeatures, photo: int, original: Photo, spec: ModelSpec
) -> Detections:
    """Detect the products on the unchanged view of a cached photo.

    Args:
        net: Network from `train_heads`.
        views: Cached features of all photos.
        photo: Index of the photo in `views`.
        original: The photo itself. Its size in pixels is used.
        spec: Model specification used for training.

    Returns:
        Detections in pixels of the photo, with scores of at least ``spec.score_threshold``.
    """
    location, logits = net.from_features(views.features([photo], [0]))  # type: ignore[operator]
    return detections_from_heads(
        location[0].numpy(),
        logits[0].sigmoid().numpy(),
        anchors.anchor_grid(spec.levels, spec.height, spec.width),
        score_threshold=spec.score_threshold,
        nms_iou=spec.nms_iou,
        max_detections=spec.max_detections,
        width=original.width,
        height=original.height,
    )


def _frozen_backbone(data: Dataset, config: Config) -> nn.Module:
    if config.model.architecture == BASELINE:
        raise ShelfcountError(
            f"cached features of '{BASELINE}' are not supported: they would take gigabytes. "
            "Use a phone model, or --depth full."
        )
    spec = make_spec(data, config)
    net: Any = build(spec.architecture, len(spec.classes), spec.levels, config.model.neck)
    start_weights(net, spec.architecture, config.model.weights)
    # CPUs are faster in channels-last, and the cached features have this layout.
    return net.trunk.to(memory_format=torch.channels_last).eval()


@torch.inference_mode()
def _backbone_features(
    backbone: nn.Module, pixels: torch.Tensor, config: Config
) -> list[NDArray[np.float16]]:
    """Compute backbone features: of (B, 3, H, W) uint8 pixels, (B, h, w, C) float16 per level."""
    with _precision(config):
        features = backbone(normalise(pixels).contiguous(memory_format=torch.channels_last))
    return [f.permute(0, 2, 3, 1).to(torch.float16).numpy() for f in features]


def _precision(config: Config) -> torch.autocast:
    # Cached features are always computed and used on the CPU.
    options = config.train.model_copy(update={"accelerator": "cpu"})
    return torch.autocast(
        "cpu", torch.bfloat16, enabled=training_precision(options) == "bf16-mixed"
    )


def _open(folder: Path, level: int, shape: tuple[int, ...]) -> NDArray[np.float16]:
    return np.lib.format.open_memmap(
        folder / f"level{level}.npy", mode="w+", dtype=np.float16, shape=shape
    )


def _write_labels(folder: Path, samples: Sequence[TrainingSample]) -> None:
    ends = np.cumsum([0, *(len(sample["boxes"]) for sample in samples)])
    columns = {
        name: torch.cat([sample[name] for sample in samples]).numpy()
        for name in ("boxes", "classes", "ignore")
    }
    data = io.BytesIO()
    np.savez(data, ends=ends, levels=len(list(folder.glob("level*.npy"))), **columns)  # type: ignore[arg-type]
    # Written last: a cache with labels has complete features.
    write_whole(folder / LABELS, data.getvalue())


def _batches(size: int, batch: int, epochs: int, seed: int) -> list[NDArray[np.int64]]:
    """Return the photo indices of each training step; every photo occurs once per epoch."""
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(size) for _ in range(epochs)])
    return np.array_split(order, max(1, round(len(order) / batch)))


def _places(spec: ModelSpec) -> torch.Tensor:
    """Return the (A, 4) float32 anchors (ycenter, xcenter, h, w) in input pixels."""
    ratios = anchors.anchor_grid(spec.levels, spec.height, spec.width)
    return torch.from_numpy(ratios * np.array([spec.height, spec.width] * 2, np.float32))
