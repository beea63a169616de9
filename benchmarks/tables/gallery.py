"""Draw the pictures of the documentation that need a bundle: ``make demo``, then this script.

    python benchmarks/tables/gallery.py [--demo demo/bundle]

    results/gallery_merged.jpg  five photos of a synthetic shelf and the shelf that they are merged
                                to, with the bundle of the demo
    results/gallery_plan.jpg    a cooler compared with its planogram, after one product was replaced
                                and one sold out, with the released bundle

They show what `shelfcount merge` and `shelfcount planogram` write with ``--picture``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

import shelfcount
from shelfcount.counting.results import ShelfCount
from shelfcount.drawing.pictures import annotate, shrunk
from shelfcount.files import write_whole
from shelfcount.synthetic.catalogue import make_catalogue
from shelfcount.synthetic.layout import ShelfParams
from shelfcount.synthetic.scenes import render_views
from shelfcount.vision.images import encode_photo

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parents[1] / "results"
BUNDLE = ROOT / "export" / "release" / "drinks-int8"
COOLER = BUNDLE / "golden" / "1.jpg"
SEED = 5
# Products of `make demo`.
CATALOGUE = make_catalogue(12, 1)
LONG_SHELF = ShelfParams(
    width=960,
    height=720,
    rows=(2, 2),
    facings=(7, 8),
    back_row=0.2,
    occlusion=0,
    yaw=12,
    tilt=3,
    background="cooler",
)
# Row and position of a product, of the one that it replaces, and of the sold-out one.
PUT, INSTEAD_OF, SOLD_OUT = (1, 0), (1, 3), (2, 2)
WIDTH, MAX_BYTES = 1400, 200_000


def rearranged(cooler: ShelfCount) -> np.ndarray:
    """Return the photo with one product replaced by another and one sold out."""
    photo = cooler.image
    place = {
        (p["row"], p["position"]): np.round(p["box"]).astype(int).tolist()
        for p in cooler.products()
    }
    x, y, w, h = place[PUT]
    product = photo[y : y + h, x : x + w]
    x, y, w, h = place[INSTEAD_OF]
    photo = photo.copy()
    photo[y : y + h, x : x + w] = cv2.resize(product, (w, h))
    x, y, w, h = place[SOLD_OUT]
    hole = np.zeros(photo.shape[:2], np.uint8)
    hole[y : y + h, x : x + w] = 1
    return cv2.inpaint(photo, hole, 5, cv2.INPAINT_TELEA)


def long_shelf(bundle: Path) -> np.ndarray:
    """Draw five photos of a shelf side by side, and the merged shelf below."""
    scenes = render_views(CATALOGUE, LONG_SHELF, np.random.default_rng(SEED), 5, 0.3)
    shelf = shelfcount.count([scene.image for scene in scenes], bundle).merge()
    if shelf.notes:
        raise RuntimeError(f"not all five photos could be merged: {shelf.notes}")
    whole, factor = shrunk(shelf.image, WIDTH), WIDTH / max(shelf.image.shape[:2])
    found = shelf.detections.replace(boxes=shelf.detections.boxes * factor)
    places = shelf.placement.pairs()
    below = annotate(whole, found, shelf.classes, rows=places)
    gap, side = 8, (below.shape[1] - 4 * 8) // 5
    strip = np.full((side * 3 // 4 + 2 * gap, below.shape[1], 3), 255, np.uint8)
    for i, scene in enumerate(scenes):
        strip[: side * 3 // 4, i * (side + gap) : i * (side + gap) + side] = cv2.resize(
            scene.image, (side, side * 3 // 4), interpolation=cv2.INTER_AREA
        )
    return np.concatenate([strip, below])


def write(name: str, picture: np.ndarray) -> None:
    """Write a JPEG with the highest quality that `MAX_BYTES` allow."""
    picture = shrunk(picture, WIDTH)
    files = (encode_photo(picture, quality=quality) for quality in range(90, 40, -5))
    data = next(data for data in files if len(data) < MAX_BYTES)
    write_whole(RESULTS / name, data)
    print(f"{name}: {picture.shape[1]} x {picture.shape[0]}, {len(data) / 1000:.0f} kB")


def main() -> int:
    """Draw and write both pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--demo",
        type=Path,
        default=ROOT / "demo" / "bundle",
        help="Bundle that `make demo` made. Default: demo/bundle.",
    )
    given = parser.parse_args()
    (cooler,) = shelfcount.count(COOLER, BUNDLE)
    (today,) = shelfcount.count(rearranged(cooler), BUNDLE)
    write("gallery_plan.jpg", today.check_compliance(cooler.to_planogram("Plan")).picture())
    write("gallery_merged.jpg", long_shelf(given.demo))
    return 0


if __name__ == "__main__":
    sys.exit(main())
