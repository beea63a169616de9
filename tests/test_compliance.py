"""Tests of plans: files, derivation from shelves, deviations of shelves from plans."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, get_args

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shelfcount.drawing.marks import DRAWING_SIDE
from shelfcount.drawing.planogram_picture import COLOURS, draw_verdict
from shelfcount.records import ShelfcountError
from shelfcount.shelf.compliance import (
    ComplianceResult,
    DeviationKind,
    check_compliance,
    planogram_from_shelf,
)
from shelfcount.shelf.facings import Arrangement, arrange
from shelfcount.shelf.planogram import plan_schema, read_plan, write_plan
from shelfcount.shelf.rows import Placement, assign_rows

WIDTH, HEIGHT, PITCH = 40, 80, 130  # size of a product and distance of rows in pixels
PHOTO = (1600, 1000)
SCHEMA = Path(__file__).parents[1] / "docs" / "reference" / "schemas" / "plan.schema.json"


def shelf(*lines: str, on_top: tuple[tuple[int, int, str], ...] = ()) -> Arrangement:
    """Return a shelf: one letter is a facing of that class, a space is a gap.

    `on_top` stacks (row, position, class).
    """
    placed = [
        (row, place, 0, name)
        for row, line in enumerate(lines)
        for place, name in enumerate(line)
        if name != " "
    ]
    placed += [(row, place, 1, name) for row, place, name in on_top]
    left, bottom = (
        np.array(v, float)
        for v in zip(
            *((44 * p, PITCH * (r + 1) - 2 - HEIGHT * level) for r, p, level, _ in placed),
            strict=True,
        )
    )
    boxes = np.column_stack([left, bottom - HEIGHT, left + WIDTH, bottom])
    row = np.array([r for r, *_ in placed])
    return arrange(
        boxes,
        [name for *_, name in placed],
        Placement(row, np.zeros(len(row), np.int64), len(lines)),
        PHOTO,
    )


def kinds(verdict: ComplianceResult) -> list[tuple[str, str, int]]:
    return [(d.kind, d.name, d.facings) for d in verdict.deviations]


# ---------------------------------------------------------------- the file


def plan_file(folder: Path, content: Any) -> Path:
    path = folder / "plan.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def good() -> dict[str, Any]:
    return {
        "version": 1,
        "name": "cooler",
        "rows": [{"products": [{"class": "cola", "facings": 3}, {"class": "lemon", "facings": 1}]}],
    }


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    plan = planogram_from_shelf(shelf("aabbb", "ca"), "corner shop")
    write_plan(tmp_path / "plan.json", plan)
    assert read_plan(tmp_path / "plan.json", "abc") == plan
    assert plan.facings == 7


def changed(*steps: Any, to: Any) -> dict[str, Any]:
    """Return the valid plan with the value at the end of the keys replaced."""
    content = good()
    place: Any = content
    for step in steps[:-1]:
        place = place[step]
    place[steps[-1]] = to
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"version": 1,\n "rows": [}', r"Invalid JSON: .* at line 2 column 11"),
        ([], r"the whole file: Input should be an object, got \[\]"),
        (
            changed("rows", 0, "products", 1, "facings", to=0),
            r"rows\[0\]\.products\[1\]\.facings: .*greater than or equal to 1, got 0",
        ),
        (
            changed("rows", 0, "products", 0, "facings", to="3"),
            r"rows\[0\]\.products\[0\]\.facings: .*valid integer, got '3'",
        ),
        (
            changed("rows", 0, "products", 0, "facing", to=3),
            r"rows\[0\]\.products\[0\]\.facing: .* "
            r"Did you mean 'rows\[0\]\.products\[0\]\.facings'\?",
        ),
        (
            changed("rows", 0, "products", 0, to={"name": "cola", "facings": 1}),
            r"rows\[0\]\.products\[0\]\.class: is missing",
        ),
        (
            changed("rows", 0, "products", 0, to={"class": "cola"}),
            r"rows\[0\]\.products\[0\]\.facings: is missing",
        ),
        (
            changed("rows", 0, "products", to=[]),
            r"rows\[0\]\.products: .*at least 1 item.*, got \[\]",
        ),
        (changed("version", to=2), r"version: Input should be 1, got 2"),
        (
            changed("rows", 0, "products", 0, "class", to="colla"),
            r"rows\[0\]\.products\[0\]\.class: .* 'colla'\. Did you mean 'cola'\?",
        ),
        (
            changed("rows", 0, "products", 0, "on_top", to=["x"]),
            r"rows\[0\]\.products\[0\]\.on_top\[0\]: the model has no class 'x'",
        ),
    ],
)
def test_errors_name_the_place_in_the_file(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ShelfcountError, match=r"plan '.*plan\.json' cannot be used:\n  " + message):
        read_plan(plan_file(tmp_path, content), ["cola", "lemon"])


def test_every_wrong_place_is_named_at_once(tmp_path: Path) -> None:
    content = good()
    content["rows"][0]["products"] += [{"class": "x", "facings": 1}, {"class": "y", "facings": 1}]
    with pytest.raises(ShelfcountError, match=r"(?s)products\[2\].*'x'.*products\[3\].*'y'"):
        read_plan(plan_file(tmp_path, content), ["cola", "lemon"])


def test_a_plan_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ShelfcountError, match=r"cannot read plan '.*none\.json': No such file"):
        read_plan(tmp_path / "none.json", ["cola"])


def test_the_schema_is_shipped_as_a_file() -> None:
    # `python docs/examples.py --write` updates it.
    assert json.loads(SCHEMA.read_text()) == plan_schema()


def test_the_schema_says_what_the_reader_wants(tmp_path: Path) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    validator.check_schema(validator.schema)
    write_plan(
        tmp_path / "plan.json",
        planogram_from_shelf(shelf("aabbb", "ca", on_top=((0, 0, "d"),)), "corner shop"),
    )
    for plan in (
        good(),
        {"$schema": "plan.schema.json", **good()},
        json.loads((tmp_path / "plan.json").read_text()),
    ):
        validator.validate(plan)
        read_plan(plan_file(tmp_path, plan), ["a", "b", "c", "d", "cola", "lemon"])
    # Errors that do not depend on the classes of the model are found at the same place by both.
    for content, place in (
        ([], []),
        (changed("rows", 0, "products", 1, "facings", to=0), ["rows", 0, "products", 1, "facings"]),
        (
            changed("rows", 0, "products", 0, "facings", to="3"),
            ["rows", 0, "products", 0, "facings"],
        ),
        (changed("rows", 0, "products", 0, "facing", to=3), ["rows", 0, "products", 0]),
        (changed("rows", 0, "products", 0, to={"class": "cola"}), ["rows", 0, "products", 0]),
        (changed("rows", 0, "products", to=[]), ["rows", 0, "products"]),
        (changed("version", to=2), ["version"]),
    ):
        assert [list(error.absolute_path) for error in validator.iter_errors(content)] == [place]
        with pytest.raises(ShelfcountError, match="cannot be used"):
            read_plan(plan_file(tmp_path, content), ["cola", "lemon"])


# ---------------------------------------------------------------- the verdict


def test_what_is_learnt() -> None:
    plan = planogram_from_shelf(shelf("aab", "ccc", on_top=((0, 0, "a"), (1, 2, "d"))))
    assert plan.model_dump(by_alias=True, exclude_defaults=True)["rows"] == (
        {"products": ({"class": "a", "facings": 2}, {"class": "b", "facings": 1})},
        {"products": ({"class": "c", "facings": 3, "on_top": ("d",)},)},
    )


def test_nothing_can_be_learnt_from_an_empty_shelf() -> None:
    with pytest.raises(ShelfcountError, match="no products were detected on the photo"):
        planogram_from_shelf(arrange(np.zeros((0, 4)), [], assign_rows(np.zeros((0, 4))), PHOTO))


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        (("aaabbbcc", "ddee"), []),
        (("aaabbb", "ddee"), [("missing", "c", 2)]),
        (("aaaxbbbcc", "ddee"), [("extra", "x", 1)]),
        (("aabbbcc", "ddee"), [("wrong_facings", "a", 1)]),
        (("aaabbbbbcc", "ddee"), [("wrong_facings", "b", 2)]),
        (("aaabxbcc", "ddee"), [("wrong_product", "b", 1)]),
        (("aaabbbcc", "ddeea"), [("extra", "a", 1)]),
        (("aabbbcc", "ddeea"), [("misplaced", "a", 1)]),
        # The two changed positions; either of them may be reported as misplaced.
        (("bbbaaacc", "ddee"), [("misplaced", "b", 3)]),
        (("ddee",), [("missing", "a", 3), ("missing", "b", 3), ("missing", "c", 2)]),
        (("xxx", "aaabbbcc", "ddee"), [("extra", "x", 3)]),
        (("ddee", "aaabbbcc"), [("misplaced", "d", 2), ("misplaced", "e", 2)]),
    ],
)
def test_each_kind_of_deviation(seen: tuple[str, ...], wanted: list[tuple[str, str, int]]) -> None:
    verdict = check_compliance(planogram_from_shelf(shelf("aaabbbcc", "ddee")), shelf(*seen))
    assert kinds(verdict) == wanted
    right = (
        12
        - sum(n for kind, _, n in wanted if kind != "extra")
        + sum(n for kind, name, n in wanted if (kind, name) == ("wrong_facings", "b"))
    )
    assert len(verdict.right) == right
    assert verdict.score == pytest.approx(right / (right + sum(n for *_, n in wanted)))


def test_an_empty_shelf_misses_everything() -> None:
    verdict = check_compliance(
        planogram_from_shelf(shelf("aab", "c")),
        arrange(np.zeros((0, 4)), [], assign_rows(np.zeros((0, 4))), PHOTO),
    )
    assert kinds(verdict) == [("missing", "a", 2), ("missing", "b", 1), ("missing", "c", 1)]
    assert verdict.score == 0
    assert verdict.rows == ((0, None), (1, None))


def test_deviations_say_where() -> None:
    """The second b is sold out, an x is in the second row, the last a is replaced by a c."""
    plan = planogram_from_shelf(shelf("aaabbb", "ccccc"))
    lacking, replaced, extra = (
        check_compliance(plan, shelf(*lines)).deviations[0]
        for lines in (("aaab b", "ccccc"), ("aacbbb", "ccccc"), ("aaabbb", "ccxccc"))
    )
    assert (lacking.plan_row, lacking.shelf_row, lacking.seen, lacking.planned) == (0, 0, 2, 3)
    # Between the products at places 3 and 5, each 40 wide in steps of 44.
    assert lacking.places[0][::2] == pytest.approx((3 * 44 + 40, 5 * 44), abs=3)
    assert lacking.boxes == ()
    assert replaced.instead == "c"
    assert replaced.boxes[0][::2] == (88, 128)
    assert (extra.plan_row, extra.shelf_row) == (None, 1)
    assert extra.boxes[0][::2] == (88, 128)
    assert [str(d) for d in (lacking, replaced, extra)] == [
        "row 0: b has 2 facings instead of 3",
        "row 0: c stands on 1 facing of a",
        "row 1: x is not planned here, 1 facing",
    ]


def test_what_is_lacking_at_the_end_of_a_row_belongs_behind_it() -> None:
    deviation = check_compliance(
        planogram_from_shelf(shelf("aabb", "cccc")), shelf("aa", "cccc")
    ).deviations[0]
    assert [box[0] for box in deviation.places] == pytest.approx([44 + 40, 44 + 80], abs=1)


def test_a_hole_that_is_planned_nowhere_is_no_deviation() -> None:
    assert (
        check_compliance(planogram_from_shelf(shelf("aabb", "cccc")), shelf("aa  bb", "cccc")).score
        == 1
    )


def test_stacked_strangers_are_extra_unless_planned() -> None:
    stacked = shelf("aabb", "cccc", on_top=((0, 1, "d"),))
    assert kinds(check_compliance(planogram_from_shelf(shelf("aabb", "cccc")), stacked)) == [
        ("extra", "d", 1)
    ]
    assert check_compliance(planogram_from_shelf(stacked), stacked).score == 1
    assert (
        check_compliance(
            planogram_from_shelf(shelf("aabb", "cccc")),
            shelf("aabb", "cccc", on_top=((0, 1, "a"),)),
        ).score
        == 1
    )


def test_json_of_a_verdict() -> None:
    content = json.loads(
        json.dumps(
            check_compliance(
                planogram_from_shelf(shelf("aab", "cc"), "p"), shelf("aax", "cc")
            ).to_json()
        )
    )
    assert (content["plan"], content["score"], content["right"], content["rows"]) == (
        "p",
        0.8,
        4,
        [[0, 0], [1, 1]],
    )
    (deviation,) = content["deviations"]
    # The box is that of the third product of the first row.
    assert deviation == {
        "kind": "wrong_product",
        "class": "b",
        "facings": 1,
        "plan_row": 0,
        "shelf_row": 0,
        "planned": 1,
        "seen": 0,
        "instead": "x",
        "boxes": [[88, 48, 40, 80]],
        "places": [],
        "message": "row 0: x stands on 1 facing of b",
    }


letters = st.sampled_from("abcdef")
lines = st.lists(st.text(letters, min_size=1, max_size=12), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(lines, st.data())
def test_a_shelf_meets_the_plan_learnt_from_it(seen: list[str], data: st.DataObject) -> None:
    on_top = [
        (row, data.draw(st.integers(0, len(line) - 1)), data.draw(letters))
        for row, line in enumerate(seen)
        if data.draw(st.booleans())
    ]
    arrangement = shelf(*seen, on_top=tuple(on_top))
    verdict = check_compliance(planogram_from_shelf(arrangement), arrangement)
    assert verdict.score == 1
    assert verdict.deviations == ()
    assert len(verdict.right) == sum(len(line) for line in seen)


@settings(max_examples=60, deadline=None)
@given(lines, lines)
def test_the_score_counts_every_planned_facing_once(planned: list[str], seen: list[str]) -> None:
    verdict = check_compliance(planogram_from_shelf(shelf(*planned)), shelf(*seen))
    lacking = sum(
        d.facings
        for d in verdict.deviations
        if d.kind != "extra" and not (d.kind == "wrong_facings" and d.boxes)
    )
    assert len(verdict.right) + lacking == sum(map(len, planned))
    touched = [box for d in verdict.deviations for box in d.boxes]
    assert len(verdict.right) + len(touched) == sum(map(len, seen))
    assert 0 <= verdict.score <= 1


EDITS = (
    "remove one",
    "remove all",
    "one more",
    "another instead",
    "stranger behind",
    "move to the next row",
)


def edited(
    runs: list[list[tuple[str, int]]], row: int, place: int, edit: str, stranger: str
) -> None:
    """Change one run, (class, facings), of a shelf in place."""
    name, facings = runs[row][place]
    match edit:
        case "remove one" | "another instead":
            new = [(stranger, 1)] if edit == "another instead" else []
            runs[row][place : place + 1] = [*new, *([(name, facings - 1)] if facings > 1 else [])]
        case "remove all":
            del runs[row][place]
        case "one more":
            runs[row][place] = (name, facings + 1)
        case "stranger behind":
            runs[row].insert(place + 1, (stranger, 2))
        case "move to the next row":
            del runs[row][place]
            runs[(row + 1) % len(runs)].append((name, facings))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_k_edits_are_k_deviations(data: st.DataObject) -> None:
    """Each edit gives one deviation.

    Edits do not interact: every run has its own class, edited runs are not neighbours, and
    additional products have different classes.
    """
    names = iter("abcdefghijklmnopqrstuvwxyz")
    facings = st.lists(st.integers(1, 4), min_size=5, max_size=6)
    runs = [
        [(next(names), n) for n in data.draw(facings)] for _ in range(data.draw(st.integers(2, 4)))
    ]
    plan = planogram_from_shelf(shelf(*("".join(name * n for name, n in row) for row in runs)))
    # From the right, so that an edit does not shift the position of the next one.
    places = [
        (row, place) for row, line in enumerate(runs) for place in range(1, len(line) - 1, 2)
    ][::-1]
    chosen = data.draw(st.lists(st.sampled_from(places), unique=True)) if places else []
    now = copy.deepcopy(runs)
    strangers = iter("ABCDEFGHIJKL")
    for row, place in sorted(chosen, reverse=True):
        edited(now, row, place, data.draw(st.sampled_from(EDITS)), next(strangers))
    verdict = check_compliance(plan, shelf(*("".join(name * n for name, n in row) for row in now)))
    assert len(verdict.deviations) == len(chosen)


def test_rows_and_plan_of_a_real_cooler(drinks: Path) -> None:
    """The labelled boxes of a photo comply with their own plan; a replaced product is reported."""
    content = json.loads((drinks / "val.json").read_text())
    names = {c["id"]: c["name"] for c in content["categories"]}
    for photo in content["images"][:8]:
        labels = [a for a in content["annotations"] if a["image_id"] == photo["id"]]
        boxes = np.array([a["bbox"] for a in labels], float)
        boxes[:, 2:] += boxes[:, :2]
        size = (photo["width"], photo["height"])
        kinds_of = [names[a["category_id"]] for a in labels]
        found = arrange(boxes, kinds_of, assign_rows(boxes), size)
        plan = planogram_from_shelf(found, photo["file_name"])
        assert check_compliance(plan, found).score == 1
        first = int(found.facings(found.n_rows - 1)[1])
        kinds_of[first] = "something else"
        (deviation,) = check_compliance(
            plan, arrange(boxes, kinds_of, assign_rows(boxes), size)
        ).deviations
        assert (deviation.kind, deviation.instead) == ("wrong_product", "something else")
        assert deviation.boxes == (tuple(boxes[first]),)


# ---------------------------------------------------------------- the picture


def test_the_picture_marks_every_deviation_in_the_colour_of_its_kind() -> None:
    photo = np.full((PHOTO[1] // 2, PHOTO[0] // 2, 3), 90, np.uint8)
    found = shelf("aaab b", "cxxc")
    verdict = check_compliance(planogram_from_shelf(shelf("aaabbb", "ccd"), "cooler"), found)
    assert kinds(verdict) == [("wrong_facings", "b", 1), ("missing", "d", 1), ("extra", "x", 2)]
    picture = draw_verdict(photo, found, verdict)
    assert picture.dtype == np.uint8
    assert max(picture.shape[:2]) >= DRAWING_SIDE
    scale = DRAWING_SIDE / photo.shape[1]
    for deviation in verdict.deviations:
        for left, top, right, bottom in (*deviation.boxes, *deviation.places):
            around = picture[
                int(top * scale) : int(bottom * scale) + 4,
                int(left * scale) : int(right * scale) + 4,
            ]
            assert (around == COLOURS[deviation.kind]).all(axis=2).sum() > 40


def test_every_kind_has_a_colour() -> None:
    assert set(COLOURS) == set(get_args(DeviationKind))
