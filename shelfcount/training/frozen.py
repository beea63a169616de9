"""Heads on a frozen trunk: its features are computed once, so that each further training costs seconds and not an hour.

A changed view of a photo is cached as often as it is to be seen, since its features must be computed too. Views
that mix several photos (mosaic, pasted products) are left out: the other photos may stand in the test part of a later split.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from shelfcount.config import AugmentConfig, Config
from shelfcount.data.augment import Sample, TrainingPhotos, collate
from shelfcount.records import Dataset, Detections, ModelSpec, Photo, ShelfcountError
from shelfcount.training.detector import BASELINE, build
from shelfcount.training.fit import (
    chosen_loss,
    cosine,
    decayed,
    make_spec,
    precision,
    ramped_average,
)
from shelfcount.training.losses import Truth
from shelfcount.training.runs import normalise
from shelfcount.vision import anchors
from shelfcount.vision.images import write_whole
from shelfcount.vision.postprocess import detections_from_heads

BATCH = 8
# Of each step of the heads, and their peak rate. A config's are made for many epochs of a whole network; in so few, smaller
# steps at a higher rate learn far more, with no trunk that they could spoil.
HEAD_BATCH, HEAD_RATE = 4, 1e-2
# Of the steps, what the running average of the weights spans at most.
AVERAGED = 0.05
LABELS = "labels.npz"


@dataclass(frozen=True, eq=False)
class Views:
    """What a frozen trunk sees on each photo: as it is, and changed as training changes photos.

    Attributes:
        levels: A level of the trunk each, finest first: (photos, views, height, width, channels) float16; view 0
            is the photo as it is.
        boxes: (n, 4) float32 xyxy in input pixels, of all views of all photos one after the other.
        classes: (n,) int64.
        ignore: (n,) bool.
        ends: (photos * views + 1,) int64; the boxes of view v of photo p are those from entry p * views + v to the next.
    """

    levels: tuple[np.ndarray, ...]
    boxes: np.ndarray
    classes: np.ndarray
    ignore: np.ndarray
    ends: np.ndarray

    @property
    def views(self) -> int:
        """Of each photo."""
        return self.levels[0].shape[1]

    def features(self, photos: Sequence[int], views: Sequence[int]) -> list[torch.Tensor]:
        """(B, C, h, w) float32 in channels-last layout, a level each, for so many photos and the view of each."""
        return [
            torch.from_numpy(np.asarray(level[photos, views])).permute(0, 3, 1, 2).float()
            for level in self.levels
        ]

    def truth(self, photo: int, view: int) -> Truth:
        """The products of one view, for training."""
        place = photo * self.views + view
        part = slice(self.ends[place], self.ends[place + 1])
        return Truth(
            *(
                torch.from_numpy(np.array(column[part]))
                for column in (self.boxes, self.classes, self.ignore)
            )
        )


def cache(
    data: Dataset,
    config: Config,
    views: int,
    folder: Path,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Compute the features of all photos and leave them in a folder, where they serve every process of the machine.

    Args:
        data: Labelled photos.
        config: Its `model` says which trunk, with which start, at which size; its `augment` how views are changed.
        views: Of each photo, the one as it is included.
        folder: To be made. Half a cache, of a process that was killed, is computed again.
        seed: Of the changes.
        progress: Called with (views done, views in all).

    Raises:
        ShelfcountError: If the model is the baseline, or the start can't be read.
    """
    if (folder / LABELS).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    trunk = _trunk(data, config)
    model, size = config.model, len(data)
    plain = TrainingPhotos(data, model.height, model.width, None)
    alone = AugmentConfig(
        **{**config.augment.model_dump(), "mosaic": 0.0, "paste": 0.0, "window": 0}
    )
    changed = TrainingPhotos(data, model.height, model.width, alone, views, seed)
    levels: list[np.ndarray] = []
    samples: dict[tuple[int, int], Sample] = {}
    for view in range(views):
        for start in range(0, size, BATCH):
            photos = list(range(start, min(start + BATCH, size)))
            batch = [(plain if view == 0 else changed)[(view, photo)] for photo in photos]
            for i, features in enumerate(_seen(trunk, collate(batch)[0], config)):
                if len(levels) == i:
                    levels.append(_open(folder, i, (size, views, *features.shape[1:])))
                levels[i][photos, view] = features
            samples |= {(photo, view): sample for photo, sample in zip(photos, batch, strict=True)}
            if progress:
                progress(view * size + photos[-1] + 1, views * size)
    for level in levels:
        level.flush()  # type: ignore[attr-defined]
    _write_labels(folder, [samples[photo, view] for photo in range(size) for view in range(views)])


def load(folder: Path, mapped: bool = True) -> Views:
    """What `cache` left; mapped, all processes of a machine share one copy.

    Raises:
        ShelfcountError: If it is not there or not whole.
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
            f"the cached features in '{folder}' cannot be read: {error}. Delete it; they are computed again."
        ) from error
    return Views(tuple(levels), *columns)


def train_heads(
    views: Views, photos: Sequence[int], spec: ModelSpec, config: Config, epochs: int, seed: int
) -> nn.Module:
    """Pyramid and heads from a start of their own on some of the cached photos.

    Args:
        views: Of all photos.
        photos: Indices of those to train on.
        spec: With anchors for them.
        config: Loss, decay, warm-up, averaging, precision and the start.
        epochs: How often each photo is seen, in any of its views.
        seed: Of heads, order and views.

    Returns:
        The averaged network; its trunk is not the one that was trained for.
    """
    torch.manual_seed(seed)
    options = config.train
    net: Any = build(spec.architecture, len(spec.classes), spec.levels, config.model.neck)
    net.load_start(spec.architecture, config.model.weights)
    net.trunk = nn.Identity()
    net = net.to(memory_format=torch.channels_last).train()
    batches = _batches(len(photos), HEAD_BATCH, epochs, seed)
    # An average over more than the last steps of so short a training would still hold its start.
    averaged = AveragedModel(
        net,
        multi_avg_fn=ramped_average(min(options.ema, 1 - 1 / (AVERAGED * len(batches)))),
        use_buffers=True,
    )
    averaged.requires_grad_(False)
    optimizer = torch.optim.AdamW(decayed(list(net.parameters()), HEAD_RATE, options.weight_decay))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine(len(batches), options.warmup))
    loss, places = chosen_loss(options), _places(spec)
    for step, batch in enumerate(batches):
        rng = np.random.default_rng((seed, step))
        chosen, seen = np.asarray(photos)[batch], rng.integers(views.views, size=len(batch))
        with _precision(config):
            location, logits = net.from_features(views.features(chosen, seen))  # type: ignore[arg-type]
        parts = loss(
            location, logits, [views.truth(p, v) for p, v in zip(chosen, seen, strict=True)], places
        )
        optimizer.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        nn.utils.clip_grad_norm_(net.parameters(), options.clip)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(net)
    return averaged.module.eval()


@torch.inference_mode()
def detect(net: nn.Module, views: Views, photo: int, of: Photo, spec: ModelSpec) -> Detections:
    """What trained heads find on a cached photo as it is, in its own pixels, above the spec's threshold.

    Args:
        net: From `train_heads`.
        views: Of all photos.
        photo: Index of the one to look at.
        of: That photo.
        spec: As in training.
    """
    location, logits = net.from_features(views.features([photo], [0]))  # type: ignore[operator]
    return detections_from_heads(
        location[0].numpy(),
        logits[0].sigmoid().numpy(),
        anchors.layout(spec.levels, spec.height, spec.width),
        score_threshold=spec.score_threshold,
        nms_iou=spec.nms_iou,
        max_detections=spec.max_detections,
        width=of.width,
        height=of.height,
    )


def _trunk(data: Dataset, config: Config) -> nn.Module:
    if config.model.architecture == BASELINE:
        raise ShelfcountError(
            f"cached features of '{BASELINE}' would take gigabytes; give a phone model, or the full depth"
        )
    spec = make_spec(data, config)
    net: Any = build(spec.architecture, len(spec.classes), spec.levels, config.model.neck)
    net.load_start(spec.architecture, config.model.weights)
    # What processors are quicker in, and the layout that features are kept in.
    return net.trunk.to(memory_format=torch.channels_last).eval()


@torch.inference_mode()
def _seen(trunk: nn.Module, pixels: torch.Tensor, config: Config) -> list[np.ndarray]:
    """(B, h, w, C) float16, a level each."""
    with _precision(config):
        features = trunk(normalise(pixels).contiguous(memory_format=torch.channels_last))
    return [f.permute(0, 2, 3, 1).to(torch.float16).numpy() for f in features]


def _precision(config: Config) -> torch.autocast:
    # On the processor, whatever a whole training would run on.
    options = config.train.model_copy(update={"accelerator": "cpu"})
    return torch.autocast("cpu", torch.bfloat16, enabled=precision(options) == "bf16-mixed")


def _open(folder: Path, level: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.lib.format.open_memmap(
        folder / f"level{level}.npy", mode="w+", dtype=np.float16, shape=shape
    )


def _write_labels(folder: Path, samples: Sequence[Sample]) -> None:
    ends = np.cumsum([0, *(len(sample["boxes"]) for sample in samples)])
    columns = {
        name: torch.cat([sample[name] for sample in samples]).numpy()
        for name in ("boxes", "classes", "ignore")
    }
    data = io.BytesIO()
    np.savez(data, ends=ends, levels=len(list(folder.glob("level*.npy"))), **columns)  # type: ignore[arg-type]
    # Last: where the labels are, the features are whole.
    write_whole(folder / LABELS, data.getvalue())


def _batches(size: int, batch: int, epochs: int, seed: int) -> list[np.ndarray]:
    """Indices of the photos of each step; every photo as often as there are epochs."""
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(size) for _ in range(epochs)])
    return np.array_split(order, max(1, round(len(order) / batch)))


def _places(spec: ModelSpec) -> torch.Tensor:
    """(A, 4) anchors (ycenter, xcenter, h, w) in input pixels."""
    ratios = anchors.layout(spec.levels, spec.height, spec.width)
    return torch.from_numpy(ratios * np.array([spec.height, spec.width] * 2, np.float32))
