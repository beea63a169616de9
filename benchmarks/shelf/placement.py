"""Measure how many rows, facings, stacks and gaps are found, by tilt and yaw of the camera.

Synthetic shelves are known exactly. Their boxes are projected by a camera, with the errors of a
detector. Real coolers have labelled boxes and no labelled rows. On a regular cooler, the rows
follow from the boxes without the measured code: sorted by their lower edges, boxes form groups that
are narrow and far apart, with room for a shelf board between the upper edges of one group and the
lower edges of the group above. Other photos are left out and counted. Regular coolers are measured
as they are, and with their boxes projected by the same cameras.

    python benchmarks/shelf/placement.py [--shelves 40] [--drinks FOLDER]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from shelfcount.cli.console import progress_bar
from shelfcount.data.formats import read_labels
from shelfcount.files import write_json
from shelfcount.shelf.facings import Arrangement, arrange, shares
from shelfcount.shelf.rows import assign_rows
from shelfcount.stamp import stamp
from shelfcount.synthetic.catalogue import make_catalogue
from shelfcount.synthetic.layout import CM_PER_FACING, ShelfParams, layout_shelf
from shelfcount.vision.homography import map_boxes

RESULT = Path(__file__).parents[1] / "results" / "placement.json"
SEED = 11
TILTS = (-15.0, -7.0, 0.0, 7.0, 15.0)
YAWS = (-30.0, -15.0, 0.0, 15.0, 30.0)
CATALOGUE = make_catalogue(24, 0)
NEAT = ShelfParams(rows=(3, 5), gap=0, back_row=0, occlusion=0)
LONGER_SIDE = 1500  # of a photo, in pixels
# Standard deviation of an edge as a share of the box, as `shelf.facings` assumes it.
SCATTER = 0.03
SOLD = 0.15
# Limits of a regular cooler as shares of the median product height: maximum spread of the lower
# edges in a row, minimum distance between two rows, and minimum height of a board.
NARROW, APART, BOARD = 0.3, 0.6, 0.12
# Values of a cell that are averaged over all cells.
MEANS = (
    "products_in_right_row",
    "products_in_right_row_and_column_or_stack",
    "front_edges_off_in_widths",
    "front_edges_off_in_heights",
    "share_off_by_count",
    "share_off_by_width",
)


# ---------------------------------------------------------------------------- synthetic shelves


@dataclass(frozen=True)
class KnownShelf:
    """Products of one shelf, in cm.

    Attributes:
        boxes: (n, 4) xyxy.
        names: (n,) class names.
        row: (n,) rows.
        stacked: (n,) whether a product is on another one.
        width, height: Size of the shelf.
        sold: (k, 4) xyxy of products that are sold out.
    """

    boxes: np.ndarray
    names: np.ndarray
    row: np.ndarray
    stacked: np.ndarray
    width: float
    height: float
    sold: np.ndarray

    @property
    def column(self) -> np.ndarray:
        """(n,) position in the row from the left, without stacked products, which have -1."""
        middle = self.boxes[:, 0] + self.boxes[:, 2]
        beside = (self.row[:, None] == self.row) & ~self.stacked & (middle < middle[:, None])
        return np.where(self.stacked, -1, beside.sum(axis=1))


def shelf(rng: np.random.Generator, sell: float = 0.0) -> KnownShelf:
    """Return a shelf with sold-out facings.

    No sold-out facing is at the end of a row, under a stack, or narrower than its neighbours.
    """
    layout = layout_shelf(CATALOGUE, NEAT, CM_PER_FACING * rng.integers(10, 17), rng)
    items = [item for item in layout.items if item.layer == 0]
    sizes = np.array([(CATALOGUE[i.product].width, CATALOGUE[i.product].height) for i in items])
    foot = np.array([(i.left, i.bottom) for i in items])
    boxes = np.column_stack(
        [foot[:, 0], foot[:, 1] - sizes[:, 1], foot[:, 0] + sizes[:, 0], foot[:, 1]]
    )
    row = np.array([i.row for i in items])
    stacked = np.array(layout.floors)[row] - boxes[:, 3] > sizes[:, 1] / 2
    sold = np.zeros(len(items), bool)
    for number in range(row.max() + 1):
        board = np.flatnonzero((row == number) & ~stacked)
        board = board[np.argsort(boxes[board, 0])]
        last = 0
        for place in range(1, len(board) - 1):
            left, this, right = board[place - 1 : place + 2]
            carries = (
                stacked
                & (row == number)
                & (np.abs(boxes[:, 0] - boxes[this, 0]) < sizes[this, 0] / 2)
            ).any()
            fits = sizes[this, 0] >= min(sizes[left, 0], sizes[right, 0])
            if fits and not carries and place - last > 2 and rng.random() < sell:
                sold[this], last = True, place
    names = np.array([CATALOGUE[i.product].name for i in items], object)
    left = ~sold
    return KnownShelf(
        boxes[left], names[left], row[left], stacked[left], layout.width, layout.height, boxes[sold]
    )


def through_camera(
    boxes: np.ndarray,
    extent: tuple[float, float],
    tilt: float,
    yaw: float,
    rng: np.random.Generator,
    scatter: float = SCATTER,
) -> tuple[np.ndarray, tuple[int, int]]:
    """Project boxes by a camera with a lens of 56 to 73 degrees and a pitch of up to 8 degrees.

    Args:
        boxes: (n, 4) xyxy on the shelf.
        extent: Width and height of the shelf, in units of the boxes.
        tilt, yaw: Angles of the camera, in degrees.
        rng: Random generator of lens, pitch and errors.
        scatter: Standard deviation of each edge, as a share of the box.

    Returns:
        (n, 4) xyxy in pixels, and width and height of the photo.
    """
    scale = LONGER_SIDE / max(extent)
    size = (round(extent[0] * scale), round(extent[1] * scale))
    focal = LONGER_SIDE / 2 / np.tan(np.radians(rng.uniform(56, 73) / 2))
    roll, pitch, turn = (
        cv2.Rodrigues(np.radians(v))[0]
        for v in ((0.0, 0, tilt), (rng.uniform(-8, 8), 0, 0), (0, yaw, 0))
    )
    rotation = roll @ pitch @ turn
    view = np.column_stack([rotation[:, 0], rotation[:, 1], (0, 0, focal)]) @ np.diag(
        [scale, scale, 1]
    )
    middle = np.array([[1, 0, -extent[0] / 2], [0, 1, -extent[1] / 2], [0, 0, 1]])
    camera = np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]]) @ view @ middle
    seen = map_boxes(boxes, camera, "corners")
    return seen + rng.normal(0, scatter, seen.shape) * np.tile(seen[:, 2:] - seen[:, :2], 2), size


def arranged(known: KnownShelf, tilt: float, yaw: float, rng: np.random.Generator) -> Arrangement:
    """Return the arrangement that is found on a photo of the shelf."""
    boxes, size = through_camera(known.boxes, (known.width, known.height), tilt, yaw, rng)
    return arrange(boxes, known.names.tolist(), assign_rows(boxes), size)


def edge_errors(found: np.ndarray, true: np.ndarray) -> list[float]:
    """Return the 90th percentile of the edge errors, in widths and heights of the median product.

    Scale and offset of the whole shelf are fitted first, since a photo does not determine them.
    """
    errors = []
    for axis in (0, 1):
        edges, known = found[:, axis::2].ravel(), true[:, axis::2].ravel()
        off = np.abs(np.polyval(np.polyfit(edges, known, 1), edges) - known)
        errors.append(float(np.percentile(off, 90) / np.median(true[:, axis + 2] - true[:, axis])))
    return errors


def share_errors(known: KnownShelf, arrangement: Arrangement) -> np.ndarray:
    """Return the largest error of a class's share of shelf, (2,) by count and by width."""
    found = {
        share.name: (share.by_count, share.by_width)
        for share in shares(arrangement)
        if share.row is None
    }
    width = (known.boxes[:, 2] - known.boxes[:, 0]) * ~known.stacked
    off = []
    for name in set(known.names):
        own = known.names == name
        true = (own & ~known.stacked).sum() / (~known.stacked).sum(), width[own].sum() / width.sum()
        off.append(np.abs(np.subtract(found[name], true)))
    return np.max(off, axis=0)


def gaps_hit(known: KnownShelf, arrangement: Arrangement) -> int:
    """Count the gaps that are found at a sold-out facing."""
    middles, hits = (known.sold[:, 0] + known.sold[:, 2]) / 2, 0
    for gap in arrangement.gaps:
        left, right = known.boxes[arrangement.facings(gap.row)[gap.after : gap.after + 2]]
        hits += int(
            (
                (left[2] < middles)
                & (middles < right[0])
                & (known.sold[:, 3] > left[1])
                & (known.sold[:, 1] < left[3])
            ).any()
        )
    return hits


def synthetic(tilt: float, yaw: float, shelves: int) -> dict[str, Any]:
    """Measure synthetic shelves at one tilt and yaw, in degrees."""
    in_row, in_place, errors, of_shares, whole = [], [], [], [], 0
    hits = sold = found = 0
    for number in range(shelves):
        rng = np.random.default_rng([SEED, number])
        known = shelf(rng, SOLD)
        there = arranged(known, tilt, yaw, rng)
        row_right = there.row == known.row
        in_row.append(row_right)
        whole += int(row_right.all())
        in_place.append(
            row_right
            & ((there.level > 0) == known.stacked)
            & (known.stacked | (there.column == known.column))
        )
        errors.append(edge_errors(there.front_boxes, known.boxes))
        of_shares.append(share_errors(known, there))
        hits, sold, found = (
            hits + gaps_hit(known, there),
            sold + len(known.sold),
            found + len(there.gaps),
        )
    sideways, upright = np.mean(errors, axis=0)
    by_count, by_width = np.mean(of_shares, axis=0)
    return {
        "tilt": tilt,
        "yaw": yaw,
        "shelves_with_every_row_right": whole,
        "products_in_right_row": _share(in_row),
        "products_in_right_row_and_column_or_stack": _share(in_place),
        "sold_out_facings": sold,
        "gaps": found,
        "gaps_at_sold_out_facings": hits,
        "front_edges_off_in_widths": round(float(sideways), 3),
        "front_edges_off_in_heights": round(float(upright), 3),
        "share_off_by_count": round(float(by_count), 4),
        "share_off_by_width": round(float(by_width), 4),
    }


# ---------------------------------------------------------------------------- real coolers


def regular_rows(boxes: np.ndarray) -> np.ndarray | None:
    """Return the (n,) rows of (n, 4) xyxy boxes, or None if the cooler is not regular."""
    height = float(np.median(boxes[:, 3] - boxes[:, 1]))
    order = np.argsort(boxes[:, 3])
    steps = np.diff(boxes[order, 3])
    row = np.empty(len(boxes), np.int64)
    row[order] = np.concatenate([[0], np.cumsum(steps > APART * height)])
    groups = [boxes[row == number] for number in range(row.max() + 1)]
    narrow = all(np.ptp(group[:, 3]) < NARROW * height for group in groups)
    boards = all(
        np.median(lower[:, 1]) - np.median(upper[:, 3]) > BOARD * height
        for upper, lower in pairwise(groups)
    )
    return row if len(groups) > 1 and narrow and boards else None


def coolers(labels: Path) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[int, int]]]:
    """Yield boxes, rows and photo size of each cooler, without rows if it is not regular."""
    for photo in read_labels(str(labels)).photos:
        boxes = photo.truth.boxes[~photo.truth.ignore].astype(float)
        if len(boxes):
            found = regular_rows(boxes)
            yield boxes, np.empty(0) if found is None else found, (photo.width, photo.height)


def drinks(labels: Path) -> dict[str, Any]:
    """Measure the rows of regular coolers, as photographed and projected by cameras."""
    given = list(coolers(labels))
    regular = [photo for photo in given if len(photo[1])]
    seen: dict[tuple[float, float], list[np.ndarray]] = {}
    for number, (boxes, row, size) in enumerate(regular):
        for tilt in TILTS:
            for yaw in YAWS:
                rng = np.random.default_rng([SEED, number])
                seen.setdefault((tilt, yaw), []).append(
                    assign_rows(through_camera(boxes, size, tilt, yaw, rng)[0]).row == row
                )
    plain = [assign_rows(boxes).row == row for boxes, row, _ in regular]
    return {
        "labels": labels.name,
        "photos": len(given),
        "regular": len(regular),
        "as_photographed": {
            "photos_with_every_row_right": sum(bool(p.all()) for p in plain),
            "products_in_right_row": _share(plain),
        },
        "through_cameras": [
            {
                "tilt": tilt,
                "yaw": yaw,
                "photos_with_every_row_right": sum(bool(p.all()) for p in own),
                "products_in_right_row": _share(own),
            }
            for (tilt, yaw), own in seen.items()
        ],
    }


def _share(right: Sequence[np.ndarray]) -> float:
    return round(float(np.concatenate(right).mean()), 4)


def summary(cells: Sequence[Mapping[str, Any]], shelves: int) -> dict[str, Any]:
    """Return the means over all cells, and the worst cell."""
    total = {
        key: sum(cell[key] for cell in cells)
        for key in ("sold_out_facings", "gaps", "gaps_at_sold_out_facings")
    }
    whole = sum(cell["shelves_with_every_row_right"] for cell in cells)
    mean = {key: float(np.mean([cell[key] for cell in cells])) for key in MEANS}
    return {
        "photos": shelves * len(cells),
        "shelves_with_every_row_right": round(whole / shelves / len(cells), 4),
        **{key: round(value, 4) for key, value in mean.items()},
        "worst_tilt_and_yaw": min(cell["products_in_right_row"] for cell in cells),
        "gap_recall": round(total["gaps_at_sold_out_facings"] / total["sold_out_facings"], 4),
        "gap_precision": round(total["gaps_at_sold_out_facings"] / total["gaps"], 4),
    }


def main() -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shelves",
        type=int,
        default=40,
        help="Synthetic shelves at each tilt and yaw. Default: 40.",
    )
    parser.add_argument(
        "--drinks",
        type=Path,
        help="Folder with train.json, val.json and test.json of the drinks photos.",
    )
    parser.add_argument("--out", type=Path, default=RESULT, help="Result to write.")
    given = parser.parse_args()
    places = [(tilt, yaw) for tilt in TILTS for yaw in YAWS]
    cells = []
    with progress_bar("synthetic shelves") as advance:
        for done, (tilt, yaw) in enumerate(places, start=1):
            cells.append(synthetic(tilt, yaw, given.shelves))
            advance(done, len(places))
    result: dict[str, Any] = {
        "synthetic": {
            "shelves_each": given.shelves,
            **summary(cells, given.shelves),
            "by_tilt_and_yaw": cells,
        }
    }
    if given.drinks:
        result["drinks"] = [
            drinks(given.drinks / f"{part}.json") for part in ("train", "val", "test")
        ]
    write_json(given.out, {"stamp": stamp(seed=SEED), **result})
    print(json.dumps(result["synthetic"] | {"by_tilt_and_yaw": f"in {given.out.name}"}, indent=1))
    for part in result.get("drinks", []):
        print(
            f"{part['labels']}: {part['regular']} of {part['photos']} photos are regular, "
            f"{part['as_photographed']}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
