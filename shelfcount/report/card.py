"""MODEL_CARD.md of a bundle: what it is for, how good it is, what it gets wrong, whose photos it learnt from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from shelfcount.evaluation.golden import Tolerance
from shelfcount.evaluation.metrics import Evaluation
from shelfcount.records import ModelSpec
from shelfcount.runtime.bundle import RAW_MODEL
from shelfcount.stamp import stamp

# Of a class on the judged photos: below it, its figures say little; and below this F1 it is called weak.
FEW_EXAMPLES = 10
WEAK_F1 = 0.7
CONFUSIONS = 5


def write(
    spec: ModelSpec,
    files: Mapping[str, bytes],
    recipe: str,
    measured: Mapping[str, Any],
    tolerance: Tolerance,
    evaluations: Sequence[tuple[str, Evaluation]],
) -> bytes:
    """The card as Markdown.

    Args:
        spec: Of the model.
        files: Of the bundle; sizes and sha256 are read from them.
        recipe: How the main artifact was quantized.
        measured: With ``f1_pytorch``, ``f1``, ``validation_photos`` and ``calibration_photos``.
        tolerance: Of the golden photos.
        evaluations: Of the main artifact, by name of the photos; classes are judged on the last.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False
    )  # Markdown
    environment.filters.update(share=_share, cell=_cell)
    template = environment.from_string(
        Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    )
    judged_on, judged = evaluations[-1]
    seen = [row for row in judged.per_class if row.score.truth]
    missing = {
        "start": "not stated",
        "best_epoch": "?",
        "minutes": "?",
        "seed": "?",
        "licence": "",
        "attribution": "",
        "data": "?",
    }
    text = template.render(
        spec=spec,
        recipe=recipe,
        main_bytes=len(files["model.tflite"]),
        raw_bytes=len(files[RAW_MODEL]),
        main_sha256=hashlib.sha256(files["model.tflite"]).hexdigest(),
        measured=measured,
        tolerance=tolerance,
        evaluations=evaluations,
        judged_on=judged_on,
        classes=sorted(seen, key=lambda row: (row.score.f1, row.name)),
        unseen=[row.name for row in judged.per_class if not row.score.truth],
        weaknesses=weaknesses(judged),
        facts={**missing, **spec.provenance},
        made=stamp(),
    )
    return text.encode()


def weaknesses(evaluation: Evaluation) -> list[str]:
    """Sentences on classes that are often wrong, pairs taken for each other, and classes with few examples."""
    seen = [row for row in evaluation.per_class if row.score.truth]
    weak = sorted(
        (r for r in seen if r.score.truth >= FEW_EXAMPLES and r.score.f1 < WEAK_F1),
        key=lambda r: r.score.f1,
    )
    few = [r.name for r in seen if r.score.truth < FEW_EXAMPLES]
    lines = (
        [f"F1 below {WEAK_F1}: " + ", ".join(f"{r.name} ({r.score.f1:.2f})" for r in weak) + "."]
        if weak
        else []
    )
    products = evaluation.confusion[:-1, :-1].copy()
    np.fill_diagonal(products, 0)
    for index in np.argsort(-products, axis=None, kind="stable")[:CONFUSIONS]:
        true, reported = np.unravel_index(index, products.shape)
        if times := int(products[true, reported]):
            truth = evaluation.per_class[true].score.truth
            lines.append(
                f"{evaluation.classes[true]} is taken for {evaluation.classes[reported]}: {times} of {truth}."
            )
    if few:
        lines.append(
            f"Fewer than {FEW_EXAMPLES} examples on these photos, so their figures say little: {', '.join(few)}."
        )
    return lines or ["None stood out on these photos."]


def _share(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
