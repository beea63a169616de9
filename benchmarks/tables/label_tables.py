"""Tables of the page on labels: planted faults, agreement and proposed corrections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from table_parts import not_measured, origin, read_result, table

from shelfcount.words import show

ANNOTATORS = {"second": "only the second", "each": "both equally"}
SCORES = ("quality", "presence", "naming", "tightness", "kappa", "alpha")


def planted_faults(results: Path) -> str:
    """Return recall and precision of `shelfcount check`, as `check_faults.py` measured them."""
    result = read_result(results / "check_faults.json")
    if result is None:
        return not_measured("Planted faults")
    sets, heads = result["sets"], ["kind"]
    for name in sets:
        heads += [f"{name}: planted", "recall", "precision", "findings before planting"]
    rows = []
    for kind in next(iter(sets.values()))["kinds"]:
        row = [kind]
        for photos in sets.values():
            found = photos["kinds"][kind]
            row += [
                show(found["planted"]),
                show(found["recall"], 2),
                show(found["precision_of_new"], 2),
                show(found["before"]),
            ]
        rows.append(row)
    sizes = "; ".join(
        f"{name}: {photos['photos']} photos, {photos['boxes']:,} boxes"
        for name, photos in sets.items()
    )
    legend = (
        f"{sizes}. Precision does not count findings from before planting, since real photos have "
        f"faults of their own."
    )
    if missing := result.get("missing_boxes"):
        findings = missing["right"] + missing["untold"] + missing["wrong"]
        legend += (
            f" `check` reports {findings} missing boxes on the real photos as published. "
            f"{missing['right']} of them were added by the corrections, for which every photo was "
            f"looked at, {missing['untold']} cannot be decided by eye, and {missing['wrong']} are "
            f"false. The corrections added {missing['added']} boxes in total."
        )
    return "\n\n".join([table(heads, rows), f"{legend} {origin(result)}"])


def agreement(results: Path) -> str:
    """Return how well agreement recovers known error rates, as `agreement.py` measured it."""
    result = read_result(results / "agreement.json")
    if result is None:
        return not_measured("Agreement")
    simulated, rows = result["simulated"], []
    for level in simulated["levels"]:
        row = [ANNOTATORS[level["errs"]]]
        for fault, deviation in level["sd"].items():
            estimate = f"{level['found'][fault]:.4f} ± {deviation:.4f}"
            row += [show(level["planted"][fault], 2), estimate]
        rows.append(row)
    heads = ("annotator with errors", "missed", "estimate")
    heads += ("wrong class", "estimate", "edge", "estimate")
    annotators = (
        f"{simulated['photos']} synthetic photos, {simulated['products']:,} products, "
        f"{simulated['classes']} classes. The estimates are mean and SD over "
        f"{simulated['repeats']} pairs of annotations. Edge is the SD of a box edge, as a share of "
        f"the box's side."
    )
    real = [
        [name, show(scores["photos"]), *(_with_interval(scores, key) for key in SCORES)]
        for name, scores in result["real"].items()
    ]
    return "\n\n".join(
        [
            table(heads, rows),
            annotators,
            table(("labels", "photos", *SCORES), real),
            f"Published labels against corrected ones, with 95 % intervals. {origin(result)}",
        ]
    )


def label_errors(results: Path, name: str = "label_errors.json") -> str:
    """Return the share of proposals that are label errors, as `label_errors.py` counted them."""
    result = read_result(results / name)
    if result is None:
        return not_measured("Label errors")
    heads = (
        "proposals",
        "number",
        "error as proposed",
        "other error",
        "no error",
        "share of errors",
    )
    named = {f"the {n} most confident": counts for n, counts in result["most_confident"].items()}
    named["all"] = result["all"]
    named |= {f"all that {kind} a label": counts for kind, counts in result["kinds"].items()}
    keys = ("proposals", "confirmed", "other", "refused", "wrong_label")
    rows = [[name, *(show(counts[key]) for key in keys)] for name, counts in named.items()]
    looked, made = result["looked"], result["of_the_corrections"]
    undecided = f" {looked['undecided']} were not looked at." if looked["undecided"] else ""
    folds = ", ".join(f"{fold['photos']} of {fold['data']}" for fold in result["folds"])
    legend = (
        f"Proposals are compared with corrections that were made before. A person who looked at "
        f"the most confident ones confirmed {looked['accepted']} of "
        f"{looked['accepted'] + looked['refused']}.{undecided} Of the products that the "
        f"corrections add, {made['add']['proposed']} of {made['add']['made']} were proposed, and "
        f"of those they rename, {made['rename']['proposed']} of {made['rename']['made']}. "
        f"Held-out photos: {folds}. {origin(result)}"
    )
    return "\n\n".join([table(heads, rows), legend])


def label_errors_of_folds(results: Path) -> str:
    """Return the same for training photos, each checked by a model of the other folds."""
    return label_errors(results, "label_errors_folds.json")


def _with_interval(scores: dict[str, Any], key: str) -> str:
    ends = scores["interval_95"].get(key)
    return show(scores[key]) + (f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else "")
