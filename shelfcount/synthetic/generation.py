"""Generation of synthetic data sets: photos and COCO labels of many shelves, in parallel."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from shelfcount import files
from shelfcount.data import coco
from shelfcount.records import Dataset, Photo, Progress, ShelfcountError
from shelfcount.synthetic.catalogue import make_catalogue
from shelfcount.synthetic.layout import ShelfParams
from shelfcount.synthetic.scenes import render_views
from shelfcount.vision import images

# ---------------------------------------------------------------------------- files


@dataclass(frozen=True)
class _Job:
    """Parameters that a worker process needs to write any shelf of a data set."""

    out: Path
    classes: int
    seed: int
    catalogue_seed: int
    params: ShelfParams
    views: int


def generate(
    out: Path | str,
    *,
    photos: int,
    classes: int,
    seed: int,
    params: ShelfParams | None = None,
    views: int = 1,
    catalogue_seed: int = 0,
    workers: int = 1,
    force: bool = False,
    progress: Progress | None = None,
) -> Dataset:
    """Write a labelled data set of synthetic shelf photos.

    Shelf i depends only on the seeds, the parameters and i. Thus a data set with fewer photos is
    the beginning of one with more, and the result does not depend on the number of workers.

    Args:
        out: Output folder for ``images/*.jpg``, ``labels.json`` (COCO) and ``scenes.json``. The
            latter contains, for each photo, the homography from the shelf plane, and for each box
            its row, position, physical product and visible share.
        photos: Number of shelves.
        classes: Number of product classes, from 1 to 200.
        seed: Seed of the shelves.
        params: Parameters of the photos. Default: those of `ShelfParams`.
        views: Number of overlapping photos of each shelf, which form a group.
        catalogue_seed: Seed of the products. Data sets with the same seed and number of classes
            have the same classes.
        workers: Number of worker processes. A script that uses more than 1 needs
            ``if __name__ == "__main__"``.
        force: If True, write to a folder that is not empty. Files with other names remain.
        progress: Callback that is called with (shelves done, shelves in total).

    Returns:
        Written data set, with photos in order.

    Raises:
        ShelfcountError: If a parameter is out of range, or `out` is not an empty folder and `force`
            is not set.
    """
    out = Path(out)
    for name, value in (("photos", photos), ("views", views), ("workers", workers)):
        if value < 1:
            raise ShelfcountError(f"{name} of synthetic shelves must be at least 1, got {value}")
    for name, value in (("seed", seed), ("catalogue_seed", catalogue_seed)):
        if value < 0:
            raise ShelfcountError(f"{name} of synthetic shelves must be at least 0, got {value}")
    catalogue = make_catalogue(classes, catalogue_seed)
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not force:
        raise ShelfcountError(
            f"'{out}' is not an empty folder, and existing files are not overwritten. Give a new "
            "folder, or set force to overwrite."
        )
    job = _Job(out, classes, seed, catalogue_seed, params or ShelfParams(), views)
    written: list[tuple[Photo, dict[str, Any]]] = []
    for done, shelf in enumerate(_run(job, photos, workers), 1):
        written += shelf
        if progress:
            progress(done, photos)
    dataset = Dataset(
        tuple(p.name for p in catalogue),
        tuple(p for p, _ in written),
        name=f"synthetic shelves, seed {seed}",
        licence="CC0-1.0",
    )
    facts = {
        "seed": seed,
        "catalogue_seed": catalogue_seed,
        "parameters": dataclasses.asdict(job.params),
    }
    files.write_whole(
        out / "scenes.json", json.dumps({**facts, "photos": [scene for _, scene in written]})
    )
    # The labels are written last, so that they exist only if all files to which they refer exist.
    coco.write_coco(dataset, out / "labels.json")
    return dataset


def _run(job: _Job, photos: int, workers: int) -> Iterator[list[tuple[Photo, dict[str, Any]]]]:
    """Write all shelves, and yield the photos of each shelf in order."""
    if workers == 1:
        yield from map(partial(_write_shelf, job), range(photos))
        return
    # Spawned, since a forked process inherits the locks of threads of torch and OpenCV, but not the
    # threads.
    with ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), cv2.setNumThreads, (1,)
    ) as pool:
        yield from pool.map(partial(_write_shelf, job), range(photos), chunksize=4)


def _write_shelf(job: _Job, shelf: int) -> list[tuple[Photo, dict[str, Any]]]:
    """Write the photos of one shelf, and return each with its entry of ``scenes.json``."""
    rng = np.random.default_rng([job.seed, shelf])
    written = []
    for view, scene in enumerate(
        render_views(make_catalogue(job.classes, job.catalogue_seed), job.params, rng, job.views)
    ):
        group = f"{shelf:05d}"
        path = job.out / "images" / (f"{group}.jpg" if job.views == 1 else f"{group}-{view}.jpg")
        images.write_photo(path, scene.image, quality=95)
        facts = {
            "file": f"images/{path.name}",
            "group": group,
            "homography": scene.homography.tolist(),
            "rows": scene.rows.tolist(),
            "positions": scene.positions.tolist(),
            "items": scene.items.tolist(),
            "visible": scene.visible.round(3).tolist(),
            "plane_boxes": scene.plane_boxes.tolist(),
        }
        written.append(
            (Photo(path, job.params.width, job.params.height, scene.truth, group), facts)
        )
    return written
