"""Inputs of training: the model specification from data and config, and calibration photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shelfcount.config import Config
from shelfcount.data.formats import read_labels
from shelfcount.data.splits import split
from shelfcount.records import Dataset, ModelSpec
from shelfcount.training.networks import BASELINE, retinanet_levels
from shelfcount.training.runs import read_config, read_sources
from shelfcount.vision import anchors
from shelfcount.vision.anchors import box_sizes
from shelfcount.vision.images import read_photo, stretch

# Share of the photos outside the fold that is used to choose epoch and threshold. Without --val,
# `shelfcount train` holds out the same share.
VALIDATION_SHARE = 1 / 7


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
    train: Dataset, spec: ModelSpec, most: int, seed: int = 0
) -> list[np.ndarray]:
    """Read a random sample of the training photos as network inputs.

    Args:
        train: Training photos.
        spec: Specification of the model; it gives the input size.
        most: Maximum number of photos.
        seed: Seed of the sample.

    Returns:
        Photos stretched to the input size, each (H, W, 3) uint8 RGB.

    Raises:
        ShelfcountError: If a photo cannot be read.
    """
    chosen = np.random.default_rng(seed).permutation(len(train))[:most]
    return [stretch(read_photo(train.photos[i].path), spec.height, spec.width) for i in chosen]


def calibration_photos_of_run(run: Path, spec: ModelSpec) -> list[np.ndarray]:
    """Read the training photos of a run that `shelfcount export` uses for calibration.

    Args:
        run: Run folder.
        spec: Specification of the run's model.

    Returns:
        Photos stretched to the input size, each (H, W, 3) uint8 RGB.

    Raises:
        ShelfcountError: If the run, its labels or a photo cannot be read.
    """
    sources, config = read_sources(run), read_config(run)
    training = read_labels(sources.train, class_names=sources.class_names)
    if sources.val is None:
        training = split(training, {"train": 6 / 7, "val": 1 / 7}, config.train.seed)["train"]
    return calibration_photos(training, spec, config.export.calibration_photos)
