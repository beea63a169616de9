"""The loop over photos: its results, messages for unreadable photos, and progress reports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shelfcount.records import Detections, Dropped, Photo, ShelfcountError
from shelfcount.runtime.photos import PhotoArray, load_photo, read_photos
from shelfcount.vision.images import write_photo


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "shelf.png"
    write_photo(path, np.full((6, 8, 3), (10, 20, 30), np.uint8))
    return path


def test_photos_are_yielded_as_given_with_their_pixels(photo: Path) -> None:
    labelled = Photo(photo, 8, 6, Detections.empty())
    array = PhotoArray("photo 3", np.zeros((2, 3, 3), np.uint8))
    given = [photo, labelled, array]
    read = list(read_photos(given))
    assert [source for source, _ in read] == given
    assert [image.shape for _, image in read] == [(6, 8, 3), (6, 8, 3), (2, 3, 3)]
    assert read[0][1][0, 0].tolist() == [10, 20, 30]


def test_progress_follows_the_work_on_each_photo(photo: Path) -> None:
    events: list[object] = []
    loop = read_photos(
        [photo, "missing.jpg", photo],
        on_error=lambda dropped: events.append(dropped.where),
        progress=lambda done, total, description="": events.append((done, total)),
    )
    for source, _ in loop:
        events.append(source)
    assert events == [photo, (1, 3), "missing.jpg", (2, 3), photo, (3, 3)]


def test_unreadable_photos_are_skipped_only_with_on_error(tmp_path: Path, photo: Path) -> None:
    failed: list[Dropped] = []
    missing = tmp_path / "missing.jpg"
    assert [source for source, _ in read_photos([missing, photo], failed.append)] == [photo]
    assert [dropped.where for dropped in failed] == [str(missing)]
    assert f"cannot read photo '{missing}'" in failed[0].reason
    with pytest.raises(ShelfcountError, match="cannot read photo"):
        list(read_photos([missing, photo]))


def test_labelled_photos_must_have_the_size_of_their_labels(photo: Path) -> None:
    with pytest.raises(ShelfcountError, match=r"has 8 x 6 pixels, but its labels .* 16 x 12"):
        load_photo(Photo(photo, 16, 12, Detections.empty()))


@pytest.mark.parametrize(("shape", "kind"), [((4, 4), np.uint8), ((4, 4, 3), np.float32)])
def test_arrays_must_be_rgb_photos(shape: tuple[int, ...], kind: type) -> None:
    with pytest.raises(ShelfcountError, match=r"must be .height, width, 3. uint8 RGB"):
        PhotoArray("photo 1", np.zeros(shape, kind))
