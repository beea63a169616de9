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
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from painted_products import CANDIDATES, crafted, painted
from scaling_plot import scaling_plot

from shelfcount.cli.console import progress_stages
from shelfcount.config import ModelConfig
from shelfcount.deploy import convert, flatbuffer, inspection
from shelfcount.deploy.bundle import main_artifact
from shelfcount.files import write_whole
from shelfcount.records import Detections, ModelSpec
from shelfcount.runtime.bundle import Bundle, LiteRTDetector, read_bundle
from shelfcount.runtime.inference import MIN_PRODUCT_PX, tiles_per_side
from shelfcount.shelf.count import count_photo
from shelfcount.shelf.rows import assign_rows
from shelfcount.speed.model_rows import Latency, summarize_latency, time_interleaved
from shelfcount.stamp import stamp
from shelfcount.training.networks import build
from shelfcount.vision.images import encode_photo, read_photo, stretch, write_photo

BENCHMARKS = Path(__file__).parents[1]
RELEASED = BENCHMARKS.parent / "export" / "release" / "drinks-int8"
SEED = 0
# Seconds between two readings of a process's memory.
POLL_S = 0.01
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
        "mb": _round(len(model) / 1e6),
        "gmac": _round(inspection.count_macs(model) / 1e9),
        "largest_tensor_mb": _round(largest_tensor(model) / 1e6),
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
                "gmac_per_s": _round(row["gmac"] / latency.p50 * 1e3),
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
            "suppression_ms": _round(file - fastest),
            "rows_ms": placing,
        }
        found.append({**row, "ms": _round(file - fastest + placing)})
    maximum = detector.spec.max_detections
    return {
        "axis": "products on one photo",
        "input": size,
        "candidates_a_product": CANDIDATES,
        "maximum": maximum,
        "rows": found,
    }


# ---------------------------------------------------------------------------- photos and batches


class Counting:
    """A detector that counts its calls and the seconds they take."""

    def __init__(self, detector: LiteRTDetector) -> None:
        self.detector, self.spec, self.looks, self.seconds = detector, detector.spec, 0, 0.0

    def detect(self, image: np.ndarray) -> Detections:
        begin = time.perf_counter()
        found = self.detector.detect(image)
        self.looks, self.seconds = self.looks + 1, self.seconds + time.perf_counter() - begin
        return found


def mosaic(detector: LiteRTDetector, photos: Sequence[np.ndarray], megapixels: float) -> np.ndarray:
    """Return a 4:3 mosaic of photos with products of the size that tiling assumes."""
    height = round(math.sqrt(megapixels * 1e6 * 3 / 4))
    width = round(height * 4 / 3)
    tiles = []
    for photo in photos:
        boxes = detector.detect(photo).boxes
        side = float(np.median(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))))
        tiles.append(
            cv2.resize(photo, None, fx=MIN_PRODUCT_PX / side, fy=MIN_PRODUCT_PX / side)
        )
    edge = min(min(tile.shape[:2]) for tile in tiles)
    across, down = math.ceil(width / edge), math.ceil(height / edge)
    lines = [
        np.concatenate([tiles[(x + y) % len(tiles)][:edge, :edge] for x in range(across)], axis=1)
        for y in range(down)
    ]
    return np.ascontiguousarray(np.concatenate(lines)[:height, :width])


def photo_sizes(bundle: Bundle, axes: Axes, photos: Sequence[np.ndarray]) -> dict[str, Any]:
    """Measure the cost of one photo, from the file to the counts, by its megapixels."""
    detector = LiteRTDetector.open(bundle)
    with tempfile.TemporaryDirectory() as folder:
        paths = {megapixels: Path(folder) / f"{megapixels}.jpg" for megapixels in axes.megapixels}
        for megapixels, path in paths.items():
            write_whole(path, encode_photo(mosaic(detector, photos, megapixels)))
        found = [
            photo_row(detector, megapixels, path, axes.few) for megapixels, path in paths.items()
        ]
    return {"axis": "megapixels", "threads": 1, "rows": found}


def photo_row(detector: LiteRTDetector, megapixels: float, path: Path, runs: int) -> dict[str, Any]:
    """Return medians over the runs of the time for reading, network and the rest of one photo."""
    times = []
    for _ in range(runs):
        counting, begin = Counting(detector), time.perf_counter()
        image = read_photo(path)
        read = time.perf_counter()
        counted = count_photo(counting, image)
        end = time.perf_counter()
        times.append((read - begin, counting.seconds, end - read - counting.seconds))
    reading, network, rest = (float(v) for v in np.median(times, axis=0) * 1e3)
    tiles = tiles_per_side(detector.spec, image.shape[1], image.shape[0])
    return {
        "at": megapixels,
        "tiles": f"{tiles} x {tiles}",
        "looks": counting.looks,
        "products": len(counted.detections),
        "read_ms": _round(reading),
        "network_ms": _round(network),
        "rest_ms": _round(rest),
        "ms": _round(reading + network + rest),
        "photo_mb": _round(image.nbytes / 1e6),
    }


def batches(bundle: Bundle, axes: Axes, photos: Sequence[np.ndarray]) -> dict[str, Any]:
    """Measure time and memory of one `shelfcount count` by its number of photos."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i in range(max(axes.batches)):
            paths.append(Path(folder) / f"{i}.jpg")
            write_photo(paths[-1], photos[i % len(photos)])
        for n in axes.batches:
            times, peaks = zip(
                *(command(bundle.path, paths[:n], Path(folder)) for _ in range(axes.few)),
                strict=True,
            )
            seconds = float(np.median(times))
            peak = None if None in peaks else _round(max(peaks))
            found.append(
                {
                    "at": n,
                    "s": _round(seconds),
                    "ms_a_photo": _round(1e3 * seconds / n),
                    "peak_mb": peak,
                }
            )
    return {
        "axis": "photos per command",
        "photo": "x".join(map(str, photos[0].shape[1::-1])),
        "threads": 1,
        "rows": found,
    }


def command(bundle: Path, photos: Sequence[Path], folder: Path) -> tuple[float, float | None]:
    """Run `shelfcount count` in a process of its own.

    Returns:
        Seconds, and peak memory in megabytes or None if the system does not report it.

    Raises:
        subprocess.CalledProcessError: If the command fails.
    """
    arguments = [sys.executable, "-m", "shelfcount", "count", str(bundle), *map(str, photos)]
    begin = time.perf_counter()
    process = subprocess.Popen(
        [*arguments, "--json", str(folder / "counts.json"), "--force", "--threads", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    peak = None
    while process.poll() is None:
        # wait4 reports at least the peak of the process that started this one, so it is not used.
        peak = resident_peak(process.pid) or peak
        time.sleep(POLL_S)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, arguments[:4])
    return time.perf_counter() - begin, peak


def resident_peak(process: int) -> float | None:
    """Return the peak memory of a process in megabytes, from proc(5) of Linux.

    Returns:
        None if the process has ended or the system has no proc(5).
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        # The unit is 1,024 bytes.
        return (
            next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6
        )
    except (OSError, StopIteration):
        return None


def _round(value: float) -> float:
    """Return a value rounded to four significant digits."""
    return float(f"{value:.4g}")


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
        result["photo_size"] = photo_sizes(bundle, axes, photos)
        step()
        result["batch"] = batches(bundle, axes, photos)
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
        write_whole(folder / "scaling.json", json.dumps({**head, **result}, indent=1) + "\n")
        write_whole(folder / "scaling.png", image)
    for part in result.values():
        for row in part["rows"]:
            print(f"{part['axis']}: {row}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
