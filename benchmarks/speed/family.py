"""Measure size, work and latency of every architecture, and the operators of two of them.

    python benchmarks/speed/family.py [--sizes 320 416] [--runs 100]

Size and latency follow from the operators and not from the weights, so the networks have random
weights. The suppression at the end therefore finds no detections. Its time is part of the latency
of trained bundles. Writes benchmarks/results/family.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from shelfcount.deploy import bundle, convert, inspection
from shelfcount.deploy.inspection import counted_names
from shelfcount.files import write_json
from shelfcount.records import AnchorLevel, ModelSpec
from shelfcount.runtime.bundle import LiteRTDetector
from shelfcount.speed import operator_profile
from shelfcount.speed.model_rows import SPREAD, time_interleaved
from shelfcount.stamp import stamp
from shelfcount.training.backbones import FAMILY
from shelfcount.training.networks import build
from shelfcount.vision.images import write_photo

RESULT = Path(__file__).parents[1] / "results" / "family.json"
CLASSES = 33
NECK = 96
# Anchors for 416 pixels, fitted to the drinks photos: export/release/drinks-int8/model.json.
LEVELS_416 = ((8, 56.0, 30.5), (16, 93.5, 53.8))
WARMUP = 10
# Architectures whose operators are profiled: MobileNetV2, and the one that was made from it.
PROFILED = ("mobilenet_v2", "mobilenet_v2_fused")


def network(architecture: str, spec: ModelSpec, neck: int) -> nn.Module:
    """Return a network with random weights and the batch statistics of its own activations.

    As in a trained network, no range of an activation is empty then.
    """
    torch.manual_seed(0)
    net = build(architecture, len(spec.classes), spec.levels, neck)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # statistics of one batch
    with torch.no_grad():
        net.train()(torch.rand(2, 3, spec.height, spec.width) * 2 - 1)
    return net.eval()


def files(architecture: str, size: int, neck: int) -> tuple[ModelSpec, dict[str, bytes]]:
    """Export the main artifact in float32 and int8."""
    levels = tuple(
        AnchorLevel(stride, ((h * size / 416, w * size / 416),)) for stride, h, w in LEVELS_416
    )
    spec = ModelSpec(
        f"{architecture}-{size}",
        architecture,
        tuple(f"c{i}" for i in range(CLASSES)),
        size,
        size,
        levels,
    )
    model = convert.to_litert(network(architecture, spec, neck), spec)
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(2)]
    return spec, {
        recipe: bundle.main_artifact(model, spec, recipe, photos) for recipe in ("float32", "int8")
    }


def timed(detector: LiteRTDetector, pixels: np.ndarray) -> Callable[[], float]:
    """Return a function that runs the file once and returns milliseconds."""

    def call() -> float:
        begin = time.perf_counter()
        detector.invoke(pixels)
        return 1000 * (time.perf_counter() - begin)

    return call


def profiled(data: bytes, size: int, runs: int) -> list[dict[str, Any]]:
    """Return milliseconds by kind of operator, as `operator_profile.by_kind` adds them up."""
    with tempfile.TemporaryDirectory() as folder:
        model, photo = Path(folder) / "model.tflite", Path(folder) / "noise.png"
        model.write_bytes(data)
        write_photo(
            photo, np.random.default_rng(1).integers(0, 256, (size, size, 3), dtype=np.uint8)
        )
        return operator_profile.by_kind(
            operator_profile.profile(model, photo, (size, size), runs=runs, threads=1).operators
        )


def main() -> None:
    """Export all files, then time them alternately, so that a slow minute affects all of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[320, 416], help="Input sides in pixels."
    )
    parser.add_argument(
        "--runs", type=int, default=100, help="Timed runs of each file. Default: 100."
    )
    parser.add_argument("--only", nargs="*", help="Architectures. Default: all.")
    parser.add_argument("--out", type=Path, default=RESULT, help="Result to write.")
    options = parser.parse_args()
    rows, calls, operators = {}, {}, []
    for size in options.sizes:
        for architecture in options.only or FAMILY:
            spec, made = files(architecture, size, NECK)
            for recipe, data in made.items():
                key = f"{architecture} {size} {recipe}"
                rows[key] = {
                    "model": architecture,
                    "size": size,
                    "recipe": recipe,
                    "bytes": len(data),
                    "gmac": round(inspection.count_macs(data) / 1e9, 4),
                    "outside_xnnpack": sorted(set(inspection.undelegated_operators(data))),
                    "moving": counted_names(inspection.data_movement_operators(data)),
                    "partitions": inspection.partitions(data),
                }
                pixels = np.random.default_rng(1).integers(0, 256, (size, size, 3), dtype=np.uint8)
                calls[key] = timed(LiteRTDetector(data, spec, threads=1), pixels)
                if recipe == "int8" and architecture in PROFILED:
                    operators.append(
                        {
                            "model": architecture,
                            "size": size,
                            "kinds": profiled(data, size, options.runs),
                        }
                    )
                print(f"{key}: {len(data) / 1e6:.2f} MB", flush=True)
    times = time_interleaved(calls, dict.fromkeys(calls, options.runs), warmup=WARMUP)
    for key, row in rows.items():
        row["ms"] = dict(
            zip(
                ("p10", "p50", "p90"),
                np.percentile(times[key], SPREAD).round(3).tolist(),
                strict=True,
            )
        )
        row["runs"] = options.runs
    result = {
        "stamp": stamp(seed=0, threads=1),
        "classes": CLASSES,
        "neck": NECK,
        "rows": list(rows.values()),
        "operators": operators,
    }
    write_json(options.out, result)
    for row in rows.values():
        name = f"{row['model']:20s} {row['size']} {row['recipe']:8s}"
        print(
            f"{name} {row['bytes'] / 1e6:6.2f} MB {row['gmac']:.3f} GMAC {row['ms']['p50']:.2f} ms"
        )


if __name__ == "__main__":
    main()
