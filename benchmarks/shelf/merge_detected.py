"""Measure how exactly photos are merged that a detector counted, and the time of a photo.

The result has three parts with a stamp each. Parts that are not measured again are kept.

    python benchmarks/shelf/merge_detected.py --demo demo/bundle
        Synthetic shelves with the products of `make demo` and its bundle. The truth is exact.
    python benchmarks/shelf/merge_detected.py --bundle BUNDLE
        Time of a photo of 12 megapixels.
    python benchmarks/shelf/merge_detected.py --bundle BUNDLE --data LABELS.json
        [--corrections CORRECTIONS.json]
        Photos that are cut into four overlapping parts, which are rotated and dimmed. The labels of
        the photo are the truth of the merged shelf.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from merge_views import SEED, dimmed, moved, shelf
from simulated_detector import CATALOGUE, Tally, errors

from shelfcount.cli.console import progress_bar
from shelfcount.data.formats import read_labels
from shelfcount.files import write_json
from shelfcount.labels.corrections import correct_labels, read_corrections
from shelfcount.records import Dataset, Detections, ShelfcountError
from shelfcount.runtime.bundle import Bundle, LiteRTDetector, read_bundle
from shelfcount.runtime.photos import read_photos
from shelfcount.shelf.count import count_photo
from shelfcount.shelf.merge import merge_counted, merge_photos
from shelfcount.shelf.photo_features import extract_features
from shelfcount.stamp import stamp
from shelfcount.synthetic.catalogue import make_catalogue
from shelfcount.synthetic.layout import ShelfParams
from shelfcount.synthetic.scenes import LABEL_VISIBLE, render_views
from shelfcount.vision import boxes as box_math
from shelfcount.vision.homography import map_boxes
from shelfcount.vision.images import write_photo

RESULT = Path(__file__).parents[1] / "results" / "merge_detected.json"
# Products of `make demo`.
DEMO_CATALOGUE = make_catalogue(12, 1)
# Factor by which drinks photos, which have a side of 416 pixels, are enlarged.
ENLARGED = 3
RUNS = 2


def _named(bundle: Bundle) -> dict[str, str]:
    return {"name": bundle.name, "sha256": bundle.sha256}


# ---------------------------------------------------------------------------- synthetic shelves


def demo(bundle: Bundle, shelves: int) -> dict[str, Any]:
    """Measure count errors on synthetic shelves of 3 to 10 photos.

    Raises:
        ShelfcountError: If the bundle has other classes than the demo.
    """
    names = tuple(product.name for product in DEMO_CATALOGUE)
    if bundle.spec.classes != names:
        raise ShelfcountError(
            f"'{bundle.name}' has the classes {bundle.spec.classes}. It must have those of "
            f"`make demo`: {names}."
        )
    detector, tally, overlaps = LiteRTDetector.open(bundle), Tally(), Counter[str]()
    with progress_bar("synthetic shelves") as advance:
        for number in range(shelves):
            scenes, overlap = shelf(number, DEMO_CATALOGUE)
            overlaps[f"{overlap:.2f}"] += 1
            photos = [
                count_photo(detector, scene.image, f"{i}.jpg") for i, scene in enumerate(scenes)
            ]
            looks = [
                extract_features(scene.image, photo.detections)
                for scene, photo in zip(scenes, photos, strict=True)
            ]
            tally.add(merge_counted(photos, looks, bundle.spec.score_threshold), scenes, names)
            advance(number + 1, shelves)
    return {
        "bundle": _named(bundle),
        "shelves": shelves,
        "photos": len(tally.photos),
        "overlap_asked_for": dict(sorted(overlaps.items())),
        **tally.to_json(),
    }


# ---------------------------------------------------------------------------- photos cut in four


def cut_views(
    image: np.ndarray, rng: np.random.Generator, share: float = 0.65
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut a photo into four overlapping parts, slightly rotated and dimmed, in random order.

    Args:
        image: (h, w, 3) uint8 RGB.
        rng: Random generator of rotation, light and order.
        share: Share of the photo's width and height that each part shows.

    Returns:
        For each part its pixels and the (3, 3) homography from `image` to the part.
    """
    size = np.array(image.shape[1::-1])
    width, height = np.round(size * share).astype(int).tolist()
    corners = np.array([(0, 0), (1, 0), (0, 1), (1, 1)]) * (size - (width, height))
    cuts = []
    for left, top in rng.permutation(corners).tolist():
        turn = np.deg2rad(rng.uniform(-3, 3))
        camera = np.array(
            [
                [np.cos(turn), -np.sin(turn), 0],
                [np.sin(turn), np.cos(turn), 0],
                [*rng.uniform(-6e-5, 6e-5, 2), 1],
            ]
        )
        homography = (
            moved(width / 2, height / 2) @ camera @ moved(-left - width / 2, -top - height / 2)
        )
        cuts.append(
            (
                dimmed(
                    cv2.warpPerspective(
                        image, homography, (width, height), borderMode=cv2.BORDER_REFLECT
                    ),
                    rng,
                ),
                homography,
            )
        )
    return cuts


def shown(truth: Detections, homography: np.ndarray, image: np.ndarray) -> Detections:
    """Return the labels of products of which a part shows at least as much as synthetic labels."""
    boxes = map_boxes(truth.boxes, homography)
    within = box_math.clip(boxes, image.shape[1], image.shape[0])
    return truth.replace(boxes=within)[box_math.area(within) > LABEL_VISIBLE * box_math.area(boxes)]


def cut_in_four(bundle: Bundle, dataset: Dataset) -> dict[str, Any]:
    """Measure the count error of merged parts, of single parts and of whole photos."""
    detector = LiteRTDetector.open(bundle)
    wrong, there = Counter[str](), Counter[str]()
    with progress_bar("photos cut in four") as advance:
        photos = read_photos(dataset.photos, progress=advance)
        for number, (photo, small) in enumerate(photos):
            # Key points need larger photos. The network's input stays the same.
            image = cv2.resize(small, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_CUBIC)
            truth = photo.truth.replace(boxes=photo.truth.boxes * ENLARGED)
            cuts = cut_views(image, np.random.default_rng([SEED, number]))
            parts = [count_photo(detector, cut, f"{i}") for i, (cut, _) in enumerate(cuts)]
            looks = [
                extract_features(cut, part.detections)
                for (cut, _), part in zip(cuts, parts, strict=True)
            ]
            merged = merge_counted(parts, looks, bundle.spec.score_threshold).shelves[0]
            there["parts_placed"] += len(merged.photos)
            pairs = [
                ("merged", merged.counts, truth),
                ("photo", count_photo(detector, image).counts, truth),
            ]
            pairs += [
                ("part", part.counts, shown(truth, h, cut))
                for part, (cut, h) in zip(parts, cuts, strict=True)
            ]
            for what, found, true in pairs:
                wrong[what] += errors(found, true.counts(dataset.classes))
                there[what] += int((~true.ignore).sum())
    return {
        "bundle": _named(bundle),
        "photos": len(dataset),
        "parts": 4 * len(dataset),
        "parts_placed": there["parts_placed"],
        "products": there["merged"],
        "count_error": round(wrong["merged"] / there["merged"], 4),
        "part_alone_count_error": round(wrong["part"] / there["part"], 4),
        "photo_as_it_is_count_error": round(wrong["photo"] / there["photo"], 4),
    }


# ---------------------------------------------------------------------------- time


def duration(bundle: Bundle) -> dict[str, Any]:
    """Measure the seconds per photo of 12 megapixels, from file to merged list."""
    params = ShelfParams(width=4000, height=3000, facings=(12, 16))
    detector = LiteRTDetector.open(bundle, threads=cv2.getNumThreads())
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.jpg" for i in range(10)]
        for path, scene in zip(
            paths,
            render_views(CATALOGUE, params, np.random.default_rng(SEED), len(paths), 0.3),
            strict=True,
        ):
            write_photo(path, scene.image)
        for photos in (3, 5, 10):
            taken.append({"photos": photos, **_least_seconds(detector, paths[:photos])})
    return {"bundle": _named(bundle), "runs": RUNS, "a_photo": taken}


def _least_seconds(detector: LiteRTDetector, paths: list[Path]) -> dict[str, float]:
    """Return wall and CPU seconds per photo, each as the minimum over the runs."""
    wall, cpu = [], []
    for _ in range(RUNS):
        wall.append(-time.perf_counter())
        cpu.append(-time.process_time())
        merge_photos(detector, paths)
        wall[-1] += time.perf_counter()
        cpu[-1] += time.process_time()
    return {
        "seconds": round(min(wall) / len(paths), 3),
        "cpu_seconds": round(min(cpu) / len(paths), 3),
    }


def main() -> int:
    """Measure the requested parts and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--demo", type=Path, help="Bundle that `make demo` made.")
    parser.add_argument(
        "--shelves", type=int, default=24, help="Synthetic shelves for --demo. Default: 24."
    )
    parser.add_argument("--bundle", type=Path, help="Bundle to measure.")
    parser.add_argument("--data", help="Labelled photos of its classes.")
    parser.add_argument("--corrections", type=Path, help="Corrections of the labels of --data.")
    given = parser.parse_args()
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    made: dict[str, Any] = {}
    if given.demo:
        made["demo"] = demo(read_bundle(given.demo), given.shelves)
    if given.bundle:
        made["twelve_megapixels"] = duration(read_bundle(given.bundle))
    if given.bundle and given.data:
        dataset = read_labels(given.data)
        if given.corrections:
            dataset = correct_labels(dataset, read_corrections(given.corrections))
        labels = {
            "data": Path(given.data).name,
            "corrections": given.corrections and given.corrections.name,
        }
        made["cut_in_four"] = labels | cut_in_four(read_bundle(given.bundle), dataset)
    signed = stamp(seed=SEED, threads=cv2.getNumThreads())
    result |= {part: {"stamp": signed, **content} for part, content in made.items()}
    write_json(RESULT, result)
    print(json.dumps(made, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
