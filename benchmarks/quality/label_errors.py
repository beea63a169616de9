"""Measure how many of the label errors that a model proposes are errors.

Each fold is a labelled data set with a model that was not trained on it.
`shelfcount.labels.proposals` proposes corrections where the model contradicts a label with
high confidence. The proposals of all folds are sorted together and checked twice: against
corrections that a person had made before, with the detections of another model as a hint; and, for
the most confident proposals, by a person who looked at their crops and wrote down `accepted` or
`refused` in a corrections file.

    python benchmarks/quality/label_errors.py --fold DATA.json=MODEL
        --corrections DATA_corrections.json [--looked LOOKED.json]...

MODEL is a bundle or a run. For training photos, ``shelfcount propose --folds 4 --json
PROPOSED.json`` checks each photo with a model that was not trained on it, and MODEL is
PROPOSED.json. ``--draft FOLDER`` writes a page and corrections files for the person who decides.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shelfcount.data.datasets import fingerprint
from shelfcount.data.formats import read_labels
from shelfcount.drawing.crops import grid
from shelfcount.files import write_json
from shelfcount.labels.corrections import (
    DECISIONS,
    Correction,
    Corrections,
    correct_labels,
    read_corrections,
    write_corrections,
)
from shelfcount.labels.proposals import (
    Proposal,
    by_confidence,
    draft_corrections,
    propose,
    with_decisions,
)
from shelfcount.metrics.evaluate import detect_dataset
from shelfcount.records import Dataset
from shelfcount.report.proposals_page import draw_proposal, write_proposals_page
from shelfcount.stamp import stamp
from shelfcount.training.opening import open_model
from shelfcount.vision.boxes import area, intersection, iou, xywh_to_xyxy
from shelfcount.vision.images import write_photo

RESULTS = Path(__file__).parents[1] / "results"
# Side of a crop in the picture, in pixels.
CELL = 320
# IoU from which a proposal and a corrected label are the same product.
SAME_PRODUCT_IOU = 0.5


def compare_with_corrections(proposal: Proposal, corrected: Dataset) -> str:
    """Compare a proposal with the corrected labels.

    Returns:
        ``confirmed`` if the corrected labels contain the proposal. ``other`` if the label was wrong
        or missing, but the corrected labels have another class or ignore the product. ``refused``
        if they kept the label.
    """
    correction = proposal.correction
    (photo,) = (p for p in corrected.photos if p.path.name == correction.photo)
    truth = photo.truth
    box = xywh_to_xyxy(np.array([correction.box]))
    overlap = iou(box, truth.boxes)[0]
    here = (overlap >= SAME_PRODUCT_IOU) & ~truth.ignore
    wanted = corrected.classes.index(correction.to_class or correction.class_ or "")
    if (truth.classes[here] == wanted).any():
        return "confirmed"
    old = correction.class_ if correction.action == "rename" else None
    if old is not None and here.any():
        return "refused" if (truth.classes[here] == corrected.classes.index(old)).any() else "other"
    untold = (
        intersection(box, truth.boxes[truth.ignore]).max(initial=0)
        >= SAME_PRODUCT_IOU * area(box)[0]
    )
    return "other" if here.any() or untold else "refused"


def measured(
    proposals: Sequence[Proposal], verdicts: Sequence[str], corrections: Sequence[Corrections]
) -> dict[str, Any]:
    """Count confirmed proposals by confidence and kind, and the corrections that were proposed."""
    whole = {"confirmed", "other"}

    def counted(which: Sequence[int]) -> dict[str, Any]:
        of = Counter(verdicts[i] for i in which)
        n = len(which)
        return {
            "proposals": n,
            **{k: of[k] for k in ("confirmed", "other", "refused")},
            "wrong_label": _share(sum(of[k] for k in whole), n),
        }

    made = Counter(c.action for file in corrections for c in file.corrections)
    confirmed = Counter(
        p.correction.action for p, v in zip(proposals, verdicts, strict=True) if v == "confirmed"
    )
    kinds = sorted({p.correction.action for p in proposals})
    return {
        "most_confident": {str(n): counted(range(min(n, len(proposals)))) for n in (20, 50, 100)},
        "all": counted(range(len(proposals))),
        "kinds": {
            kind: counted([i for i, p in enumerate(proposals) if p.correction.action == kind])
            for kind in kinds
        },
        "of_the_corrections": {
            kind: {"made": made[kind], "proposed": confirmed[kind]} for kind in ("add", "rename")
        },
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 3) if whole else None


def read_proposals(path: Path, dataset: Dataset) -> tuple[list[Proposal], list[dict[str, Any]]]:
    """Read proposals that ``shelfcount propose --json`` wrote, and the facts of their models.

    Raises:
        SystemExit: If the proposals were made for other labels.
    """
    content = json.loads(path.read_text())
    if content["fingerprint"] != fingerprint(dataset):
        raise SystemExit(
            f"'{path}' was made for other labels than those of '{dataset.name}'. Propose again."
        )
    photos = {photo.path.name: photo for photo in dataset.photos}
    proposals = []
    for entry in content["proposals"]:
        names = {"class_": entry.get("class"), "to_class": entry.get("to_class")}
        correction = Correction(
            entry["photo"],
            entry["action"],
            tuple(entry["box"]),
            entry["reason"],
            **names,
            decision="undecided",
        )
        proposals.append(
            Proposal(
                photos[entry["photo"]], correction, entry["score"], entry["relative_confidence"]
            )
        )
    return proposals, content["models"]


def main() -> None:
    """Propose corrections, check them, and write the result and its picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--fold",
        action="append",
        required=True,
        metavar="DATA=MODEL",
        help="Data set and model. May be repeated.",
    )
    parser.add_argument(
        "--corrections",
        type=Path,
        action="append",
        required=True,
        help="Corrections of each fold, in the same order.",
    )
    parser.add_argument(
        "--looked",
        type=Path,
        action="append",
        default=[],
        help="Decisions on proposals. May be repeated.",
    )
    parser.add_argument(
        "--draft", type=Path, help="Folder for pages and corrections files to decide on."
    )
    parser.add_argument(
        "--max-proposals", type=int, default=20, help="Proposals to look at. Default: 20."
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="Folder to write to.")
    parser.add_argument(
        "--name",
        default="label_errors",
        help="Name of the result and its picture. Default: label_errors.",
    )
    given = parser.parse_args()
    if len(given.fold) != len(given.corrections):
        parser.error(
            f"{len(given.fold)} --fold and {len(given.corrections)} --corrections were given. "
            "Each --fold needs its --corrections."
        )
    made = [read_corrections(path) for path in given.corrections]
    folds: list[dict[str, Any]] = []
    rows: list[tuple[Proposal, str, str]] = []
    for fold, corrections in zip(given.fold, made, strict=True):
        data, _, model = fold.rpartition("=")
        dataset = read_labels(data)
        corrected = correct_labels(dataset, corrections)
        if Path(model).is_file():
            proposals, models = read_proposals(Path(model), dataset)
        else:
            opened = open_model(model, threads=1)
            if opened.facts.get("data_fingerprint") == fingerprint(dataset):
                parser.error(
                    f"'{model}' was trained on '{data}' and would repeat errors of its labels"
                )
            found = detect_dataset(opened.detector, dataset)
            proposals = propose(dataset, found, opened.threshold, Path(model).name)
            models = [dict(opened.facts)]
        rows += [
            (proposal, compare_with_corrections(proposal, corrected), Path(data).name)
            for proposal in proposals
        ]
        folds.append(
            {
                "data": Path(data).name,
                "fingerprint": fingerprint(dataset),
                "photos": len(dataset),
                "models": models,
            }
        )
    order = {id(p): i for i, p in enumerate(by_confidence([p for p, _, _ in rows]))}
    rows.sort(key=lambda row: order[id(row[0])])
    result = {"folds": folds, **measured([p for p, _, _ in rows], [v for _, v, _ in rows], made)}
    first = rows[: given.max_proposals]
    looked = [c for path in given.looked for c in read_corrections(path).corrections]
    seen = with_decisions([p for p, _, _ in first], Corrections("", "", tuple(looked)))
    result["looked"] = {
        decision: sum(p.correction.decision == decision for p in seen) for decision in DECISIONS
    }
    result["first"] = [
        {
            "data": data,
            "relative_confidence": round(p.relative_confidence, 3),
            **p.correction.to_json(),
            "decision": p.correction.decision,
            "corrections": word,
        }
        for p, (_, word, data) in zip(seen, first, strict=True)
    ]
    write_json(given.out / f"{given.name}.json", {**result, "stamp": stamp(threads=1)})
    classes = dataset.classes
    write_photo(
        given.out / f"{given.name}.jpg",
        grid([draw_proposal(p, classes) for p, _, _ in first], columns=5, cell=CELL),
        quality=85,
    )
    print(
        json.dumps(
            {
                key: result[key]
                for key in ("most_confident", "all", "kinds", "of_the_corrections", "looked")
            }
        ),
        file=sys.stderr,
    )
    if given.draft:
        for fold in given.fold:
            dataset = read_labels(fold.rpartition("=")[0])
            own = [p for p, _, data in first if data == Path(fold.rpartition("=")[0]).name]
            write_corrections(
                draft_corrections(dataset, own),
                given.draft / f"{Path(dataset.name).stem}_proposed.json",
            )
            write_proposals_page(
                dataset,
                own,
                draft_corrections(dataset, own),
                given.draft / f"{Path(dataset.name).stem}_proposed.html",
            )


if __name__ == "__main__":
    main()
