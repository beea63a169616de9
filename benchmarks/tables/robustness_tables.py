"""Tables of the page on robustness, from the results of `shelfcount stress`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from table_parts import not_measured, origin, read_result, table

from shelfcount.studies.stress_words import format_points, mean_scores, tolerance_text
from shelfcount.words import show

# Config that `shelfcount stress --fix` wrote.
ROBUST = Path(__file__).parents[1] / "configs" / "drinks_robust.toml"
# Number of conditions that the first table shows.
CONDITIONS = 8


def weakest(results: Path) -> str:
    """Return the conditions that cost most F1, and the means of each detector."""
    study = read_result(results / "stress.json")
    if study is None:
        return not_measured("Robustness")
    names = [detector["name"] for detector in study["detectors"]]
    rows = [
        [
            condition["title"].lower(),
            *(format_points(-detector["lost"]) for detector in condition["detectors"]),
            tolerance_text(condition["detectors"][0], condition),
            condition["unit"],
        ]
        for condition in study["conditions"][:CONDITIONS]
    ]
    heads = ("condition", *(f"F1 points, {name}" for name in names), f"{names[0]} tolerates")
    legend = (
        f"The {CONDITIONS} of {len(study['conditions'])} conditions that cost most F1, as means "
        f"over all severities, on {study['photos']} photos of {study['data']['name']} with "
        f"corrected labels. A detector tolerates a severity if it loses less than "
        f"{100 * study['tolerated']:.0f} points of F1."
    )
    return "\n\n".join([table((*heads, "unit"), rows), legend, *_detectors(study)])


def baseline(results: Path) -> str:
    """Return the means of the released network and of the baseline."""
    study = read_result(results / "stress_baseline.json")
    return not_measured("Comparison with the baseline") if study is None else _joined(study)


def choice(results: Path) -> str:
    """Return the means of the previous and the released bundle on the validation photos."""
    study = read_result(results / "stress_choice.json")
    if study is None:
        return not_measured("Comparison with the previous bundle")
    evaluated = {
        name: read_result(results / f"drinks_validation_{key}.json")
        for key, name in (("before", "previous"), ("released", "current"))
    }
    metrics = "; ".join(
        f"{name} bundle: F1 {show(result['f1'])}, mAP {show(result['map'])}"
        for name, result in evaluated.items()
        if result
    )
    return f"{_joined(study)} Without conditions: {metrics}." if metrics else _joined(study)


def trained_on(results: Path) -> str:
    """Return the effect of training on the conditions that cost most F1."""
    study = read_result(results / "stress_fixed.json")
    if study is None:
        return not_measured("Effect of training on the weakest conditions")
    covered = tomllib.loads(ROBUST.read_text())["augment"]["conditions"]
    before, after = study["detectors"]
    gain = format_points(after["f1"] - before["f1"])
    rows = [["unchanged photos", show(before["f1"]), show(after["f1"]), gain]]
    for title, inside in (("conditions of the training", True), ("all other conditions", False)):
        steps = [
            step["detectors"]
            for condition in study["conditions"]
            if (condition["name"] in covered) == inside
            for step in condition["severities"]
        ]
        if steps:
            was, now = (sum(step[i]["f1"] for step in steps) / len(steps) for i in (0, 1))
            rows.append([title, show(was), show(now), format_points(now - was)])
    legend = (
        f"{after['name']} is {before['name']} trained with {', '.join(covered)}. These conditions "
        f"cost most F1 on the validation photos. The table shows {study['photos']} photos of "
        f"{study['data']['name']}. {origin(study)}"
    )
    heads = ("F1, mean over severities", before["name"], after["name"], "points")
    return "\n\n".join([table(heads, rows), legend])


def _joined(study: dict[str, Any]) -> str:
    return "\n\n".join(_detectors(study))


def _detectors(study: dict[str, Any]) -> list[str]:
    """Return the mean metrics of each detector over all conditions and severities."""
    heads = (
        "detector",
        "F1 on unchanged photos",
        "mean F1 under conditions",
        "mean count error",
        "consistency",
    )
    keys = ("clean", "f1", "count_error", "consistency")
    rows = []
    for i in range(len(study["detectors"])):
        mean = mean_scores(i, study)
        rows.append([mean["name"], *(show(mean[key]) for key in keys)])
    severities = len(study["conditions"][0]["severities"])
    legend = (
        f"{study['photos']} photos, {len(study['conditions'])} conditions at {severities} "
        f"severities. Consistency is the share of detected products that keep box and class. "
        f"{origin(study)}"
    )
    return [table(heads, rows), legend]
