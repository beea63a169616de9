"""Tests that the web page gives the same counts as `shelfcount count`, as a whole and by module.

The page runs in Debian's Chromium, controlled from the environment that ``.ci/consumers web``
creates. JPEG decoding, resizing, the int8 network, merging and rows give the same numbers as in
Python: on 487 drinks the CSV files were identical byte by byte. Only functions such as exp() come
from another library, so the last digit of a score or a box can differ.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from shelfcount.deploy.serve import open_server, page_folder
from shelfcount.records import AnchorLevel, Detections, ModelSpec
from shelfcount.runtime.bundle import read_bundle, spec_digest
from shelfcount.runtime.inference import detect_tiled, tiles, tiles_per_side
from shelfcount.shelf.count import CountedPhoto, summary_rows, write_csv
from shelfcount.shelf.facings import arrange, xywh
from shelfcount.shelf.photo_gate import COUNTING_LIMITS, Quality, check_photo
from shelfcount.shelf.rows import assign_rows
from shelfcount.vision.images import jpeg_is_whole, read_photo, stretch, write_photo

# The environment also contains Node.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("browser")]

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "tests" / "web"
ENVIRONMENT = ROOT / ".consumers" / "web"
EXIF_ORIENTATION = 0x0112
# One unit of the last digit of score, x, y, w and h in the CSV file.
LAST_DIGIT = np.array([0.0001, 0.01, 0.01, 0.01, 0.01])


def node(*arguments: object) -> Any:
    """Run a script that must succeed, and return the JSON on the last line of its output."""
    done = subprocess.run(
        ["node", *map(str, arguments)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


# ---------------------------------------------------------------- the page in a browser


@pytest.fixture(scope="module")
def browser() -> Path:
    """Return the environment with the browser's driver.

    If it cannot be created, the tests are skipped; in CI they fail.
    """
    done = subprocess.run(
        [ROOT / ".ci" / "consumers", "web"], capture_output=True, text=True, timeout=900
    )
    if done.returncode:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            f".ci/consumers web: {done.stderr.strip()[-400:]}"
        )
    return ENVIRONMENT


@pytest.fixture(scope="module")
def photos(
    request: pytest.FixtureRequest, released: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a folder of photos with products that the bundle detects.

    They are a plain photo, one rotated by EXIF, a PNG, an empty one, one that fails the quality
    check, and a large one.
    """
    golden = sorted((released / "golden").glob("*.jpg"))
    known = golden or [photo.path for photo in request.getfixturevalue("overfit").photos.photos]
    images = [read_photo(path) for path in islice(cycle(known), 6)]
    folder = tmp_path_factory.mktemp("photos")
    write_photo(folder / "plain.jpg", images[0])
    # Phones store upright photos on their side, with the rotation in the EXIF data.
    turned = Image.fromarray(np.rot90(images[1]))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    turned.save(folder / "turned.jpg", exif=exif)
    write_photo(folder / "lossless.png", images[2])
    write_photo(folder / "=empty, grey.png", np.full((300, 500, 3), 128, np.uint8))
    height, width = images[3].shape[:2]
    askew = cv2.warpAffine(
        images[3],
        cv2.getRotationMatrix2D((width / 2, height / 2), 17, 1),
        (width, height),
        borderMode=cv2.BORDER_REFLECT,
    )
    write_photo(folder / "askew, blurred.jpg", cv2.GaussianBlur(askew, (0, 0), 3))
    cells = [cv2.resize(image, (800, 900), interpolation=cv2.INTER_CUBIC) for image in images]
    write_photo(folder / "large.jpg", np.vstack([np.hstack(cells[:3]), np.hstack(cells[3:])]))
    return folder


@contextmanager
def running(server: http.server.HTTPServer) -> Iterator[http.server.HTTPServer]:
    with server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_page_counts_what_the_command_line_counts_also_offline(
    browser: Path, released: Path, photos: Path, tmp_path: Path
) -> None:
    names = [
        "plain.jpg",
        "turned.jpg",
        "lossless.png",
        "=empty, grey.png",
        "large.jpg",
        "askew, blurred.jpg",
    ]
    spec = read_bundle(released).spec
    assert tiles_per_side(spec, 2400, 1800) > 1, "the large photo must be tiled"
    expected = command_line(released, photos, names, tmp_path)

    reached: list[str] = []
    with running(elsewhere(reached)) as other:
        arguments = (f"http://127.0.0.1:{other.server_port}/", *(photos / name for name in names))
        with running(open_server(released, page_folder(), port=0)) as server:
            port = server.server_port
            address = f"http://127.0.0.1:{port}/"
            seen = node(SCRIPTS / "page.mjs", browser, tmp_path / "profile", address, *arguments)
        check(seen, expected, address)
        assert len(seen["advice"]) > 0, "one photo must fail the quality check"
        assert seen["about"][-1] == f"sha256 {read_bundle(released).sha256}"

        # The server has stopped, so the page is loaded from the cache.
        offline = node(SCRIPTS / "page.mjs", browser, tmp_path / "profile", address, *arguments)
        check(offline, expected, address)

        # Another bundle at the same address is used at once, although the first one is cached.
        stricter = with_threshold(released, spec.score_threshold + 0.1, tmp_path / "stricter")
        with running(open_server(stricter, page_folder(), port=port)):
            seen = node(SCRIPTS / "page.mjs", browser, tmp_path / "profile", address, *arguments)
        check(seen, command_line(stricter, photos, names, tmp_path), address)
    assert reached == []


def test_damaged_and_missing_models_are_said(browser: Path, released: Path, tmp_path: Path) -> None:
    copy = with_threshold(released, 0.5, tmp_path / "copy")
    model = copy / "model.tflite"
    with running(open_server(copy, page_folder(), port=0)) as server:
        arguments = (f"http://127.0.0.1:{server.server_port}/", "http://127.0.0.1:1/")
        model.write_bytes(model.read_bytes()[:-1] + b"x")
        damaged = node(SCRIPTS / "page.mjs", browser, tmp_path / "one", *arguments)["notices"]
        model.unlink()
        missing = node(SCRIPTS / "page.mjs", browser, tmp_path / "two", *arguments)["notices"]
    expected = read_bundle(released).files["model.tflite"][:12]
    assert re.match(
        r"model\.tflite does not match model\.json: its sha256 is [0-9a-f]{12}, "
        rf"model\.json expects {expected}\.",
        damaged[0],
    )
    assert missing[0] == (
        "Could not load /bundle/model.tflite (404). "
        "The files of the bundle must be in the folder “bundle” next to the page."
    )


def command_line(
    bundle: Path, photos: Path, names: list[str], folder: Path
) -> tuple[str, dict[str, Any]]:
    """Return the CSV text and the JSON data that `shelfcount count` writes."""
    out = [folder / f"{bundle.name}.csv", folder / f"{bundle.name}.json"]
    command = [
        Path(sys.executable).with_name("shelfcount"),
        "count",
        bundle,
        *names,
        "--csv",
        out[0],
        "--json",
        out[1],
        "--threads",
        1,
    ]
    done = subprocess.run(
        [str(word) for word in command], cwd=photos, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return out[0].read_bytes().decode(), json.loads(out[1].read_text())


def check(seen: dict[str, Any], expected: tuple[str, dict[str, Any]], address: str) -> None:
    """Compare the content of the page and its saved file with the files of the command line."""
    table, report = expected
    (got_text, got_numbers), (text, numbers) = split(seen["csv"]), split(table)
    assert got_text == text
    # The difference is at most one unit of the last digit.
    assert (np.abs(got_numbers - numbers) < LAST_DIGIT * 1.5).all()
    counted = report["photos"]
    products = [item for photo in counted for item in photo["detections"]]
    assert seen["total"] == seen["boxes"] == len(products) > 10, (
        "too few products for a meaningful test"
    )
    assert dict(seen["classes"]) == {
        name: sum(p["counts"].get(name, 0) for p in counted) for name, _ in seen["classes"]
    }
    assert sum(n for _, n in seen["classes"]) == len(products)
    assert seen["highlighted"] == seen["classes"][0][1]
    of_rows = [[item["row"] for item in photo["detections"]] for photo in counted]
    assert [int(text.split()[0]) if text[0].isdigit() else 0 for text in seen["headlines"]] == [
        len(numbers) for numbers in of_rows
    ]
    assert seen["rows"] == [
        f"Row {row + 1}{numbers.count(row)}"
        for numbers in of_rows
        for row in range(max(numbers, default=-1) + 1)
    ]
    assert seen["advice"] == [
        sentence for photo in counted for sentence in photo["quality"]["advice"]
    ]
    assert seen["gaps"][0] == seen["gaps"][1]
    assert seen["addedUp"], "the note on summing photos must be visible"
    assert (seen["notices"], seen["errors"], seen["overflow"]) == ([], [], 0)
    # No data leave the phone: the page requests no other origin, and the browser blocks attempts.
    assert {
        url for url in seen["asked"] if not url.removeprefix("blob:").startswith(address)
    } == set()
    assert seen["leaks"] == ["refused", "refused"]


def split(table: str) -> tuple[list[list[str]], np.ndarray]:
    """Split a CSV file into texts with rows and positions, which must be equal, and numbers.

    The numbers are the scores and boxes.
    """
    head, *lines = csv.reader(table.splitlines())
    return [head, *(line[:2] + line[7:] for line in lines)], np.array(
        [line[2:7] for line in lines], float
    )


def elsewhere(reached: list[str]) -> http.server.HTTPServer:
    """Return a server of another origin that records the requests it receives."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reached.append(self.path)
            self.send_response(200)
            self.end_headers()

    return http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def with_threshold(bundle: Path, threshold: float, folder: Path) -> Path:
    """Copy a bundle and change its score threshold."""
    head = json.loads((bundle / "model.json").read_text())
    head["spec"]["score_threshold"] = threshold
    head["digest"] = spec_digest(head)
    for name in head["files"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((bundle / name).read_bytes())
    (folder / "model.json").write_text(json.dumps(head))
    return folder


# ---------------------------------------------------------------- its modules without a browser


def answers(folder: Path, **cases: list[Any]) -> Any:
    (folder / "cases.json").write_text(json.dumps(cases))
    return node(SCRIPTS / "modules.mjs", page_folder(), folder / "cases.json")


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


# (height, width) before and after: integer factors, other factors, one side shrunk and the other
# enlarged, both enlarged, single pixels.
SIZES = [
    (8, 8, 4, 4),
    (12, 9, 4, 3),
    (9, 8, 3, 4),
    (60, 80, 41, 42),
    (42, 90, 41, 42),
    (41, 90, 41, 42),
]
SIZES += [
    (30, 80, 41, 42),
    (80, 30, 41, 42),
    (10, 13, 41, 42),
    (41, 42, 41, 42),
    (1, 1, 5, 6),
    (1, 20, 5, 6),
    (200, 1, 5, 6),
]


def test_stretch_gives_the_same_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = [*SIZES, *rng.integers(1, 200, (40, 4)).tolist()]
    cases, expected = [], []
    for height, width, to_height, to_width in sizes:
        photo = rng.integers(0, 256, (height + 5, width + 7, 3), dtype=np.uint8)
        left, top = int(rng.integers(0, 8)), int(rng.integers(0, 6))
        window = [left, top, left + width, top + height]
        source = {"width": width + 7, "height": height + 5, "data": encoded(photo.tobytes())}
        cases.append({"photo": source, "window": window, "height": to_height, "width": to_width})
        cut = np.ascontiguousarray(photo[top : top + height, left : left + width])
        expected.append(encoded(stretch(cut, to_height, to_width).tobytes()))
    got = answers(tmp_path, stretch=cases)["stretch"]
    assert [size for size, a, b in zip(sizes, got, expected, strict=True) if a != b] == []


def test_tiles_are_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    cases = [
        [*rng.integers(1, 5000, 2).tolist(), int(rng.integers(1, 9)), 0.25] for _ in range(100)
    ]
    assert answers(tmp_path, tiles=cases)["tiles"] == [
        [list(tile) for tile in tiles(*case)] for case in cases
    ]


def test_cut_short_jpegs_are_seen(photos: Path, tmp_path: Path) -> None:
    whole = [(photos / name).read_bytes() for name in ("plain.jpg", "turned.jpg")]
    cases = [
        data[:end] for data in whole for end in (len(data), len(data) - 2, len(data) // 2, 300, 2)
    ]
    cases.append(whole[0] + b"a second picture behind the end")
    got = answers(tmp_path, whole=[encoded(data) for data in cases])["whole"]
    assert got == [jpeg_is_whole(data) for data in cases]
    assert sum(got) == 3


def shelves(rng: np.random.Generator) -> np.ndarray:
    """Return boxes of products in rows on a tilted or turned shelf, some of them stacked.

    Returns:
        (n, 4) float32 xyxy pixels with random noise like that of a detector.
    """
    boxes = []
    tilt, fan = rng.uniform(-0.2, 0.2), rng.uniform(-0.3, 0.3)
    for row in range(rng.integers(1, 6)):
        height = rng.uniform(40, 90)
        for x in 60 * np.arange(rng.integers(1, 18)):
            size = 1 + fan * (x - 600) / 600
            bottom = 300 + (130 * row - 170) * size + tilt * (x - 600)
            boxes += [
                [x, bottom - height * size * (k + 1), x + 50 * size, bottom - height * size * k]
                for k in range(rng.integers(1, 3))
            ]
    noisy = np.array(boxes) + rng.normal(0, 2, (len(boxes), 4))
    return np.sort(noisy.reshape(-1, 2, 2), axis=1).reshape(-1, 4).astype(np.float32)


def test_rows_are_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    scattered = [
        np.sort(rng.uniform(0, 900, (int(n), 2, 2)), axis=1).reshape(-1, 4)
        for n in rng.integers(0, 60, 20)
    ]
    cases = [boxes.astype(np.float32) for boxes in (*scattered, *(shelves(rng) for _ in range(40)))]
    placed = [assign_rows(boxes) for boxes in cases]
    expected = [
        [
            {"row": r, "position": p}
            for r, p in zip(q.row.tolist(), q.position.tolist(), strict=True)
        ]
        for q in placed
    ]
    assert answers(tmp_path, rows=[boxes.tolist() for boxes in cases])["rows"] == expected


def test_gaps_are_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    cases, expected = [], []
    for boxes in [np.zeros((0, 4), np.float32), *(shelves(rng) for _ in range(30))]:
        kept = boxes[rng.random(len(boxes)) < 0.85].astype(np.float64)
        names = [f"class {number}" for number in rng.integers(0, 4, len(kept))]
        placed = assign_rows(kept)
        arrangement = arrange(kept, names, placed, (1200, 900))
        products = [
            {"class": n, "box": xywh(b), "row": int(r)}
            for n, b, r in zip(names, kept, placed.row, strict=True)
        ]
        cases.append({"products": products, "size": {"width": 1200, "height": 900}})
        expected.append(
            [(gap.row, gap.facings, np.array(xywh(gap.box))) for gap in arrangement.gaps]
        )
    got = answers(tmp_path, gaps=cases)["gaps"]
    assert sum(len(photo) for photo in expected) > 50, "too few gaps for a meaningful test"
    assert [[(gap["row"], gap["facings"]) for gap in photo] for photo in got] == [
        [gap[:2] for gap in photo] for photo in expected
    ]
    # The boxes of the products are rounded to a hundredth, which changes the fit slightly.
    differences = [
        np.abs(np.array(actual["box"]) - gap[2]).max()
        for a, b in zip(got, expected, strict=True)
        for actual, gap in zip(a, b, strict=True)
    ]
    assert max(differences) < 0.5


def test_photos_are_judged_the_same(released: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    spec = read_bundle(released).spec
    made = [read_photo(path) for path in sorted((released / "golden").glob("*.jpg"))[:3]]
    plain = made[0]
    middle = (plain.shape[1] / 2, plain.shape[0] / 2)
    made += [
        cv2.warpAffine(plain, cv2.getRotationMatrix2D(middle, angle, 1), plain.shape[1::-1])
        for angle in (-17, 9)
    ]
    made += [
        cv2.blur(plain, (1, 15)),
        cv2.GaussianBlur(plain, (0, 0), 4),
        plain // 8,
        cv2.convertScaleAbs(plain, alpha=3),
    ]
    # Photos with other numbers of tiles and scale factors, without detail, and smaller than a cell.
    made += [
        cv2.resize(plain, size, interpolation=cv2.INTER_CUBIC)
        for size in ((1500, 1100), (700, 2200), (130, 97))
    ]
    made += [
        np.full((300, 500, 3), 128, np.uint8),
        rng.integers(0, 256, (20, 900, 3), dtype=np.uint8),
        np.zeros((1, 1, 3), np.uint8),
    ]
    cases, expected = [], []
    for image in made:
        height, width = image.shape[:2]
        boxes = (
            np.sort(rng.uniform(0, min(width, height), (int(rng.integers(0, 8)), 2, 2)), axis=1)
            .reshape(-1, 4)
            .astype(np.float32)
        )
        photo = {"width": width, "height": height, "data": encoded(image.tobytes())}
        facts = {"width": spec.width, "height": spec.height, "product_px": spec.product_px}
        cases.append({"photo": photo, "spec": facts, "boxes": boxes.tolist()})
        expected.append(check_photo(image, spec, boxes).to_json())
    got = answers(tmp_path, gate=cases, limits=[0])
    assert got["limits"] == [dataclasses.asdict(COUNTING_LIMITS)]
    assert [photo["advice"] for photo in got["gate"]] == [photo["advice"] for photo in expected]
    assert (
        len({sentence.split(":")[0] for photo in expected for sentence in photo["advice"]}) >= 6
    ), "too few kinds of advice for a meaningful test"
    for actual, reference in zip(got["gate"], expected, strict=True):
        for name, check in reference["checks"].items():
            # The values of Python are rounded to four digits.
            value = actual["checks"][name]["value"]
            assert value == check["value"] or abs(value - check["value"]) < 0.00006, (
                name,
                value,
                check,
            )


class Noisy:
    """Detector that adds random errors to the products of a photo and records its detections.

    The errors differ between tiles.
    """

    def __init__(self, spec: ModelSpec, width: int, height: int, rng: np.random.Generator) -> None:
        self.spec, self.rng = spec, rng
        size = rng.uniform(40, 600, (int(rng.integers(5, 120)), 1)) * [1, 1.5]
        corner = rng.uniform(0, 1, (len(size), 2)) * [width, height]
        self.truth = np.concatenate([corner, corner + size], axis=1)
        self.windows = [
            tile
            for n in self.levels(tiles_per_side(spec, width, height))
            for tile in tiles(width, height, n)
        ]
        self.looks: list[list[dict[str, Any]]] = []

    @staticmethod
    def levels(per_side: int) -> Iterator[int]:
        while per_side:
            yield per_side
            per_side //= 2

    def detect(self, image: np.ndarray) -> Detections:
        left, top, right, bottom = self.windows[len(self.looks)]
        assert image.shape[:2] == (bottom - top, right - left)
        size = np.tile(self.truth[:, 2:] - self.truth[:, :2], 2)
        seen = (
            np.clip(
                self.truth + self.rng.normal(0, 0.03, size.shape) * size,
                [left, top] * 2,
                [right, bottom] * 2,
            )
            - [left, top] * 2
        )
        seen = seen[
            ((seen[:, 2:] - seen[:, :2]) > 8).all(axis=1) & (self.rng.random(len(seen)) < 0.9)
        ]
        # Rounded scores, so that ties occur.
        scores = -np.sort(-self.rng.uniform(0.3, 1, len(seen)).round(2))
        detections = Detections(seen, self.rng.integers(0, 2, len(seen)), scores)
        self.looks.append(as_json(detections))
        return detections


def as_json(detections: Detections) -> list[dict[str, Any]]:
    columns = zip(
        detections.classes.tolist(),
        detections.scores.tolist(),
        detections.boxes.tolist(),
        strict=True,
    )
    return [{"class": number, "score": score, "box": box} for number, score, box in columns]


@pytest.mark.parametrize("nms_iou", [0.5, 0.45])
def test_merging_is_the_same(tmp_path: Path, nms_iou: float) -> None:
    rng = np.random.default_rng(3)
    spec = ModelSpec(
        "m",
        "a",
        ("x", "y"),
        416,
        320,
        (AnchorLevel(8, ((20.0, 20.0),)),),
        nms_iou=nms_iou,
        product_px=(30, 42, 58),
    )
    cases, expected = [], []
    for width, height in rng.integers(300, 4200, (25, 2)).tolist():
        detector = Noisy(spec, width, height, rng)
        expected.append(as_json(detect_tiled(detector, np.zeros((height, width, 3), np.uint8))))
        facts = {
            "width": spec.width,
            "height": spec.height,
            "nms_iou": nms_iou,
            "product_px": spec.product_px,
        }
        cases.append(
            {"spec": facts, "photo": {"width": width, "height": height}, "looks": detector.looks}
        )
    assert answers(tmp_path, tiling=cases)["tiling"] == expected


def test_photos_of_one_name_are_told_apart(tmp_path: Path) -> None:
    cases = [
        ("image.jpg", []),
        ("image.jpg", ["image.jpg"]),
        ("image.jpg", ["image.jpg", "image (2).jpg"]),
        ("a.b.png", ["a.b.png"]),
    ]
    cases += [("photo", ["photo"]), (".jpg", [".jpg"])]
    expected = [
        "image.jpg",
        "image (2).jpg",
        "image (3).jpg",
        "a.b (2).png",
        "photo (2)",
        " (2).jpg",
    ]
    assert answers(tmp_path, name=cases)["name"] == expected


def test_csv_is_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    classes = ("cola", '=cmd|"x"', "Käse, jung", "\tTee")
    counted = []
    for path in ("shelf, left.jpg", "-2.png", "leer.jpg"):
        boxes = np.sort(
            rng.integers(0, 40000, (30 if path != "leer.jpg" else 0, 2, 2)) / 16, axis=1
        ).reshape(-1, 4)
        detections = Detections(
            boxes, rng.integers(0, 4, len(boxes)), rng.integers(0, 64, len(boxes)) / 64
        )
        placement = assign_rows(detections.boxes)
        counted.append(CountedPhoto(path, 2500, 2500, detections, placement, classes, Quality()))
    write_csv(tmp_path / "counts.csv", counted)
    cases = [{"name": photo.path, "products": photo.products()} for photo in counted]
    got = answers(tmp_path, csv=[cases], summary=[cases])
    assert got["csv"] == [(tmp_path / "counts.csv").read_bytes().decode()]
    assert [tuple(row.values()) for row in got["summary"][0]] == summary_rows(counted)
