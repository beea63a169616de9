"""Verbs for data quality and confusions, on the drinks photos with the released bundle."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shelfcount.cli.app import app
from shelfcount.data.datasets import fingerprint
from shelfcount.data.formats import read_labels
from shelfcount.labels.corrections import read_corrections

CORRECTIONS = Path(__file__).parents[1] / "benchmarks" / "data"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def few(drinks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The labels of the validation photos in a place of their own, with the photos beside them."""
    folder = tmp_path_factory.mktemp("drinks")
    (folder / "images").symlink_to(drinks / "images")
    shutil.copy(drinks / "val.json", folder)
    return folder / "val.json"


def run(*arguments: object, code: int = 0) -> str:
    said = CliRunner().invoke(app, [str(a) for a in arguments])
    assert said.exit_code == code, said.output
    return " ".join(said.output.split())


def test_check_refuses_the_labels_as_found(drinks: Path, few: Path) -> None:
    content, cut = json.loads((drinks / "raw.json").read_text()), few.with_name("raw.json")
    names = {c["name"]: c["id"] for c in content["categories"]}
    bad = {
        a["image_id"]
        for a in content["annotations"]
        if a["category_id"] in (names["minrinda-sodakem"], names["00"])
    }
    photos = [image for image in content["images"] if image["id"] in bad]
    photos += [image for image in content["images"] if image["id"] not in bad][:40]
    kept = {image["id"] for image in photos}
    cut.write_text(
        json.dumps(
            {
                **content,
                "images": photos,
                "annotations": [a for a in content["annotations"] if a["image_id"] in kept],
            }
        )
    )
    files = few.with_name("raw-check.json"), few.with_name("raw-check.html")
    said = run("check", "--data", cut, "--json", files[0], "--html", files[1], code=1)
    assert "Fix the errors before training." in said
    result = json.loads(files[0].read_text())
    assert (result["passed"], result["photos"], result["fingerprint"]) == (
        False,
        len(photos),
        fingerprint(read_labels(cut)),
    )
    assert {"misspelt-class", "junk-class"} <= result["kinds"].keys()
    assert files[1].read_text().count("<img") >= 4


def test_correct_makes_a_version_and_check_says_how_far_it_agrees(few: Path) -> None:
    new, page = few.with_name("new.json"), few.with_name("agreement.html")
    said = run(
        "correct",
        "--data",
        few,
        "--corrections",
        CORRECTIONS / "drinks_val_corrections.json",
        "--out",
        new,
    )
    assert re.search(r"labels eae3e8bf5f68 -> \w{12}", said)
    said = run(
        "check", "--data", few, "--against", new, "--json", few.with_name("a.json"), "--html", page
    )
    assert "new.json labels 24 of these photos a second time" in said
    agreed = json.loads(few.with_name("a.json").read_text())["agreement"]
    # The corrections add 131 products to the 668 that both have, as in
    # benchmarks/results/agreement.json for the same photos.
    assert agreed["products"] == {"both": 668, "first_alone": 0, "second_alone": 131}
    assert agreed["quality"] == pytest.approx(
        agreed["presence"] * agreed["naming"] * agreed["tightness"]
    )
    assert agreed["fingerprints"] == [fingerprint(read_labels(few)), fingerprint(read_labels(new))]
    page = few.with_name("agreement-agreement.html").read_text()
    assert "Photos with disagreements" in page


def test_evaluate_and_correct_say_what_to_do(few: Path, released: Path) -> None:
    page, draft = few.with_name("confusions.html"), few.with_name("proposed.json")
    run("evaluate", released, "--data", few, "--html", page)
    assert "F1 loss by class" in page.read_text()
    said = run(
        "propose",
        released,
        "--data",
        few,
        "--max-proposals",
        "5",
        "--out",
        draft,
        "--html",
        few.with_name("proposed.html"),
    )
    assert said.count("5 proposals") == 1
    assert {c.decision for c in read_corrections(draft).corrections} == {"undecided"}
