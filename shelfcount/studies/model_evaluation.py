"""Evaluation of a bundle or run on labelled photos, from paths to metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shelfcount.data.datasets import fingerprint
from shelfcount.labels.reading import read_corrected
from shelfcount.metrics.evaluate import detect_dataset
from shelfcount.metrics.scoring import Evaluation, score
from shelfcount.metrics.threshold import threshold_curve
from shelfcount.records import Dataset, Detections, Progress
from shelfcount.stamp import stamp
from shelfcount.training.opening import open_model


@dataclass(frozen=True, eq=False)
class ModelEvaluation:
    """A model's detections on labelled photos, with their metrics.

    Attributes:
        model: Description of the model.
        source: File name of the labels.
        dataset: The labelled photos.
        detections: Detections on each photo, including low scores.
        metrics: Metrics at the score threshold of the model.
        best: Score threshold with the highest F1 on these photos, and this F1. It is optimistic,
            since it is chosen on the photos themselves.
        threads: Number of LiteRT interpreter threads.
    """

    model: Mapping[str, Any]
    source: str
    dataset: Dataset
    detections: Sequence[Detections]
    metrics: Evaluation
    best: tuple[float, float]
    threads: int

    def to_json(self) -> dict[str, Any]:
        """Return model, data, stamp and metrics as lists, numbers and strings."""
        return {
            "model": dict(self.model),
            "data": {"name": self.source, "fingerprint": fingerprint(self.dataset)},
            "stamp": stamp(threads=self.threads),
            **self.metrics.to_json(),
            "best_threshold": dict(zip(("threshold", "f1"), self.best, strict=True)),
        }


def evaluate_model(
    model: Path | str,
    data: Path | str,
    *,
    class_names: Path | None = None,
    corrections: Sequence[Path] = (),
    others: Sequence[Path | str] = (),
    threads: int = 2,
    tell: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> ModelEvaluation:
    """Measure precision, recall, F1, mAP and count error of a model on labelled photos.

    Args:
        model: Folder of a bundle or of a run.
        data: Labels of photos that the model was not trained on.
        class_names: File with the names of numbered classes.
        corrections: Corrections to the labels.
        others: Other labels that the corrections may name.
        threads: Number of LiteRT interpreter threads.
        tell: Called with each note about the labels.
        progress: Called with the number of photos done and the number of all photos.

    Returns:
        The metrics with what they were computed from.

    Raises:
        ShelfcountError: If model, labels or photos cannot be read, or the classes differ.
    """
    dataset, notes = read_corrected(data, class_names, corrections, others)
    if tell is not None:
        for note in notes:
            tell(note)
    opened = open_model(model, threads)
    detections = detect_dataset(opened.detector, dataset, progress=progress)
    # mAP needs the detections of low score, which `open_model` provides.
    metrics = score(dataset, detections, opened.threshold)
    best = threshold_curve(dataset, detections).best_f1
    name = Path(data).name
    return ModelEvaluation(opened.facts, name, dataset, detections, metrics, best, threads)
