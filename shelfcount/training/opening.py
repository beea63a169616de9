"""Opening of a model for evaluation: a bundle, or a run, which alone needs PyTorch."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shelfcount.records import Detector, ShelfcountError
from shelfcount.runtime.bundle import LiteRTDetector, read_bundle
from shelfcount.vision.postprocess import LOWEST_SCORE


@dataclass(frozen=True)
class OpenedModel:
    """A model that is ready to be evaluated.

    Attributes:
        detector: Detector that returns detections of low scores too, as mAP needs them.
        threshold: Score threshold at which the model counts.
        facts: Description of the model: ``name``, ``recipe``, for a bundle ``sha256``, and the
            provenance of its weights.
    """

    detector: Detector
    threshold: float
    facts: Mapping[str, Any]


def open_model(path: Path | str, threads: int = 2) -> OpenedModel:
    """Open a bundle or a run with a score threshold low enough for mAP.

    Args:
        path: Folder of a bundle or of a run.
        threads: Number of LiteRT interpreter threads. Ignored for a run.

    Returns:
        The detector, the score threshold to evaluate it at, and its description.

    Raises:
        ShelfcountError: If the folder is neither a bundle nor a finished run, its files are
            damaged, or it is a run and PyTorch is not installed.
    """
    path = Path(path)
    if (path / "config.toml").exists():
        return _open_run(path)
    bundle = read_bundle(path)
    facts = {
        "name": bundle.name,
        "sha256": bundle.sha256,
        "recipe": bundle.recipe,
        **bundle.spec.provenance,
    }
    detector = LiteRTDetector.open(bundle, threads, LOWEST_SCORE)
    return OpenedModel(detector, bundle.spec.score_threshold, facts)


def _open_run(path: Path) -> OpenedModel:
    if importlib.util.find_spec("torch") is None:
        raise ShelfcountError(
            f"'{path}' is a run, which needs the train extra: pip install 'shelfcount[train]'. "
            "A bundle does not need it."
        )
    from shelfcount.training.runs import load_run, read_spec

    detector = load_run(path, LOWEST_SCORE)
    facts = {"name": path.name, "recipe": "PyTorch float32", **detector.spec.provenance}
    return OpenedModel(detector, read_spec(path).score_threshold, facts)
