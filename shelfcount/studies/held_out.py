"""Proposed corrections from a model that was not trained on the photos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from shelfcount.data.datasets import fingerprint
from shelfcount.labels.proposals import HeldOutDetections, Proposal, by_confidence, propose
from shelfcount.metrics.evaluate import detect_dataset
from shelfcount.records import Dataset, Progress
from shelfcount.training.opening import open_model
from shelfcount.words import WARNING


def detect_held_out(
    dataset: Dataset,
    model: Path | str,
    threads: int = 2,
    *,
    tell: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> HeldOutDetections:
    """Run a bundle or run on photos that it was not trained on.

    Args:
        dataset: Labelled photos.
        model: Folder of a bundle or of a run.
        threads: Number of LiteRT interpreter threads.
        tell: Called with a warning if the model was trained on these labels.
        progress: Called with the number of photos done and the number of all photos.

    Returns:
        The photos with the detections.

    Raises:
        ShelfcountError: If the model or a photo cannot be read, or the classes differ.
    """
    opened = open_model(model, threads)
    if tell and opened.facts.get("data_fingerprint") == fingerprint(dataset):
        tell(
            f"{WARNING}the model was trained on exactly these labels, so it has learnt their "
            "errors too"
        )
    detections = detect_dataset(opened.detector, dataset, progress=progress)
    facts = {**opened.facts, "name": Path(model).resolve().name}
    return HeldOutDetections(dataset, detections, opened.threshold, facts)


def propose_corrections(
    parts: Sequence[HeldOutDetections], max_proposals: int | None = None
) -> list[Proposal]:
    """Return the proposals of one or several models, most confident first.

    Args:
        parts: Photos with the detections of a model that was not trained on them.
        max_proposals: Maximum number of proposals. Default: all.
    """
    proposals: list[Proposal] = []
    for part in parts:
        proposals += propose(part.photos, part.detections, part.threshold, part.model["name"])
    return by_confidence(proposals)[:max_proposals]
