"""Model card of a bundle (MODEL_CARD.md): intended use, metrics, weaknesses, data and licence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from shelfcount.deploy.golden import Tolerance
from shelfcount.files import sha256_of
from shelfcount.metrics.scoring import Evaluation
from shelfcount.records import ModelSpec
from shelfcount.runtime.bundle import RAW_MODEL
from shelfcount.stamp import stamp
from shelfcount.words import plural

# Number of labelled products below which the metrics of a class are not reliable.
FEW_EXAMPLES = 10
# F1 below which a class is listed as a weakness.
WEAK_F1 = 0.7
# Maximum number of confused pairs of classes in the list of weaknesses.
CONFUSIONS = 5


def model_card(
    spec: ModelSpec,
    files: Mapping[str, bytes],
    recipe: str,
    measured: Mapping[str, Any],
    tolerance: Tolerance,
    evaluations: Sequence[tuple[str, Evaluation]],
) -> bytes:
    """Return the model card as UTF-8 encoded Markdown.

    Args:
        spec: Specification of the model.
        files: Content of the bundle's files by name. Sizes and sha256 are computed from them.
        recipe: Quantization recipe of the main model file.
        measured: Measurements with the keys ``f1_pytorch``, ``f1``, ``validation_photos`` and
            ``calibration_photos``.
        tolerance: Tolerances of the golden photos.
        evaluations: (name of the photos, metrics of the main model file) pairs. The metrics by
            class are those of the last pair.
    """
    # Markdown is not escaped.
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    environment.filters.update(share=_share, cell=_cell, plural=plural)
    template = environment.from_string(
        Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    )
    evaluated_on, evaluation = evaluations[-1]
    seen = [row for row in evaluation.per_class if row.score.truth]
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
        main_sha256=sha256_of(files["model.tflite"]),
        measured=measured,
        tolerance=tolerance,
        evaluations=evaluations,
        evaluated_on=evaluated_on,
        classes=sorted(seen, key=lambda row: (row.score.f1, row.name)),
        unseen=[row.name for row in evaluation.per_class if not row.score.truth],
        weaknesses=weaknesses(evaluation),
        facts={**missing, **spec.provenance},
        made=stamp(),
    )
    return text.encode()


def weaknesses(evaluation: Evaluation) -> list[str]:
    """Return sentences on classes with a low F1, confused classes and classes with few examples.

    Args:
        evaluation: Metrics of the model.

    Returns:
        One sentence per weakness; one sentence that there is none if the list would be empty.
    """
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
        true, predicted = np.unravel_index(index, products.shape)
        if times := int(products[true, predicted]):
            truth = evaluation.per_class[true].score.truth
            lines.append(
                f"{evaluation.classes[true]} is confused with {evaluation.classes[predicted]}: "
                f"{times} of {truth}."
            )
    if few:
        lines.append(
            f"Fewer than {FEW_EXAMPLES} labelled products on these photos, so the metrics of these "
            f"classes are not reliable: {', '.join(few)}."
        )
    return lines or ["No class or pair of classes stands out on these photos."]


def _share(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
