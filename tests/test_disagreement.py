"""Tests of the disagreements of two models: counted by hand on three products, and drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shelfcount.drawing import disagreement_picture
from shelfcount.drawing.marks import DRAWING_SIDE, FALSE_ALARM, FOUND, MISSED
from shelfcount.metrics import disagreement
from shelfcount.records import Dataset, Detections, Photo
from shelfcount.vision.images import write_photo

CLASSES = ("cola", "tea")
TRUTH = Detections([[10, 10, 50, 90], [60, 10, 100, 90], [110, 10, 150, 90]], [0, 0, 1])
# The second product is missed, and one tea is a false positive.
FIRST = Detections(
    [[10, 10, 50, 90], [110, 10, 150, 90], [10, 110, 50, 190]], [0, 1, 1], [0.9, 0.8, 0.7]
)
# All three products are detected. The same tea is a false positive at a slightly different place,
# and one cola is a false positive of this model only.
SECOND = Detections(
    [*TRUTH.boxes.tolist(), [12, 110, 52, 190], [110, 110, 150, 190]],
    [0, 0, 1, 1, 0],
    [0.9, 0.8, 0.7, 0.6, 0.5],
)


def photo(folder: Path, name: str = "shelf.jpg", truth: Detections = TRUTH) -> Photo:
    write_photo(folder / name, np.full((200, 200, 3), 90, np.uint8))
    return Photo(folder / name, 200, 200, truth)


def test_what_only_one_has_is_counted(tmp_path: Path) -> None:
    found = disagreement.find_disagreement(photo(tmp_path), FIRST, SECOND)
    assert found.differ.tolist() == [False, True, False]
    # The tea is a false positive of both models, so it is no difference.
    assert [alone.tolist() for alone in found.alone] == [[False] * 3, [False] * 4 + [True]]
    assert found.products == 2
    assert found.gained == (0, 1)


def test_photos_of_most_difference_come_first_and_agreement_is_left_out(tmp_path: Path) -> None:
    photos = tuple(photo(tmp_path, f"{i}.jpg") for i in range(3))
    chosen = disagreement.largest_disagreements(
        Dataset(CLASSES, photos),
        [TRUTH, TRUTH, FIRST],
        [TRUTH, TRUTH[[0, 1]], SECOND],
        max_photos=3,
    )
    assert [d.photo.path.name for d in chosen] == ["2.jpg", "1.jpg"]


def test_what_differs_is_drawn_in_its_colour(tmp_path: Path) -> None:
    panels = disagreement_picture.draw_disagreement(
        disagreement.find_disagreement(photo(tmp_path), FIRST, SECOND), CLASSES
    )
    scale = DRAWING_SIDE / 200
    labelled, first, second = (panel.astype(int) for panel in panels)

    def edge(panel: np.ndarray, box: list[int], colour: tuple[int, int, int]) -> float:
        left, top, _, bottom = (round(v * scale) for v in box)
        # Start below the tag, which covers the upper corner.
        return float(
            (np.abs(panel[top + 80 : bottom, left : left + 2] - colour) <= 2).all(axis=2).mean()
        )

    assert edge(labelled, [60, 10, 100, 90], disagreement_picture._LABELLED) > 0.9
    # The dashes cover half of the edge.
    assert 0.3 < edge(first, [60, 10, 100, 90], MISSED) < 0.7
    assert edge(second, [60, 10, 100, 90], FOUND) > 0.9
    assert edge(second, [110, 110, 150, 190], FALSE_ALARM) > 0.9
    assert edge(first, [10, 10, 50, 90], FOUND) == 0


def test_a_shelf_without_labels_is_drawn_too(tmp_path: Path) -> None:
    empty = photo(tmp_path, "empty.jpg", Detections.empty())
    found = disagreement.find_disagreement(empty, FIRST, Detections.empty())
    assert found.products == 3
    assert len(disagreement_picture.draw_disagreement(found, CLASSES)) == 3
