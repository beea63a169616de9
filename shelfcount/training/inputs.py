"""Inputs of training: photos, the model specification from data and config, calibration photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shelfcount.config import Config
from shelfcount.data.datasets import align_classes
from shelfcount.data.splits import split
from shelfcount.labels.reading import read_corrected
from shelfcount.records import Dataset, ModelSpec
from shelfcount.training.networks import BASELINE, retinanet_levels
from shelfcount.training.runs import Sources, read_config, read_sources
from shelfcount.vision import anchors
from shelfcount.vision.anchors import box_sizes
from shelfcount.vision.images import read_input
from shelfcount.words import plural

# Share of the training photos that is held out to choose epoch and score threshold.
VALIDATION_SHARE = 1 / 7


def training_data(sources: Sources, seed: int) -> tuple[Dataset, Dataset, list[str]]:
    """Read the photos of a run, and hold out validation photos if it has none of its own.

    Args:
        sources: Paths of labels and corrections.
        seed: Seed of the run, which determines the photos that are held out.

    Returns:
        Training photos and validation photos with a common class list, and notes for the user, as
        from `labels.reading.read_corrected`.

    Raises:
        ShelfcountError: If labels, corrections or photos cannot be read, corrections do not fit
            their labels, or there are too few photos to hold some out.
    """
    data, val = sources.train, sources.val
    training, notes = read_corrected(
        data, sources.class_names, sources.corrections, [val] if val else []
    )
    if val:
        validation, more = read_corrected(val, sources.class_names, sources.corrections, [data])
        return *align_classes(training, validation), [*notes, *more]
    kept, held_out = hold_out(training, seed)
    note = (
        f"no --val: {len(held_out)} of {plural(len(training), 'photo')} held out for validation, "
        "without dividing a group"
    )
    return kept, held_out, [*notes, note]


def hold_out(dataset: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """Return a data set without its validation photos, and these; no group is divided.

    Raises:
        ShelfcountError: If there are too few groups of photos, or a photo cannot be read.
    """
    shares = {"train": 1 - VALIDATION_SHARE, "val": VALIDATION_SHARE}
    parts = split(dataset, shares, seed)
    return parts["train"], parts["val"]


def make_spec(train: Dataset, config: Config) -> ModelSpec:
    """Create the specification of an untrained model for a data set.

    Args:
        train: Training photos; the anchors of a phone model are fitted to their boxes.
        config: Configuration of the run.

    Returns:
        Model specification with classes, input size, anchors, NMS settings and product sizes.
    """
    sizes = box_sizes(train, config.model.height, config.model.width)
    baseline = config.model.architecture == BASELINE
    levels = (
        retinanet_levels()
        if baseline
        else anchors.fit_anchors(
            sizes, config.model.strides, config.model.anchors_per_place, config.train.seed
        )
    )
    reach = np.percentile(np.sqrt(sizes.prod(axis=1)), (10, 50, 90))
    return ModelSpec(
        name=f"{config.model.architecture}-{config.model.height}x{config.model.width}",
        architecture=config.model.architecture,
        classes=train.classes,
        height=config.model.height,
        width=config.model.width,
        levels=levels,
        nms_iou=config.export.nms_iou,
        max_detections=config.export.max_detections,
        product_px=tuple(round(float(v), 1) for v in reach),  # type: ignore[arg-type]
    )


def calibration_photos(
    train: Dataset, spec: ModelSpec, max_photos: int, seed: int = 0
) -> list[NDArray[np.uint8]]:
    """Read a random sample of the training photos as network inputs.

    Args:
        train: Training photos.
        spec: Specification of the model; it gives the input size.
        max_photos: Maximum number of photos.
        seed: Seed of the sample.

    Returns:
        Photos stretched to the input size, each (H, W, 3) uint8 RGB.

    Raises:
        ShelfcountError: If a photo cannot be read.
    """
    chosen = np.random.default_rng(seed).permutation(len(train))[:max_photos]
    return [read_input(train.photos[i].path, spec.height, spec.width) for i in chosen]


def calibration_photos_of_run(run: Path, spec: ModelSpec) -> list[NDArray[np.uint8]]:
    """Read the training photos of a run that `shelfcount export` uses for calibration.

    Args:
        run: Run folder.
        spec: Specification of the run's model.

    Returns:
        Photos stretched to the input size, each (H, W, 3) uint8 RGB.

    Raises:
        ShelfcountError: If the run, its labels or a photo cannot be read.
    """
    config = read_config(run)
    training, _, _ = training_data(read_sources(run), config.train.seed)
    return calibration_photos(training, spec, config.export.calibration_photos)
