"""Tests of image input and output, resizing and tiling."""

from __future__ import annotations

import itertools
import re
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shelfcount import files
from shelfcount.records import ShelfcountError
from shelfcount.runtime import inference
from shelfcount.vision import images


def _picture(height: int = 48, width: int = 64) -> np.ndarray:
    # Coarse noise: compresses like a photo and has no symmetry.
    coarse = np.random.default_rng(0).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height))


def _jpeg(*options: int) -> bytes:
    return cv2.imencode(".jpg", _picture(), list(options))[1].tobytes()


def _with_exif(jpeg: bytes, orientation: int, thumbnail: bytes = b"") -> bytes:
    # Big-endian TIFF with one entry: tag 0x112 (orientation), SHORT, 1 value; then a thumbnail.
    tiff = (
        b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x112, 3, 1, orientation, 0, 0) + thumbnail
    )
    segment = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


JPEGS = {
    "plain": _jpeg(),
    "progressive": _jpeg(cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts": _jpeg(cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    "thumbnail": _with_exif(_jpeg(), 1, _jpeg()),
}


@pytest.mark.parametrize("kind", JPEGS)
def test_jpeg_with_anything_behind_its_end_is_whole(kind: str) -> None:
    assert images.jpeg_is_whole(JPEGS[kind])
    rng = np.random.default_rng(7)
    for _ in range(200):
        trailer = rng.integers(0, 256, int(rng.integers(1, 4000))).astype(np.uint8).tobytes()
        assert images.jpeg_is_whole(JPEGS[kind] + trailer)
    # An incomplete scan after a complete image.
    assert images.jpeg_is_whole(JPEGS[kind] + JPEGS["plain"][:-2])


@pytest.mark.parametrize("kind", JPEGS)
def test_jpeg_cut_anywhere_is_not_whole(kind: str) -> None:
    assert not any(images.jpeg_is_whole(JPEGS[kind][:end]) for end in range(2, len(JPEGS[kind])))


@given(st.binary(max_size=300))
def test_garbage_is_judged_and_never_loops(data: bytes) -> None:
    assert images.jpeg_is_whole(b"\xff\xd8" + data) in (True, False)


def test_jpeg_without_a_picture_is_not_whole() -> None:
    # An empty comment, then the end marker, without a scan in between.
    assert not images.jpeg_is_whole(b"\xff\xd8\xff\xfe\0\x02\xff\xd9")


def test_length_of_zero_does_not_hold_up_the_walk() -> None:
    assert not images.jpeg_is_whole(b"\xff\xd8" + b"\xff\xe1\0\0" * 1000)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photo_is_read_upright(tmp_path: Path, orientation: int) -> None:
    # EXIF 2.3, tag 0x112: transformation of the stored rows and columns.
    turns = [
        lambda a: a,
        lambda a: a[:, ::-1],
        lambda a: a[::-1, ::-1],
        lambda a: a[::-1],
        lambda a: a.transpose(1, 0, 2),
        lambda a: np.rot90(a, -1),
        lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        lambda a: np.rot90(a),
    ]
    path = tmp_path / "a.jpg"
    path.write_bytes(_with_exif(JPEGS["plain"], orientation))
    stored = cv2.cvtColor(
        cv2.imdecode(np.frombuffer(JPEGS["plain"], np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
    )
    np.testing.assert_array_equal(images.read_photo(path), turns[orientation - 1](stored))


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ""])
def test_written_photo_reads_back(
    tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture
) -> None:
    path = tmp_path / f"a{suffix}"
    images.write_photo(path, _picture())
    back = images.read_photo(path)
    # Without a suffix the file is a JPEG, which is lossy.
    assert np.abs(back.astype(int) - _picture()).mean() <= (0 if suffix else 3)
    assert "warn" not in "".join(capfd.readouterr()).lower()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_grey_and_transparent_pictures_become_rgb(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), _picture()[..., 0])
    cv2.imwrite(str(tmp_path / "clear.png"), np.dstack([_picture(), _picture()[..., 0]]))
    for name in ("grey.png", "clear.png"):
        got = images.read_photo(tmp_path / name)
        assert got.shape == (48, 64, 3)
        assert got.dtype == np.uint8


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "cut.jpg",
            JPEGS["plain"][:500],
            "photo '{}/cut.jpg' is cut short: its JPEG data has no end (500 bytes)",
        ),
        ("empty.jpg", b"", "cannot decode '{}/empty.jpg' (0 bytes)"),
        ("text.png", b"hello", "cannot decode '{}/text.png' (5 bytes)"),
    ],
)
def test_unreadable_photo_is_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ShelfcountError, match=re.escape(message.format(tmp_path))):
        images.read_photo(tmp_path / name)


def test_missing_photo_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ShelfcountError, match=r"cannot read photo '.*none\.jpg': No such file"):
        images.read_photo(tmp_path / "none.jpg")
    with pytest.raises(ShelfcountError, match=r"cannot read photo '.*': Is a directory"):
        images.read_photo(tmp_path)


def test_photo_of_too_many_pixels_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_PHOTO_PIXELS", 3000)
    images.write_photo(tmp_path / "a.png", _picture())
    with pytest.raises(
        ShelfcountError, match=r"a\.png' has 64 x 48 pixels, more than the maximum of 3,000"
    ):
        images.read_photo(tmp_path / "a.png")


def test_unknown_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ShelfcountError, match=r"cannot write '.*a\.xyz' as a picture: .*\.jpg, \.jpeg, \.png"
    ):
        images.write_photo(tmp_path / "a.xyz", _picture())
    assert not list(tmp_path.iterdir())


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "a.json"
    files.write_whole(path, "old")

    def full_disk(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        files.write_whole(path, b"new")
    assert path.read_text() == "old"


def test_stretch_averages_when_it_shrinks() -> None:
    # Alternating columns of 0 and 200: their average is 100, skipping columns gives 0 or 200.
    stripes = np.zeros((8, 64, 3), np.uint8)
    stripes[:, 1::2] = 200
    assert (images.stretch(stripes, 8, 16) == 100).all()
    assert images.stretch(stripes, 8, 64) is stripes
    assert images.stretch(stripes, 16, 128).shape == (16, 128, 3)


@given(st.integers(64, 5000), st.integers(64, 5000), st.integers(1, 6), st.floats(0, 0.5))
def test_tiles_cover_the_photo_and_keep_its_aspect(
    width: int, height: int, per_side: int, overlap: float
) -> None:
    windows = list(inference.tiles(width, height, per_side, overlap))
    assert len(windows) == per_side**2
    (size,) = {(right - left, bottom - top) for left, top, right, bottom in windows}
    assert abs(size[0] * height - size[1] * width) <= 0.51 * (width + height)
    for low, high, end in ((0, 2, width), (1, 3, height)):
        spans = sorted({(w[low], w[high]) for w in windows})
        assert spans[0][0] == 0
        assert spans[-1][1] == end
        # Rounding may leave a gap of one pixel if tiles only touch.
        assert all(
            after[0] <= before[1] + (1 if overlap < 0.05 else 0)
            for before, after in itertools.pairwise(spans)
        )


def test_one_tile_is_the_photo() -> None:
    assert list(inference.tiles(640, 480, 1)) == [(0, 0, 640, 480)]
