"""Tables of the page on accuracy: all networks on the test photos, and the errors that remain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from table_parts import not_measured, origin, percent, read_result, table

from shelfcount.metrics.confusions import MORE_EXAMPLES
from shelfcount.words import show

# Results of `shelfcount evaluate --json` for each network: NAME.json on the published labels,
# NAME_corrected.json on the corrected ones.
EVALUATED = {
    "Baseline: RetinaNet-ResNet50, float32, PyTorch": "drinks_baseline",
    "MobileNetV2, float32, trained on the published labels": "drinks_published",
    "Released architecture, float32, trained on the published labels": "drinks_uncorrected",
    "Released architecture, trained on the corrected labels": "drinks_plain",
    "The same, also trained under bad light and other conditions": "drinks_float",
    "The same, with copy-paste and more epochs: the released weights": "drinks_released",
    "Released weights, LiteRT float32": "drinks_float32",
    "Released bundle, LiteRT int8": "drinks_int8",
}
METRICS = ("F1", "class-agnostic F1", "mAP", "count error")
HEADS = ("detector", *METRICS, *(f"{name}, corrected labels" for name in METRICS))
# Number of classes, of confused pairs and of photos that the error analysis shows.
CLASSES, PAIRS, PHOTOS = 10, 6, 5


def networks(results: Path) -> str:
    """Return the metrics of all evaluated networks on published and corrected labels."""
    evaluated = {
        detector: [read_result(results / f"{name}{labels}.json") for labels in ("", "_corrected")]
        for detector, name in EVALUATED.items()
    }
    rows = [
        [detector, *(show(value) for result in pair for value in _scores(result))]
        for detector, pair in evaluated.items()
    ]
    parts = [table(HEADS, rows)]
    published, corrected = list(evaluated.values())[-1]
    if published and corrected:
        parts.append(
            f"The {published['photos']} test photos have {published['boxes']:,} products in the "
            f"published labels and {corrected['boxes']:,} in the corrected ones. "
            f"{_training(published['model'])} {origin(corrected)}"
        )
    return "\n\n".join(parts)


def errors(results: Path) -> str:
    """Return the classes, names and photos that have most errors, from `held_back.py`."""
    result = read_result(results / "held_back.json")
    if result is None:
        return not_measured("Error analysis")
    heads = (
        "class",
        "products",
        "missed",
        "wrong class",
        "others given this class",
        "false positives",
        "training examples",
        "maximum F1 gain, points",
        "examples to halve the errors",
        f"F1 gain of {MORE_EXAMPLES} more examples, points",
    )
    keys = ("name", "products", "missed", "misnamed", "taken_for", "nothing", "trained")
    rows = [
        [*(str(row[key]) for key in keys), f"{100 * row['bound']:.1f}", *_more_examples(row)]
        for row in result["classes"][:CLASSES]
    ]
    return "\n\n".join([table(heads, rows), _error_summary(result)])


def _error_summary(result: dict[str, Any]) -> str:
    pairs, labels, photos = result["pairs"], result["labels"], result["photos"]
    confused = "; ".join(
        f"{pair['true']} as {pair['reported']} ({pair['mistakes']} of {pair['products']})"
        for pair in pairs[:PAIRS]
    )
    wrong = [row["missed or misnamed"] + row["false"] for row in photos]
    worst = ", ".join(f"{row['photo']} (F1 {row['f1']:.2f})" for row in photos[:PHOTOS])
    return (
        f"F1 is {result['f1']:.3f}, and class-agnostic F1 {result['f1_class_ignored']:.3f}. "
        f"{sum(pair['mistakes'] for pair in pairs)} products are detected with a wrong class: "
        f"{confused}. The {PHOTOS} photos with most errors have "
        f"{percent(sum(wrong[:PHOTOS]) / sum(wrong))} of all errors on {len(photos)} photos: "
        f"{worst}. {labels['lost']} products are missed or have a wrong class. "
        f"{labels['lost_with_the_same_label_as_published']} of them have the same class in the "
        f"published labels. The other labels were corrected by eye and may be as hard for people. "
        f"{origin(result)}"
    )


def _more_examples(row: dict[str, Any]) -> list[str]:
    if row["halving"] is None:
        return ["-", "-"]
    return [f"{row['halving']:,}", f"{100 * row['gain']:.2f}"]


def _scores(result: dict[str, Any] | None) -> list[Any]:
    if result is None:
        return [None] * len(METRICS)
    return [
        result["f1"],
        result["any_class"]["f1"],
        result["map"],
        result["count_error"]["by_class"]["relative"],
    ]


def _training(model: dict[str, Any]) -> str:
    made = model["trained"]
    return (
        f"The released bundle was trained for {model['minutes']:.1f} minutes on "
        f"{model['photos']} photos, from {model['start'].split(' (')[0]}, seed {model['seed']}, "
        f"at commit {made['commit']} on {made['device']}. "
        f"Its validation F1 was {model['val_f1']:.3f}."
    )
