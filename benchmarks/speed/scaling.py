"""What a count costs as the input, the classes, the products, the photo and the batch grow, and where that bends.

Networks here are untrained but for the last two parts: how long they take does not depend on their weights. They
have the bundle's architecture and anchors, and are exported to int8 as every bundle is. What the post-processing
operator gets is crafted, so that it finds as many products as are asked for. Photos are mosaics of the bundle's
golden photos, with products as large as tiling assumes.

    python benchmarks/speed/scaling.py [--bundle BUNDLE] [--short] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import functools
import io
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
import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from torch import nn

from shelfcount.config import ModelConfig
from shelfcount.console import steps
from shelfcount.deploy import convert, flatbuffer
from shelfcount.deploy.bundle import artifact
from shelfcount.evaluation.benchmark import Latency, latency, take_turns
from shelfcount.records import AnchorLevel, Detections, ModelSpec
from shelfcount.report.figures import BLUE, FAINT, GREY, INK, ORANGE
from shelfcount.runtime.bundle import Bundle, LiteRTDetector, read_bundle
from shelfcount.runtime.tiling import MOST_TILES_PER_SIDE, SMALLEST_PRODUCT_PX, tiles_per_side
from shelfcount.shelf.count import count_photo
from shelfcount.shelf.rows import rows
from shelfcount.stamp import stamp
from shelfcount.training.detector import build
from shelfcount.vision.images import encode_photo, read_photo, stretch, write_photo, write_whole

BENCHMARKS = Path(__file__).parents[1]
RELEASED = BENCHMARKS.parent / "export" / "release" / "drinks-int8"
SEED = 0
# Anchors that the released bundle gives a score above the file's own threshold, for each product it finds on its golden photos.
CANDIDATES = 11
# Places of products on a crafted shelf: 26 x 26 at an input of 416.
PLACE_PX = 16
# A bend: the power with which the cost grows changes by so much from one step to the next.
BEND = 0.3
# From one look at a process's memory to the next.
LOOK_S = 0.01
WARMUP = 3
Exporter = Callable[[int, int], tuple[bytes, ModelSpec]]


@dataclass(frozen=True)
class Plan:
    """How far each axis goes.

    Attributes:
        sizes: Input pixels a side; classes are the bundle's.
        classes: At an input of `class_size`.
        class_size: Pixels a side; with classes of the bundle's number, one of `sizes` serves here too.
        products: On one photo.
        megapixels: Of photos that are tiled.
        batches: Photos of one `shelfcount count`.
        runs: Counted runs of a network; photos and batches get `few`.
    """

    sizes: tuple[int, ...] = (224, 320, 416, 512, 640)
    classes: tuple[int, ...] = (10, 33, 100, 300, 1000)
    class_size: int = 416
    products: tuple[int, ...] = (10, 30, 100, 200, 300, 500)
    megapixels: tuple[int, ...] = (1, 2, 4, 8, 12, 24, 50)
    batches: tuple[int, ...] = (1, 4, 16, 64, 256)
    runs: int = 40
    few: int = 3


SHORT = Plan(
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
    """Makes int8 files of the bundle's architecture with random weights, each once: by input pixels a side and classes."""

    @functools.cache
    def make(size: int, classes: int) -> tuple[bytes, ModelSpec]:
        torch.manual_seed(SEED)
        names = tuple(f"product {i}" for i in range(classes))
        spec = ModelSpec(f"{size}-{classes}", like.architecture, names, size, size, like.levels)
        net = build(like.architecture, classes, like.levels, ModelConfig().neck).eval()
        return artifact(
            convert.to_litert(net, spec),
            spec,
            "int8",
            [stretch(photo, size, size) for photo in photos],
        ), spec

    return make


def columns(found: Sequence[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """What grows, and milliseconds."""
    return [row["at"] for row in found], [row["ms"] for row in found]


def network_row(model: bytes) -> dict[str, Any]:
    """What a file says of its own cost."""
    return {
        "mb": _round(len(model) / 1e6),
        "gmac": _round(flatbuffer.count_macs(model) / 1e9),
        "largest_tensor_mb": _round(largest_tensor(model) / 1e6),
    }


def largest_tensor(model: bytes) -> int:
    """Bytes of the largest tensor that is written while the file runs."""
    read = flatbuffer.read(model)
    graph = read.subgraphs[0]
    # By flatbuffers' schema: FLOAT32 0, INT32 2, UINT8 3, INT8 9; nothing else is written in these files.
    width = {0: 4, 2: 4, 3: 1, 9: 1}
    written = {index for op in graph.operators for index in op.outputs}
    return max(int(np.prod(graph.tensors[i].shape)) * width[graph.tensors[i].type] for i in written)


def networks(
    models: dict[int, tuple[bytes, ModelSpec]], runs: int, photo: np.ndarray
) -> list[dict[str, Any]]:
    """A row for each network."""
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
    """The function on these arguments, as milliseconds."""

    def call() -> float:
        begin = time.perf_counter()
        function(*arguments)
        return (time.perf_counter() - begin) * 1e3

    return call


def in_turn(calls: dict[str, Callable[[], float]], runs: int) -> dict[str, Latency]:
    """Percentiles of each; all run in turn, so that a slow minute hits all."""
    times = take_turns(calls, dict.fromkeys(calls, runs), warmup=WARMUP)
    return {name: latency(values, WARMUP, 1) for name, values in times.items()}


def input_sizes(make: Exporter, classes: int, plan: Plan, photo: np.ndarray) -> dict[str, Any]:
    """Latency against input pixels."""
    found = networks({size: make(size, classes) for size in plan.sizes}, plan.runs, photo)
    first, last = found[0], found[-1]
    said = [
        power_sentence(*columns(found), "pixels a side", "area", 2),
        f"Work grows with the area ({first['gmac']:g} to {last['gmac']:g} GMAC); {_speed(first, last)}. "
        f"The largest tensor grows from {first['largest_tensor_mb']:g} to {last['largest_tensor_mb']:g} MB{_cache()}.",
    ]
    return {
        "axis": "input pixels a side",
        "classes": classes,
        "threads": 1,
        "rows": found,
        "says": said,
    }


def _speed(first: dict[str, Any], last: dict[str, Any]) -> str:
    low, high = first["gmac_per_s"], last["gmac_per_s"]
    word = (
        "stays near" if abs(high / low - 1) < 0.1 else "falls from" if high < low else "rises from"
    )
    return (
        f"throughput {word} {low:.0f}"
        + (f" to {high:.0f}" if word != "stays near" else "")
        + " GMAC/s"
    )


def _cache() -> str:
    """The second-level cache of this machine, where Linux tells."""
    try:
        return f", and a core's second-level cache holds {Path('/sys/devices/system/cpu/cpu0/cache/index2/size').read_text().strip()}"
    except OSError:
        return ""


def class_counts(make: Exporter, plan: Plan, photo: np.ndarray) -> dict[str, Any]:
    """Latency against classes."""
    found = networks({n: make(plan.class_size, n) for n in plan.classes}, plan.runs, photo)
    first, last = found[0], found[-1]
    macs = (last["gmac"] - first["gmac"]) / (last["at"] - first["at"])
    said = [
        line_sentence(*columns(found), "class", "classes"),
        f"A class costs {1e3 * macs:.2g} million multiply-accumulates in the last convolution, and one score for each anchor to be "
        f"squashed and searched. The largest tensor has {first['largest_tensor_mb']:g} MB for {first['at']:,} classes and "
        f"{last['largest_tensor_mb']:g} MB for {last['at']:,}.",
    ]
    return {"axis": "classes", "input": plan.class_size, "threads": 1, "rows": found, "says": said}


# ---------------------------------------------------------------------------- products


class Painted(nn.Module):
    """Finds a product of the first class at each bright place: scores are what is painted, boxes the anchors."""

    def __init__(self, classes: int, anchors: int) -> None:
        super().__init__()
        self.classes, self.anchors = classes, anchors
        self.pool = nn.AvgPool2d(PLACE_PX)
        self.score = nn.Conv2d(3, anchors * classes, 1)
        self.place = nn.Conv2d(3, anchors * 4, 1)
        with torch.no_grad():
            # Bright is 1: the first class gets a score of 0.99, the others of 0.02; dark gives all 0.0001 and less.
            logits = torch.full((anchors, classes), -4.0)
            logits[:, 0] = 4.6
            self.score.weight.copy_(
                (logits[:, :, None] + 9).expand(-1, -1, 3).reshape(-1, 3, 1, 1) / 6
            )
            self.score.bias.copy_((logits - 9).reshape(-1) / 2)
            self.place.weight.zero_()
            self.place.bias.zero_()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pooled = self.pool(x)
        heads = [(self.place(pooled), 4), (self.score(pooled), self.classes)]
        location, scores = (
            head.permute(0, 2, 3, 1).reshape(x.shape[0], -1, width) for head, width in heads
        )
        return location, scores


def crafted_level() -> AnchorLevel:
    """`CANDIDATES` anchors at each place: each overlaps the next size by more than suppression allows, and no neighbour."""
    sides = np.linspace(0.75, 1, CANDIDATES) * PLACE_PX
    return AnchorLevel(PLACE_PX, tuple((float(side), float(side)) for side in sides))


def crafted(size: int, classes: int) -> LiteRTDetector:
    """A file that finds what is painted, with post-processing inside as in every bundle's."""
    spec = ModelSpec(
        "painted",
        "painted",
        tuple(f"product {i}" for i in range(classes)),
        size,
        size,
        (crafted_level(),),
    )
    return LiteRTDetector(
        artifact(convert.to_litert(Painted(classes, CANDIDATES), spec), spec, "float32", []), spec
    )


def painted(size: int, products: int) -> np.ndarray:
    """A dark photo with bright places, in rows from the top."""
    across = size // PLACE_PX
    bright = (np.arange(across**2) < products).reshape(across, across)
    return (
        np.repeat(bright.repeat(PLACE_PX, 0).repeat(PLACE_PX, 1)[..., None], 3, axis=2).astype(
            np.uint8
        )
        * 255
    )


def product_counts(bundle: Bundle, plan: Plan) -> dict[str, Any]:
    """Cost of what comes behind the network: the operator in the file, and rows and positions."""
    size, classes = bundle.spec.width, len(bundle.spec.classes)
    detector = crafted(size, classes)
    photos = {n: painted(size, n) for n in (0, *plan.products)}
    seen = {n: detector.detect(photo) for n, photo in photos.items()}
    calls = {f"file {n}": _call(detector.invoke, photo) for n, photo in photos.items()}
    calls |= {f"rows {n}": _call(rows, found.boxes) for n, found in seen.items()}
    latencies = in_turn(calls, plan.runs)
    # The cheapest, as a few products take no longer than none, within noise.
    least = min(latencies[f"file {n}"].p50 for n in photos)
    found = []
    for n in plan.products:
        file, placing = latencies[f"file {n}"].p50, latencies[f"rows {n}"].p50
        row = {
            "at": n,
            "found": len(seen[n]),
            "file_ms": file,
            "suppression_ms": _round(file - least),
            "rows_ms": placing,
        }
        found.append({**row, "ms": _round(file - least + placing)})
    most = detector.spec.max_detections
    share = found[-1]["rows_ms"] / found[-1]["ms"]
    said = [
        power_sentence(*columns(found), "products", "products"),
        f"At {found[-1]['at']} products, rows and positions take {100 * share:.0f} % of it, suppression the rest.",
    ]
    if lost := [row for row in found if row["found"] < row["at"]]:
        said.append(
            f"Of {lost[0]['at']} products the file gives {lost[0]['found']}: it holds {most} detections (export.max_detections). What "
            "stands beyond them is lost, and costs only suppression. Large photos are tiled, and each tile has as many."
        )
    return {
        "axis": "products on one photo",
        "input": size,
        "candidates_a_product": CANDIDATES,
        "most": most,
        "rows": found,
        "says": said,
    }


# ---------------------------------------------------------------------------- photos and batches


class Counting:
    """A detector that knows how often it was asked, and how many seconds it took."""

    def __init__(self, detector: LiteRTDetector) -> None:
        self.detector, self.spec, self.looks, self.seconds = detector, detector.spec, 0, 0.0

    def detect(self, image: np.ndarray) -> Detections:
        begin = time.perf_counter()
        found = self.detector.detect(image)
        self.looks, self.seconds = self.looks + 1, self.seconds + time.perf_counter() - begin
        return found


def mosaic(detector: LiteRTDetector, photos: Sequence[np.ndarray], megapixels: float) -> np.ndarray:
    """A 4:3 photo of so many megapixels full of products of the size that tiling is made for."""
    height = round(math.sqrt(megapixels * 1e6 * 3 / 4))
    width = round(height * 4 / 3)
    tiles = []
    for photo in photos:
        boxes = detector.detect(photo).boxes
        side = float(np.median(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))))
        tiles.append(
            cv2.resize(photo, None, fx=SMALLEST_PRODUCT_PX / side, fy=SMALLEST_PRODUCT_PX / side)
        )
    edge = min(min(tile.shape[:2]) for tile in tiles)
    across, down = math.ceil(width / edge), math.ceil(height / edge)
    lines = [
        np.concatenate([tiles[(x + y) % len(tiles)][:edge, :edge] for x in range(across)], axis=1)
        for y in range(down)
    ]
    return np.ascontiguousarray(np.concatenate(lines)[:height, :width])


def photo_sizes(bundle: Bundle, plan: Plan, photos: Sequence[np.ndarray]) -> dict[str, Any]:
    """Cost of one photo, from the file to the counts, against its megapixels."""
    detector = LiteRTDetector.open(bundle)
    with tempfile.TemporaryDirectory() as folder:
        paths = {megapixels: Path(folder) / f"{megapixels}.jpg" for megapixels in plan.megapixels}
        for megapixels, path in paths.items():
            write_whole(path, encode_photo(mosaic(detector, photos, megapixels)))
        found = [
            photo_row(detector, megapixels, path, plan.few) for megapixels, path in paths.items()
        ]
    first, last = found[0], found[-1]
    largest = {row["tiles"]: row["at"] for row in found}
    cuts = ", ".join(f"{tiles} up to {megapixels:g}" for tiles, megapixels in largest.items())
    said = [
        power_sentence(*columns(found), "megapixels", "megapixels"),
        f"It grows in steps, with the tiles that keep a product of {SMALLEST_PRODUCT_PX:.0f} pixels in sight: {cuts} megapixels. "
        f"The network looks {first['looks']} and {last['looks']} times at the smallest and the largest, which is "
        f"{100 * first['network_ms'] / first['ms']:.0f} and {100 * last['network_ms'] / last['ms']:.0f} % of the time.",
    ]
    if last["tiles"] == f"{MOST_TILES_PER_SIDE} x {MOST_TILES_PER_SIDE}":
        said.append(
            "There are no finer tiles; beyond, only reading grows, and small products get lost."
        )
    return {"axis": "megapixels of a photo", "threads": 1, "rows": found, "says": said}


def photo_row(detector: LiteRTDetector, megapixels: float, path: Path, runs: int) -> dict[str, Any]:
    """Reading, looking and all the rest of one photo, medians over the runs."""
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


def batches(bundle: Bundle, plan: Plan, photos: Sequence[np.ndarray]) -> dict[str, Any]:
    """Time and memory of one `shelfcount count` against the photos it is given."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i in range(max(plan.batches)):
            paths.append(Path(folder) / f"{i}.jpg")
            write_photo(paths[-1], photos[i % len(photos)])
        for n in plan.batches:
            times, peaks = zip(
                *(command(bundle.path, paths[:n], Path(folder)) for _ in range(plan.few)),
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
    said = [
        line_sentence(
            [row["at"] for row in found], [1e3 * row["s"] for row in found], "photo", "photos"
        ),
        "The fixed part is the start of Python and of LiteRT, once a command.",
    ]
    if found[0]["peak_mb"] is not None and found[-1]["peak_mb"] is not None:
        held = (found[-1]["peak_mb"] - found[0]["peak_mb"]) / (found[-1]["at"] - found[0]["at"])
        said.append(
            f"Photos are read one at a time: the peak of memory grows by {max(held, 0):.2f} MB a photo."
        )
    return {
        "axis": "photos of one count",
        "photo": "x".join(map(str, photos[0].shape[1::-1])),
        "threads": 1,
        "rows": found,
        "says": said,
    }


def command(bundle: Path, photos: Sequence[Path], folder: Path) -> tuple[float, float | None]:
    """Seconds and peak megabytes of one `shelfcount count` in a process of its own; None where the system does not tell."""
    arguments = [sys.executable, "-m", "shelfcount.cli", "count", str(bundle), *map(str, photos)]
    begin = time.perf_counter()
    process = subprocess.Popen(
        [*arguments, "--json", str(folder / "counts.json"), "--force", "--threads", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    peak = None
    while process.poll() is None:
        # Not what wait4 tells: there, a child's peak is at least that of the process that started it.
        peak = resident_peak(process.pid) or peak
        time.sleep(LOOK_S)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, arguments[:4])
    return time.perf_counter() - begin, peak


def resident_peak(process: int) -> float | None:
    """Megabytes that a process held at most until now (Linux, proc(5)); None where it ended or the system does not tell."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        # In kilobytes of 1,024.
        return (
            next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6
        )
    except (OSError, StopIteration):
        return None


# ---------------------------------------------------------------------------- what the rows say


def powers(x: Sequence[float], y: Sequence[float]) -> np.ndarray:
    """(n - 1,) the power of x with which y grows, from each row to the next; 1 is 'twice x, twice y'."""
    return np.diff(np.log(np.maximum(y, 1e-6))) / np.diff(np.log(x))


def line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Fixed part and slope of y = fixed + slope * x, fitted so that each row's relative error counts alike."""
    columns = (
        np.stack([np.ones(len(x)), np.asarray(x, float)], axis=1) / np.asarray(y, float)[:, None]
    )
    fixed, slope = np.linalg.lstsq(columns, np.ones(len(x)), rcond=None)[0]
    return float(fixed), float(slope)


def power_sentence(
    x: Sequence[float], y: Sequence[float], unit: str, of: str, power: float = 1
) -> str:
    """How milliseconds grow, and where the power changes most.

    Args:
        x: What grows, in `unit`.
        y: Milliseconds.
        unit: Behind a number of x.
        of: What the power is of: x to the `power`, such as the area of a side.
    """
    steps_ = powers(x, y) / power
    whole = float(powers([x[0], x[-1]], [y[0], y[-1]])[0]) / power
    overall = f"From {x[0]:g} to {x[-1]:g} {unit} the time grows {y[-1] / max(y[0], 1e-6):.1f} times ({_ms(y[0])} to {_ms(y[-1])} ms)"
    changes = np.diff(steps_)
    if not len(changes) or np.abs(changes).max() < BEND:
        return f"{overall}, with the power {whole:.2f} of the {of} throughout: no bend."
    at = int(np.abs(changes).argmax())
    return f"{overall}. It bends at {x[at + 1]:g}: power {steps_[at]:.2f} of the {of} before, {steps_[at + 1]:.2f} behind."


def line_sentence(x: Sequence[float], y: Sequence[float], one: str, many: str) -> str:
    """A fixed part and a growing one: the bend is where they are equal."""
    fixed, each = line(x, y)
    if fixed <= 0 or each <= 0:
        return f"The time fits no fixed part and a growing one ({_ms(fixed)} ms and {each:.3g} ms for each {one}): no bend in this range."
    at = fixed / each
    where = (
        f"It bends at {at:,.0f} {many}"
        if at <= x[-1]
        else f"It would bend at {at:,.0f} {many}, beyond the {x[-1]:,} measured"
    )
    return f"The time fits {_ms(fixed)} ms and {each:.3g} ms for each {one}. {where}: below, the fixed part is most of it, above, the {many}."


def _ms(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _round(value: float) -> float:
    return float(f"{value:.4g}")


# ---------------------------------------------------------------------------- picture


def picture(result: dict[str, Any]) -> bytes:
    """A panel for each axis, both scales logarithmic; PNG bytes."""
    shown = [
        ("input_size", "network, ms", "ms"),
        ("classes", "network, ms", "ms"),
        ("products", "suppression, rows and positions, ms", "ms"),
        ("photo_size", "a photo from file to counts, ms", "ms"),
        ("batch", "shelfcount count, ms a photo", "ms_a_photo"),
    ]
    style: Any = {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.color": INK,
        "axes.edgecolor": GREY,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(11.5, 6.4), layout="constrained")
        axes = figure.subplots(2, 3).ravel()
        for ax, (part, title, key) in zip(axes, shown, strict=False):
            panel(ax, result[part]["rows"], key, title, result[part]["axis"])
        most = result["products"]["most"]
        if result["products"]["rows"][-1]["at"] > most:
            axes[2].axvline(most, color=ORANGE, linestyle="--", linewidth=1.2)
            place = {
                "xytext": (4, 8),
                "textcoords": "offset points",
                "rotation": 90,
                "ha": "left",
                "va": "bottom",
            }
            axes[2].annotate(
                "most that a file gives", (most, axes[2].get_ylim()[0]), color=ORANGE, **place
            )
        axes[-1].axis("off")
        about = f"Median times, one thread,\n{result['stamp']['device']}.\n\nDotted: growth in proportion,\nto the area for the input's side."
        axes[-1].text(0, 0.5, about, va="center")
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=150, metadata={"Software": None})
    return data.getvalue()


def panel(ax: Axes, found: Sequence[dict[str, Any]], key: str, title: str, label: str) -> None:
    """One axis: its rows, and for comparison growth in proportion."""
    x, y = [row["at"] for row in found], [row[key] for row in found]
    ax.set(xscale="log", yscale="log", xlabel=label)
    ax.set_title(title, loc="left", fontsize=10)
    if key == "ms":
        # A side twice as long is four times the area.
        power = 2 if label.endswith("a side") else 1
        ax.plot(x, [y[0] * (v / x[0]) ** power for v in x], ":", color=GREY, linewidth=1.2)
    ax.plot(x, y, "o-", color=BLUE, markersize=4)
    for a, b in zip(x, y, strict=True):
        ax.annotate(
            _ms(b), (a, b), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8
        )
    ax.set_xticks(x, [f"{v:,}" for v in x])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:,g}")
    ax.yaxis.set_minor_locator(NullLocator())
    ax.margins(0.12, 0.2)
    ax.grid(color=FAINT)
    ax.set_axisbelow(True)


# ---------------------------------------------------------------------------- all of it


def measure(bundle: Bundle, plan: Plan) -> dict[str, Any]:
    """Every axis in turn, each with its rows and what they say."""
    photos = [read_photo(path) for path in sorted((bundle.path / "golden").glob("*.jpg"))]
    titles = ("input sizes", "classes", "products on a photo", "photo sizes", "photos of a batch")
    with steps(*titles) as step:
        step()
        make = exporter(bundle.spec, photos)
        result = {"input_size": input_sizes(make, len(bundle.spec.classes), plan, photos[0])}
        step()
        result["classes"] = class_counts(make, plan, photos[0])
        step()
        result["products"] = product_counts(bundle, plan)
        step()
        result["photo_size"] = photo_sizes(bundle, plan, photos)
        step()
        result["batch"] = batches(bundle, plan, photos)
    return result


def main() -> int:
    """Measure, write the result and its picture, and print what it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        default=RELEASED,
        help="whose architecture, anchors and golden photos are taken",
    )
    parser.add_argument(
        "--short", action="store_true", help="two points an axis and few runs, to see that it works"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for scaling.json and scaling.png; `results` here, or none with --short",
    )
    given = parser.parse_args()
    bundle = read_bundle(given.bundle)
    result = measure(bundle, SHORT if given.short else Plan())
    head = {
        "bundle": {"name": bundle.name, "sha256": bundle.sha256},
        "short": given.short,
        "stamp": stamp(seed=SEED, threads=1),
    }
    image = picture({**head, **result})
    if folder := given.out or (None if given.short else BENCHMARKS / "results"):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "scaling.json", json.dumps({**head, **result}, indent=1) + "\n")
        write_whole(folder / "scaling.png", image)
    for part in result.values():
        print(f"{part['axis']}: {' '.join(part['says'])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
