"""Evaluation of a detector on a data set: one pass over the photos, then the detection metrics."""

from __future__ import annotations

import numpy as np

from shelfcount.metrics.scoring import Evaluation, score
from shelfcount.records import Dataset, Detections, Detector, Progress, ShelfcountError
from shelfcount.runtime.photos import read_photos
from shelfcount.vision.postprocess import LOWEST_SCORE


def evaluate_detector(
    detector: Detector,
    dataset: Dataset,
    *,
    threshold: float | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Run a detector on labelled photos and compute its metrics.

    mAP needs detections with low scores. It is measured only if the detector's own score threshold
    (``spec.score_threshold``) is at most `LOWEST_SCORE`: open the detector with a low threshold and
    pass the threshold for F1 here.

    Args:
        detector: A detector with the classes of `dataset`, in any order.
        dataset: Labelled photos, at least one.
        threshold: Score threshold for F1 and counts. Default: the detector's own.
        progress: Called with the number of photos done and the number of all photos.

    Returns:
        The metrics of the detector.

    Raises:
        ValueError: If the threshold is above 1.
        ShelfcountError: If `threshold` is below the detector's own, so that detections are missing,
            or for the reasons given at `detect_dataset` and `score`.
    """
    lowest = detector.spec.score_threshold
    if threshold is not None and threshold < lowest:
        raise ShelfcountError(
            f"the score threshold {threshold:g} is below the detector's own, {lowest:g}, so "
            f"detections are missing. Give a threshold of at least {lowest:g}."
        )
    detections = detect_dataset(detector, dataset, progress=progress)
    return score(
        dataset,
        detections,
        lowest if threshold is None else threshold,
        average_precision=lowest <= LOWEST_SCORE,
    )


def detect_dataset(
    detector: Detector, dataset: Dataset, *, progress: Progress | None = None
) -> list[Detections]:
    """Run a detector on every photo of a data set.

    Args:
        detector: A detector with the classes of `dataset`, in any order.
        dataset: The photos; the files are read from disk.
        progress: Called with the number of photos done and the number of all photos.

    Returns:
        The detections on each photo, with classes as indices into ``dataset.classes``.

    Raises:
        ShelfcountError: If the classes differ, or a photo cannot be read or does not have the size
            given in its labels.
    """
    names = detector.spec.classes
    if set(names) != set(dataset.classes):
        only_model = sorted(set(names) - set(dataset.classes))
        only_data = sorted(set(dataset.classes) - set(names))
        raise ShelfcountError(
            f"the classes of the model and of {dataset.name or 'the data'} differ: only the model "
            f"has {only_model}, only the data {only_data}. Use data with the classes of the model."
        )
    to_dataset = np.array([dataset.classes.index(name) for name in names])
    detections = []
    for _, image in read_photos(dataset.photos, progress=progress):
        boxes = detector.detect(image)
        detections.append(boxes.replace(classes=to_dataset[boxes.classes]))
    return detections
