"""Tables of benchmarks/README.md on robustness and on the quality of data, from the stamped results; `readme_tables.py` writes them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from table_parts import origin, read_result, rows_under

from shelfcount.report.page import NOT_MEASURED, show
from shelfcount.report.stress_page import holds, means, points

# As `shelfcount stress --fix` writes it.
ROBUST = Path(__file__).parents[1] / "configs" / "drinks_robust.toml"
SHOWN_CONDITIONS = 8


def planted_faults(results: Path) -> str:
    """What `shelfcount check` finds of planted faults, as `benchmarks/quality/check_faults.py` counted it."""
    result = read_result(results / "check_faults.json")
    if result is None:
        return f"Planted faults: {NOT_MEASURED}."
    heads = ["kind"]
    for name in result["sets"]:
        heads += [f"{name}: planted", "recall", "precision", "found before any was planted"]
    rows = []
    for kind in next(iter(result["sets"].values()))["kinds"]:
        row = [kind]
        for of in result["sets"].values():
            found = of["kinds"][kind]
            row += [
                show(found["planted"]),
                show(found["recall"], 2),
                show(found["precision_of_new"], 2),
                show(found["before"]),
            ]
        rows.append(row)
    sets = "; ".join(
        f"{name}: {of['photos']} photos, {of['boxes']:,} boxes"
        for name, of in result["sets"].items()
    )
    legend = f"{sets}. Precision leaves out what was found before: on real photos these are faults of their own, right or not."
    if missing := result.get("missing_boxes"):
        findings = missing["right"] + missing["untold"] + missing["wrong"]
        legend += (
            f" Of the {findings} boxes that it misses on the real photos as published, {missing['right']} were added by the corrections, "
            f"for which every photo was looked at, {missing['untold']} lie where nobody can tell, and {missing['wrong']} are none; the "
            f"corrections added {missing['added']} in all."
        )
    return "\n\n".join(["\n".join(rows_under(heads, rows)), f"{legend} {origin(result)}"])


def agreement(results: Path) -> str:
    """Simulated labellers recognised, and the drinks as published against corrected, as `benchmarks/quality/agreement.py` measured them."""
    result = read_result(results / "agreement.json")
    if result is None:
        return f"Agreement: {NOT_MEASURED}."
    simulated = result["simulated"]
    rows = []
    for level in simulated["levels"]:
        told = [
            cell
            for fault, spread in level["sd"].items()
            for cell in (
                show(level["planted"][fault], 2),
                f"{level['found'][fault]:.4f} ± {spread:.4f}",
            )
        ]
        rows.append([{"second": "the second", "each": "both alike"}[level["errs"]], *told])
    heads = ("who errs", "missed", "found", "misnamed", "found", "edge", "found")
    labellers = (
        f"{simulated['photos']} synthetic photos, {simulated['products']:,} products, {simulated['classes']} classes; mean and SD over "
        f"{simulated['repeats']} pairs of labellings. Edge: SD of where an edge is drawn, in shares of the box's side."
    )
    figures = ("quality", "presence", "naming", "tightness", "kappa", "alpha")
    real = [
        [name, show(of["photos"]), *(_with_interval(of, figure) for figure in figures)]
        for name, of in result["real"].items()
    ]
    parts = [
        "\n".join(rows_under(heads, rows)),
        labellers,
        "\n".join(rows_under(("labels", "photos", *figures), real)),
    ]
    return "\n\n".join(
        [*parts, f"As published against corrected, with 95 % intervals. {origin(result)}"]
    )


def _with_interval(of: dict[str, Any], figure: str) -> str:
    ends = of["interval_95"].get(figure)
    return show(of[figure]) + (f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else "")


def label_errors(results: Path, name: str = "label_errors.json") -> str:
    """How many proposed label errors are errors, as `benchmarks/quality/label_errors.py` counted them."""
    result = read_result(results / name)
    if result is None:
        return f"Label errors: {NOT_MEASURED}."
    heads = (
        "proposals",
        "number",
        "as proposed",
        "wrong, in another way",
        "no error",
        "share wrong",
    )
    named = {**{f"the {n} surest": of for n, of in result["surest"].items()}, "all": result["all"]}
    named |= {f"of all, to {kind} a label": of for kind, of in result["kinds"].items()}
    keys = ("proposals", "confirmed", "other", "refused", "wrong_label")
    rows = [[name, *(show(of[key]) for key in keys)] for name, of in named.items()]
    looked, recall = result["looked"], result["of_the_corrections"]
    judged = looked["accepted"] + looked["refused"]
    folds = ", ".join(f"{fold['photos']} of {fold['data']}" for fold in result["folds"])
    legend = (
        f"Judged by corrections made before. A look at the surest confirms {looked['accepted']} of {judged}"
        f"{f', {n} were not looked at' if (n := looked['undecided']) else ''}. Of all products added by the corrections "
        f"{recall['add']['proposed']} of {recall['add']['made']} were proposed, of all renamed {recall['rename']['proposed']} of "
        f"{recall['rename']['made']}. Held-out photos: {folds}. {origin(result)}"
    )
    return "\n\n".join(["\n".join(rows_under(heads, rows)), legend])


def label_errors_of_folds(results: Path) -> str:
    """The same of photos to learn from, each judged by a model of the others."""
    return label_errors(results, "label_errors_folds.json")


def robustness(results: Path) -> str:
    """What conditions cost each detector, and what training on the weakest of them mends, as `benchmarks/quality/stress.sh` measured it."""
    study = read_result(results / "stress.json")
    if study is None:
        return f"Robustness: {NOT_MEASURED}."
    names = [detector["name"] for detector in study["detectors"]]
    rows = [
        [
            c["title"].lower(),
            *(points(-of["lost"]) for of in c["detectors"]),
            holds(c["detectors"][0], c),
            c["unit"],
        ]
        for c in study["conditions"][:SHOWN_CONDITIONS]
    ]
    heads = ("condition", *(f"F1 points, {name}" for name in names), f"{names[0]} holds", "unit")
    legend = (
        f"The {SHOWN_CONDITIONS} weakest of {len(study['conditions'])} conditions; means over five strengths on {study['photos']} photos "
        f"of {study['data']['name']}, labels corrected. Holds: up to where less than {100 * study['tolerated']:.0f} points are lost."
    )
    parts = ["\n".join(rows_under(heads, rows)), legend, *_detectors(study)]
    baseline, fixed = (
        read_result(results / "stress_baseline.json"),
        read_result(results / "stress_fixed.json"),
    )
    parts += _detectors(baseline) if baseline else [f"Against the baseline: {NOT_MEASURED}."]
    return "\n\n".join(
        [
            *parts,
            *(
                _mended(fixed)
                if fixed
                else [f"What training on the weakest conditions mends: {NOT_MEASURED}."]
            ),
        ]
    )


def _detectors(study: dict[str, Any]) -> list[str]:
    """Each detector over all conditions and strengths of a study."""
    heads = (
        "detector",
        "F1 as they are",
        "mean F1 under conditions",
        "mean count error",
        "products that keep box and label",
    )
    rows = []
    for i in range(len(study["detectors"])):
        mean = means(i, study)
        rows.append(
            [
                mean["name"],
                *(show(mean[key]) for key in ("clean", "f1", "count_error", "consistency")),
            ]
        )
    steps = len(study["conditions"][0]["strengths"])
    legend = f"{study['photos']} photos, {len(study['conditions'])} conditions in {steps} strengths. {origin(study)}"
    return ["\n".join(rows_under(heads, rows)), legend]


def _mended(study: dict[str, Any]) -> list[str]:
    """Two runs side by side: before, and with the conditions that the config names in training."""
    covered = tomllib.loads(ROBUST.read_text())["augment"]["conditions"]
    before, after = study["detectors"]
    rows = [
        [
            "the photos as they are",
            show(before["f1"]),
            show(after["f1"]),
            points(after["f1"] - before["f1"]),
        ]
    ]
    for title, inside in (("conditions trained on", True), ("all other conditions", False)):
        steps = [
            step["detectors"]
            for c in study["conditions"]
            if (c["name"] in covered) == inside
            for step in c["strengths"]
        ]
        if steps:
            was, now = (sum(step[i]["f1"] for step in steps) / len(steps) for i in (0, 1))
            rows.append([title, show(was), show(now), points(now - was)])
    legend = (
        f"{after['name']} is {before['name']} trained with {', '.join(covered)}, which were weakest on the validation photos; "
        f"measured on {study['photos']} photos of {study['data']['name']}. {origin(study)}"
    )
    return [
        "\n".join(
            rows_under(("F1, mean over strengths", before["name"], after["name"], "points"), rows)
        ),
        legend,
    ]
