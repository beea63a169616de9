import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shelfcount import words
from shelfcount.drawing import marks, pictures
from shelfcount.metrics.scoring import ClassScore, DetectionCounts
from shelfcount.records import Detections
from shelfcount.report import accuracy_figures, figures, page, repeats_page

CLASSES = ("cola-can", "lemon-bottle", "cream-box")
GREY = 90


def shelf(height: int = 300, width: int = 300) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def products() -> Detections:
    return Detections(
        [[20, 30, 80, 130], [100, 30, 160, 130], [180, 160, 240, 280]], [0, 0, 1], [0.9, 0.8, 0.7]
    )


def near(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """(h, w) bool; pixels of one colour."""
    return (np.abs(image.astype(int) - colour) <= 2).all(axis=2)


# Pictures


def test_annotate_enlarges_a_small_photo_and_adds_a_legend():
    picture = pictures.annotate(shelf(), products(), CLASSES)
    assert picture.dtype == np.uint8
    assert picture.shape[0] == marks.DRAWING_SIDE
    assert picture.shape[1] > marks.DRAWING_SIDE


def test_annotate_keeps_the_size_of_a_large_photo_and_puts_the_legend_below_a_wide_one():
    picture = pictures.annotate(shelf(1000, 2000), products(), CLASSES)
    assert picture.shape[1] == 2000
    assert picture.shape[0] > 1000


def test_a_box_is_drawn_where_it_is_in_the_colour_of_its_class():
    detections = products()
    picture = pictures.annotate(shelf(), detections, CLASSES)
    scale = marks.DRAWING_SIDE / 300
    photo = picture[:, : marks.DRAWING_SIDE]
    rows, columns = np.nonzero(near(photo, pictures.class_colours(CLASSES)["lemon-bottle"]))
    # There is one product of this class, so the pixels of its colour span its box.
    assert (columns.min(), rows.min()) == pytest.approx(detections.boxes[2, :2] * scale, abs=1)
    assert (columns.max(), rows.max()) == pytest.approx(detections.boxes[2, 2:] * scale, abs=1)
    # Far from all boxes the photo is unchanged.
    assert near(photo[1150:, :600], (GREY, GREY, GREY)).all()


def test_without_detections_the_photo_stays_as_it_is():
    picture = pictures.annotate(shelf(1200, 1200), Detections.empty(), CLASSES)
    np.testing.assert_array_equal(picture[:, :1200], shelf(1200, 1200))


def test_against_truth_the_colours_judge():
    truth = products()
    found = Detections(
        np.concatenate([truth.boxes[:2], [[20, 180, 80, 280]]]), [0, 0, 2], [0.9, 0.8, 0.7]
    )
    picture = pictures.annotate(shelf(), found, CLASSES, truth=truth)
    scale = marks.DRAWING_SIDE / 300
    for colour, box in (
        (marks.FOUND, truth.boxes[0]),
        (marks.MISSED, truth.boxes[2]),
        (marks.FALSE_ALARM, found.boxes[2]),
    ):
        left, top, _, bottom = (box * scale).astype(int)
        edge = near(picture[top + 60 : bottom, left : left + 2], colour).mean()
        # The dashes of a missed product cover half of its edge.
        assert edge == pytest.approx(0.5 if colour == marks.MISSED else 1.0, abs=0.1)


def test_rows_are_printed_at_the_foot_of_each_box():
    plain = pictures.annotate(shelf(), products(), CLASSES)
    placed = pictures.annotate(shelf(), products(), CLASSES, rows=[(0, 0), (0, 1), (1, 0)])
    changed = np.argwhere((plain[:, :1200] != placed[:, :1200]).any(axis=2)) / 4
    assert all(any(b - 10 < y < b + 1 for b in (130, 280)) for y in changed[:, 0])


@pytest.mark.parametrize(
    ("image", "rows", "message"),
    [
        (
            np.zeros((4, 4, 3), np.float32),
            None,
            r"image must be \(h, w, 3\) uint8 RGB, got \(4, 4, 3\) float32",
        ),
        (np.zeros((4, 4), np.uint8), None, r"got \(4, 4\) uint8"),
        (shelf(), [(0, 0)], r"each of the 3 detections, got 1"),
    ],
)
def test_annotate_refuses_what_does_not_fit(image, rows, message):
    with pytest.raises(ValueError, match=message):
        pictures.annotate(image, products(), CLASSES, rows=rows)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(-50, 400, width=32)] * 4), max_size=8),
    st.integers(1, 60),
    st.integers(1, 60),
)
def test_boxes_of_any_form_and_tiny_photos_are_drawn(corners, height, width):
    boxes = [[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in corners]
    detections = Detections(boxes, [i % 3 for i in range(len(boxes))])
    picture = pictures.annotate(
        shelf(height, width), detections, CLASSES, scores=True, truth=detections
    )
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3


def test_colours_differ_and_hang_on_the_name():
    names = tuple(f"product-{i}" for i in range(pictures.PALETTE_SIZE))
    colours = np.array(list(pictures.class_colours(names).values()), np.float32)
    lab = cv2.cvtColor(colours[None] / 255, cv2.COLOR_RGB2Lab)[0]
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=2) + 1000 * np.eye(len(lab))
    # 2.3 is the just noticeable difference in CIELAB (Mahy et al. 1994). The colours differ by at
    # least six times that.
    assert apart.min() > 6 * 2.3
    assert pictures.class_colours(names[::-1]) == pictures.class_colours(names)


def test_more_classes_than_colours_are_drawn_too():
    assert (
        len(pictures.class_colours(tuple(map(str, range(3 * pictures.PALETTE_SIZE)))))
        == 3 * pictures.PALETTE_SIZE
    )


def test_a_name_of_several_lines_is_drawn_on_one():
    names = ("cream-box from the shop", "cream-box\nfrom the\tshop")
    one, several = (pictures.annotate(shelf(), products()[[0]], (name,)) for name in names)
    assert one.shape == several.shape


# Figures


def class_scores(shift: int = 0) -> list[ClassScore]:
    return [
        ClassScore(name, DetectionCounts(truth, 10, min(truth, 6 + shift)), 0.1, 0.0)
        for name, truth in zip(CLASSES, (10, 8, 0), strict=True)
    ]


FIGURES = {
    "settling": lambda: repeats_page.plot_running_spread(
        [0.5, 0.7, 0.6], [0.5, 0.6, 0.6], [(0.5, 0.5), (0.5, 0.7), (0.5, 0.7)], "F1"
    ),
    "confusion_matrix": lambda: accuracy_figures.confusion_matrix(
        np.arange(16).reshape(4, 4), CLASSES
    ),
    "per_class_f1": lambda: accuracy_figures.per_class_f1(class_scores(), class_scores(1)),
    "f1_over_threshold": lambda: accuracy_figures.f1_over_threshold(
        [("a", np.array([0.1, 0.5, 1.0]), np.array([0.67, 0.8, 0.0]), 0.5)]
    ),
    "training_curves": lambda: figures.training_curves(
        [0, 1, 2], {"training loss": [3.0, 2.0, 1.5]}, [None, 0.4, 0.6]
    ),
    "latency_by_threads": lambda: figures.latency_by_threads(
        [
            ("int8", [(1, 9.3, 10.1), (2, 5.2, 6.0)]),
            ("ResNet-50", [(1, 1130.0, 1200.0)]),
            ("other", []),
        ]
    ),
    "f1_against": lambda: accuracy_figures.f1_against(
        [("int8", 9.3, 0.83), ("float32", 22.0, 0.84), ("ResNet-50", 1130.0, None)], "ms"
    ),
    "points of one place": lambda: accuracy_figures.f1_against(
        [(f"form {i}", 9.3, 0.83) for i in range(8)], "ms"
    ),
    "nothing measured": lambda: accuracy_figures.f1_against([("ResNet-50", None, None)], "ms"),
    "no epochs": lambda: figures.training_curves([], {}, []),
    "no times": lambda: figures.latency_by_threads([]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_a_png_with_something_on_it(name):
    image = cv2.imdecode(np.frombuffer(FIGURES[name](), np.uint8), cv2.IMREAD_COLOR)
    assert image.min() < 60
    assert image[0, 0].tolist() == [255, 255, 255]


def test_a_class_name_is_never_taken_for_a_formula():
    assert accuracy_figures.confusion_matrix(np.eye(2, dtype=int), [r"$\nothing{$"])


def test_a_figure_is_the_same_each_time():
    assert FIGURES["f1_against"]() == FIGURES["f1_against"]()


def test_confusion_matrix_must_have_the_background():
    with pytest.raises(ValueError, match=r"shape \(4, 4\) for 3 classes, got \(3, 3\)"):
        accuracy_figures.confusion_matrix(np.zeros((3, 3), int), CLASSES)


def test_rare_classes_are_added_up_and_no_box_is_lost():
    n = 2 * accuracy_figures.MAX_MATRIX_CLASSES
    matrix = np.random.default_rng(0).integers(0, 9, (n + 1, n + 1))
    matrix[7] += 100
    folded, names = accuracy_figures._fold(matrix, [str(i) for i in range(n)])
    assert (
        folded.shape
        == (len(names) + 1, len(names) + 1)
        == (accuracy_figures.MAX_MATRIX_CLASSES + 1, accuracy_figures.MAX_MATRIX_CLASSES + 1)
    )
    assert folded.sum() == matrix.sum()
    assert names[-1] == f"{n - accuracy_figures.MAX_MATRIX_CLASSES + 1} others"
    assert folded[names.index("7"), -1] == matrix[7, -1]


# Page

VOID = {"meta", "img", "input", "br", "hr", "link"}


class Balance(HTMLParser):
    """Checks that every tag closes the last open one, and collects references and ids."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.references += [
            value for name, value in attrs if name in ("src", "href", "srcset", "action")
        ]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def full_page(name: str = "cola-can") -> str:
    table = page.Table(
        [page.Column("model"), page.Column("F1", "IoU 0.5")],
        [[name, 0.83149], ["ResNet-50", None]],
        "comparison",
        strong_row=0,
    )
    plot = page.Figure(FIGURES["no times"](), name, name)
    blocks = [
        page.Cards([page.Card("F1", 0.83149, name), page.Card("baseline", None)]),
        table,
        page.Facts({"device": name, "seed": 7, "GPU": None}),
        plot,
        page.Picture(shelf(), name, name),
        page.Side([page.Picture(shelf(), name, name)] * 3, name),
        page.Note(name, warning=True),
        page.Command(f"shelfcount count BUNDLE {name}"),
        page.Details(name, [table, page.Details("inner", [plot])]),
    ]
    return page.render_html(
        name, [page.Section("", blocks), page.Section(name, [page.Note(name)])], lead=name
    )


def parsed(html: str) -> Balance:
    parser = Balance()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


def test_the_page_is_balanced_and_asks_nobody_for_anything():
    html = full_page()
    parser = parsed(html)
    inside = {f"#{i}" for i in parser.ids}
    assert all(
        reference.startswith("data:image/") or reference in inside
        for reference in parser.references
    )
    assert not re.search(r"https?://|@import|url\(", html)
    assert "default-src 'none'" in html


def test_what_was_not_measured_says_so():
    # Card, table, fact, and the table again in the folded details.
    assert full_page().count(words.NOT_MEASURED) == 4
    assert "None" not in full_page()


def test_a_name_like_a_script_is_shown_and_not_run():
    name = """<script>alert("1")</script>'"><img src=x onerror=alert(1)>"""
    html = full_page(name)
    parser = parsed(html)
    assert "<script" not in html
    assert "x" not in parser.references
    assert html.count("&lt;script&gt;") == full_page("cola-can").count("cola-can")


def test_numbers_are_set_to_the_right_and_names_are_not():
    rows = re.findall(r"<(t[hd])([^>]*)>(?:<span class=\"gap\">)?([^<]+)", full_page())
    assert ("td", ' class="number"', "0.831") in rows
    assert ("td", ' class="number"', words.NOT_MEASURED) in rows
    assert ("th", ' scope="row"', "cola-can") in rows


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "not measured"),
        (0, "0"),
        (5285, "5,285"),
        (np.int64(1200), "1,200"),
        (0.83149, "0.831"),
        (np.float32(0.5), "0.500"),
        (1130.25, "1,130.250"),
        (float("nan"), "undefined"),
        (float("inf"), "undefined"),
        (True, "yes"),
        ("121 times faster", "121 times faster"),
    ],
)
def test_values_are_shown(value, shown):
    assert words.show(value) == shown


def test_a_table_row_must_fit_its_columns():
    with pytest.raises(ValueError, match="row 0 of the table 'counts' has 2 values for 1 column"):
        page.Table([page.Column("class")], [["a", 1]], "counts")


def test_a_column_without_any_number_is_text():
    assert not page.Table([page.Column("model"), page.Column("F1")], [["a", None]]).is_numeric(1)


def test_write_makes_the_folder_and_leaves_one_file(tmp_path):
    target = tmp_path / "report" / "index.html"
    page.write_html(target, "Title", [page.Section("One", [page.Note("text")])])
    assert target.read_text().startswith("<!doctype html>")
    assert [p.name for p in target.parent.iterdir()] == ["index.html"]


def test_markdown_says_the_same_without_the_pictures():
    table = page.Table(
        [page.Column("model"), page.Column("p50", "ms", 1)],
        [["int8 | small", 13.52], ["ResNet-50", None]],
        "In turn.",
    )
    blocks = [
        page.Cards([page.Card("F1", 0.83149, "at IoU 0.5")]),
        table,
        page.Facts({"seed": 7}),
        page.Details("More", [page.Note("<b>\nx")]),
    ]
    text = page.page_markdown(
        "Title",
        [page.Section("", blocks), page.Section("Plot", [page.Figure(b"", "A plot.", "plot")])],
        "Lead",
    )
    assert text.splitlines() == [
        *("# Title", "", "Lead", "", "- F1: 0.831 (at IoU 0.5)", ""),
        *(
            "| model | p50 ms |",
            "| --- | --- |",
            "| int8 \\| small | 13.5 |",
            "| ResNet-50 | not measured |",
            "",
            "In turn.",
            "",
        ),
        *("- seed: 7", "", "### More", "", "&lt;b> x", "", "## Plot", "", "*A plot.*"),
    ]
