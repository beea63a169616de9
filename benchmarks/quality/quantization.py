"""Measure the F1 that int8 costs, by calibration method and with quantization-aware training.

F1 is that of the .tflite files on the run's validation photos, with its corrected labels, at the
run's own score threshold. The test photos are not used.

    python benchmarks/quality/quantization.py RUN [--qat QAT_RUN] [--float FILE.tflite]

QAT_RUN is RUN fine-tuned with the settings of configs/drinks_qat.toml.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shelfcount.cli.console import progress_bar
from shelfcount.data.datasets import fingerprint
from shelfcount.deploy import convert, flatbuffer, ranges
from shelfcount.files import write_json
from shelfcount.metrics import uncertainty
from shelfcount.metrics.evaluate import evaluate_detector
from shelfcount.metrics.scoring import Evaluation
from shelfcount.records import Dataset, ModelSpec
from shelfcount.runtime.bundle import LiteRTDetector
from shelfcount.stamp import stamp
from shelfcount.training import inputs
from shelfcount.training.quantization_aware import FakeQuantized
from shelfcount.training.runs import Sources, load_run, normalise, read_sources
from shelfcount.vision.postprocess import LOWEST_SCORE

RESULTS = Path(__file__).parents[1] / "results"
SEED = 0
PHOTOS = (8, 32, 64, 128, 180)
# Percentiles of a tensor's values on one photo, cut off on both sides; 100 keeps all values.
PERCENTILES = (99.9, 99.99, 100.0)


def tensor(pixels: np.ndarray) -> torch.Tensor:
    """Return (H, W, 3) uint8 pixels as a (1, 3, H, W) network input."""
    return normalise(torch.from_numpy(pixels).permute(2, 0, 1)[None])


def labelled(sources: Sources) -> tuple[Dataset, Dataset]:
    """Read the training and validation photos of a run, with the corrections it was trained on."""
    if not sources.val:
        sys.exit("the run must have validation photos of its own")
    train, val, _ = inputs.training_data(sources, SEED)
    return train, val


# ---------------------------------------------------------------- calibration


@torch.no_grad()
def statistics(net: FakeQuantized, photos: Sequence[np.ndarray]) -> dict[float, np.ndarray]:
    """Return (photos, tensors, 2) lower and upper bounds of the float tensors, by percentile."""
    found: dict[float, list[Any]] = {percentile: [] for percentile in PERCENTILES}
    wanted = [side for percentile in PERCENTILES for side in (100 - percentile, percentile)]
    with progress_bar("calibrating") as advance, net.rounding(()):
        for done, photo in enumerate(photos, start=1):
            values = net.values(tensor(photo))
            bounds = np.array(
                [
                    np.percentile(values[name].numpy().ravel(), wanted, method="nearest")
                    for name in net.rounded
                ]
            )
            for i, percentile in enumerate(PERCENTILES):
                found[percentile].append(bounds[:, 2 * i : 2 * i + 2])
            advance(done, len(photos))
    return {percentile: np.stack(parts) for percentile, parts in found.items()}


def calibrations(seen: dict[float, np.ndarray]) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yield each method, its number of photos and the (tensors, 2) ranges it chooses."""
    for photos in PHOTOS:
        extremes = seen[100.0][:photos]
        yield (
            "minimum and maximum over all photos",
            photos,
            np.stack([extremes[..., 0].min(axis=0), extremes[..., 1].max(axis=0)], axis=1),
        )
        yield "mean of minimum and maximum", photos, extremes.mean(axis=0)
        for percentile in PERCENTILES[:-1]:
            yield f"mean of percentile {percentile}", photos, seen[percentile][:photos].mean(axis=0)


# ---------------------------------------------------------------- measuring


class FileScorer:
    """Evaluate .tflite files on one set of labelled photos and compare them with the float file."""

    def __init__(self, spec: ModelSpec, val: Dataset) -> None:
        self.spec, self.val = spec, val
        self.reference: Evaluation | None = None

    def row(self, method: str, model: bytes, **facts: Any) -> dict[str, Any]:
        """Evaluate a file with raw heads. The first one is the reference of all others."""
        finished = flatbuffer.add_input_and_postprocess(model, self.spec, LOWEST_SCORE)
        detector = LiteRTDetector(finished, self.spec, score_threshold=LOWEST_SCORE)
        result = evaluate_detector(detector, self.val, threshold=self.spec.score_threshold)
        self.reference = self.reference or result
        drop, error = f1_drop(self.reference, result)
        return {
            "method": method,
            **facts,
            "megabytes": round(len(finished) / 1e6, 3),
            "f1": round(result.micro.f1, 4),
            "map": result.map,
            "drop_points": round(100 * drop, 2),
            "drop_standard_error": round(100 * error, 2),
        }


def f1_drop(before: Evaluation, after: Evaluation) -> tuple[float, float]:
    """Return the F1 lost and its standard error, from paired bootstrap samples of the photos."""
    drops = uncertainty.bootstrap_f1_differences(
        uncertainty.photo_counts(before),
        uncertainty.photo_counts(after),
        np.random.default_rng(SEED),
    )
    return before.micro.f1 - after.micro.f1, float(drops.std())


def with_ranges(model: bytes, net: FakeQuantized, bounds: np.ndarray) -> bytes:
    """Return a converted file with other ranges for all tensors but the input."""
    net.ranges[1:] = torch.from_numpy(bounds[1:]).float()
    return ranges.store_ranges(model, ranges.of_network(model, net))


def measure(run: Path, qat: Path | None, converted: Path | None) -> dict[str, Any]:
    """Measure all quantization methods and return the result that is stored."""
    reference = load_run(run)
    spec = reference.spec
    train, val = labelled(read_sources(run))
    photos = inputs.calibration_photos(train, spec, max(PHOTOS), SEED)
    scorer = FileScorer(spec, val)
    net = FakeQuantized(reference.net).eval()
    model, _ = ranges.extract_ranges(
        converted.read_bytes() if converted else convert.to_litert(net, spec)
    )
    rows = [
        scorer.row("float32", model),
        scorer.row(
            "moving average, as in export",
            convert.quantize(model, "int8", photos[:64]),
            photos=len(photos[:64]),
        ),
    ]
    seen = statistics(net, photos)
    for method, count, bounds in calibrations(seen):
        rows.append(
            scorer.row(
                method,
                convert.quantize(with_ranges(model, net, bounds), "int8", []),
                photos=min(count, len(photos)),
            )
        )
    trained: dict[str, Any] = {}
    if qat:
        tuned = load_run(qat)
        model = convert.to_litert(tuned.net, tuned.spec)
        scorer.spec = tuned.spec
        rows.append(
            scorer.row(
                "quantization-aware training, before rounding",
                convert.quantize(model, "float32", []),
            )
        )
        rows.append(scorer.row("quantization-aware training", convert.quantize(model, "int8", [])))
        trained = dict(tuned.spec.provenance)
    data = {
        "name": Path(val.name).name,
        "fingerprint": fingerprint(val),
        "photos": len(val),
        "products": val.boxes,
    }
    return {
        "model": {"name": spec.name, "score_threshold": spec.score_threshold, **spec.provenance},
        "quantization_aware": trained,
        "data": data,
        "rows": rows,
        "stamp": stamp(seed=SEED, threads=torch.get_num_threads()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="Run to quantize.")
    parser.add_argument("--qat", type=Path, help="RUN fine-tuned with quantization-aware training.")
    parser.add_argument(
        "--float",
        type=Path,
        dest="converted",
        help="Float32 file of RUN with raw heads. Default: RUN is converted.",
    )
    arguments = parser.parse_args()
    result = measure(arguments.run, arguments.qat, arguments.converted)
    write_json(RESULTS / "quantization.json", result)
    for row in result["rows"]:
        photos = f"{row['photos']} photos" if "photos" in row else ""
        drop = (
            f"drop {row['drop_points']:+.2f} points "
            f"(standard error {row['drop_standard_error']:.2f})"
        )
        print(
            f"{row['method']:46} {photos:12} F1 {row['f1']:.4f}, {drop}, {row['megabytes']:.2f} MB"
        )


if __name__ == "__main__":
    main()
