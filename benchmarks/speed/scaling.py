"""Measure the cost of a count as input size, classes, products, photo size and batch size grow.

    python benchmarks/speed/scaling.py [--bundle BUNDLE] [--short] [--out FOLDER]

For input sizes and classes, the networks have random weights, since latency does not depend on
them. They have the architecture and the anchors of the bundle and are exported to int8 like every
bundle. For products, a network detects as many products as are painted on the photo. For photo and
batch sizes, the bundle counts mosaics of its golden photos, with products as large as tiling
assumes.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from painted_products import CANDIDATES, crafted, painted
from scaling_photos import batches, photo_sizes, rounded
from scaling_plot import scaling_plot

from shelfcount.cli.console import progress_stages
from shelfcount.config import ModelConfig
from shelfcount.deploy import convert, flatbuffer, inspection
from shelfcount.deploy.bundle import main_artifact
from shelfcount.files import write_json, write_whole
from shelfcount.records import ModelSpec
from shelfcount.runtime.bundle import Bundle, LiteRTDetector, read_bundle
from shelfcount.shelf.rows import assign_rows
from shelfcount.speed.model_rows import Latency, summarize_latency, time_interleaved
from shelfcount.stamp import stamp
from shelfcount.training.networks import build
from shelfcount.vision.images import read_photo, stretch

BENCHMARKS = Path(__file__).parents[1]
RELEASED = BENCHMARKS.parent / "export" / "release" / "drinks-int8"
SEED = 0
WARMUP = 3
Exporter = Callable[[int, int], tuple[bytes, ModelSpec]]


@dataclass(frozen=True)
class Axes:
    """Values of each axis.

    Attributes:
        sizes: Input sides in pixels, with the classes of the bundle.
        classes: Numbers of classes, with an input of `class_size`.
        class_size: Input side in pixels.
        products: Numbers of products on one photo.
        megapixels: Sizes of photos.
        batches: Numbers of photos of one `shelfcount count`.
        runs: Timed runs of a network.
        few: Timed runs of a photo or a batch.
    """

    sizes: tuple[int, ...] = (224, 320, 416, 512, 640)
    classes: tuple[int, ...] = (10, 33, 100, 300, 1000)
    class_size: int = 416
    products: tuple[int, ...] = (10, 30, 100, 200, 300, 500)
    megapixels: tuple[int, ...] = (1, 2, 4, 8, 12, 24, 50)
    batches: tuple[int, ...] = (1, 4, 16, 64, 256)
    runs: int = 40
    few: int = 3


SHORT = Axes(
    sizes=(224, 320),
    classes=(33, 100),
    class_size=320,
    products=(10, 100),
    megapixels=(1, 4),
    batches=(1, 4),
    runs=5,
    few=1,
)


# ---------------------------------------------------------------------------- networks


def exporter(like: ModelSpec, photos: Sequence[np.ndarray]) -> Exporter:
    """Return a function that exports the bundle's architecture with random weights to int8.

    Its arguments are the input side and the number of classes. It exports each file once.
    """

    @functools.cache
    def make(size: int, classes: int) -> tuple[bytes, ModelSpec]:
        torch.manual_seed(SEED)
        names = tuple(f"product {i}" for i in range(classes))
        spec = ModelSpec(f"{size}-{classes}", like.architecture, names, size, size, like.levels)
        net = build(like.architecture, classes, like.levels, ModelConfig().neck).eval()
        return main_artifact(
            convert.to_litert(net, spec),
            spec,
            "int8",
            [stretch(photo, size, size) for photo in photos],
        ), spec

    return make


def network_row(model: bytes) -> dict[str, Any]:
    """Return size, work and largest tensor of a file."""
    return {
        "mb": rounded(len(model) / 1e6),
        "gmac": rounded(inspection.count_macs(model) / 1e9),
        "largest_tensor_mb": rounded(largest_tensor(model) / 1e6),
    }


def largest_tensor(model: bytes) -> int:
    """Return the bytes of the largest tensor that is written while the file runs."""
    read = flatbuffer.read_model(model)
    graph = read.subgraphs[0]
    # Types of the schema: FLOAT32 0, INT32 2, UINT8 3, INT8 9. These files write no others.
    width = {0: 4, 2: 4, 3: 1, 9: 1}
    written = {index for op in graph.operators for index in op.outputs}
    return max(int(np.prod(graph.tensors[i].shape)) * width[graph.tensors[i].type] for i in written)


def networks(
    models: dict[int, tuple[bytes, ModelSpec]], runs: int, photo: np.ndarray
) -> list[dict[str, Any]]:
    """Measure the networks alternately and return a row for each."""
    calls = {}
    for key, (model, spec) in models.items():
        detector, pixels = LiteRTDetector(model, spec), stretch(photo, spec.height, spec.width)
        calls[str(key)] = _call(detector.invoke, pixels)
    latencies = in_turn(calls, runs)
    found = []
    for key, (model, _) in models.items():
        row, latency = network_row(model), latencies[str(key)]
        found.append(
            {
                "at": key,
                **row,
                "ms": latency.p50,
                "p90_ms": latency.p90,
                "gmac_per_s": rounded(row["gmac"] / latency.p50 * 1e3),
            }
        )
    return found


def _call(function: Callable[..., object], *arguments: Any) -> Callable[[], float]:
    """Return a function that calls `function` and returns the milliseconds it took."""

    def call() -> float:
        begin = time.perf_counter()
        function(*arguments)
        return (time.perf_counter() - begin) * 1e3

    return call


def in_turn(calls: dict[str, Callable[[], float]], runs: int) -> dict[str, Latency]:
    """Return the latency of each call. The runs alternate, so that a slow minute affects all."""
    times = time_interleaved(calls, dict.fromkeys(calls, runs), warmup=WARMUP)
    return {name: summarize_latency(values, WARMUP, 1) for name, values in times.items()}


def input_sizes(make: Exporter, classes: int, axes: Axes, photo: np.ndarray) -> dict[str, Any]:
    """Measure latency by input size."""
    found = networks({size: make(size, classes) for size in axes.sizes}, axes.runs, photo)
    return {
        "axis": "input side, px",
        "classes": classes,
        "threads": 1,
        "rows": found,
    }


def class_counts(make: Exporter, axes: Axes, photo: np.ndarray) -> dict[str, Any]:
    """Measure latency by number of classes."""
    found = networks({n: make(axes.class_size, n) for n in axes.classes}, axes.runs, photo)
    return {"axis": "classes", "input": axes.class_size, "threads": 1, "rows": found}


# ---------------------------------------------------------------------------- products


def product_counts(bundle: Bundle, axes: Axes) -> dict[str, Any]:
    """Measure the cost after the network: suppression in the file, and rows and positions."""
    size, classes = bundle.spec.width, len(bundle.spec.classes)
    detector = crafted(size, classes)
    photos = {n: painted(size, n) for n in (0, *axes.products)}
    seen = {n: detector.detect(photo) for n, photo in photos.items()}
    calls = {f"file {n}": _call(detector.invoke, photo) for n, photo in photos.items()}
    calls |= {f"rows {n}": _call(assign_rows, found.boxes) for n, found in seen.items()}
    latencies = in_turn(calls, axes.runs)
    # The minimum is that without suppression: few products take no longer than none, within noise.
    fastest = min(latencies[f"file {n}"].p50 for n in photos)
    found = []
    for n in axes.products:
        file, placing = latencies[f"file {n}"].p50, latencies[f"rows {n}"].p50
        row = {
            "at": n,
            "found": len(seen[n]),
            "file_ms": file,
            "suppression_ms": rounded(file - fastest),
            "rows_ms": placing,
        }
        found.append({**row, "ms": rounded(file - fastest + placing)})
    maximum = detector.spec.max_detections
    return {
        "axis": "products on one photo",
        "input": size,
        "candidates_a_product": CANDIDATES,
        "maximum": maximum,
        "rows": found,
    }


# ---------------------------------------------------------------------------- all of it


def measure(bundle: Bundle, axes: Axes) -> dict[str, Any]:
    """Measure all axes, one after the other."""
    photos = [read_photo(path) for path in sorted((bundle.path / "golden").glob("*.jpg"))]
    titles = ("input sizes", "classes", "products on a photo", "photo sizes", "photos of a batch")
    with progress_stages(*titles) as step:
        step()
        make = exporter(bundle.spec, photos)
        result = {"input_size": input_sizes(make, len(bundle.spec.classes), axes, photos[0])}
        step()
        result["classes"] = class_counts(make, axes, photos[0])
        step()
        result["products"] = product_counts(bundle, axes)
        step()
        result["photo_size"] = photo_sizes(bundle, axes.megapixels, axes.few, photos)
        step()
        result["batch"] = batches(bundle, axes.batches, axes.few, photos)
    return result


def main() -> int:
    """Measure all axes, write the result and its picture, and print the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        default=RELEASED,
        help="Bundle to measure. Default: the released one.",
    )
    parser.add_argument(
        "--short", action="store_true", help="Measure two values per axis, to test the script."
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="Folder for scaling.json and scaling.png. Default: benchmarks/results, or none with "
        "--short.",
    )
    given = parser.parse_args()
    bundle = read_bundle(given.bundle)
    result = measure(bundle, SHORT if given.short else Axes())
    head = {
        "bundle": {"name": bundle.name, "sha256": bundle.sha256},
        "short": given.short,
        "stamp": stamp(seed=SEED, threads=1),
    }
    image = scaling_plot({**head, **result})
    if folder := given.out or (None if given.short else BENCHMARKS / "results"):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "scaling.json", {**head, **result})
        write_whole(folder / "scaling.png", image)
    for part in result.values():
        for row in part["rows"]:
            print(f"{part['axis']}: {row}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
