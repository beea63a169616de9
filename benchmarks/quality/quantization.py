"""What int8 costs and what mends it: calibration by several methods, mixed precision by sensitivity, quantization-aware training.

F1 is that of the .tflite files on the run's validation photos, with its corrected labels, at the run's own score
threshold; the test photos choose nothing.

    python benchmarks/quality/quantization.py RUN [--qat QAT_RUN] [--float FILE.tflite]

QAT_RUN is RUN fine-tuned with the settings of configs/drinks_qat.toml.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from shelfcount.console import bar
from shelfcount.data.corrections import apply, read_corrections
from shelfcount.data.formats import aligned, fingerprint, read
from shelfcount.deploy import bundle, convert, flatbuffer, ranges, sensitivity
from shelfcount.deploy.sensitivity import Sensitivity
from shelfcount.evaluation.metrics import Evaluation, evaluate
from shelfcount.records import Dataset, ModelSpec
from shelfcount.runtime.bundle import LOWEST_SCORE, LiteRTDetector
from shelfcount.stamp import stamp
from shelfcount.training.fake_quant import FakeQuantized
from shelfcount.training.runs import Sources, load_run, normalise, read_sources
from shelfcount.vision.images import write_whole

RESULTS = Path(__file__).parents[1] / "results"
SEED = 0
PHOTOS = (8, 32, 64, 128, 180)
# Of what a tensor holds on one photo, both sides; 100 is the least and greatest value.
PERCENTILES = (99.9, 99.99, 100.0)
SPARED = (2, 4, 8, 16)
SENSITIVITY_PHOTOS = 4
DRAWS = 2000
SHOWN = 10


def tensor(pixels: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 to what a network sees, (1, 3, H, W)."""
    return normalise(torch.from_numpy(pixels).permute(2, 0, 1)[None])


def labelled(sources: Sources) -> tuple[Dataset, Dataset]:
    """Training and validation photos of a run, with the corrections it was trained on."""
    datasets = []
    for source in (
        sources.train,
        sources.val or sys.exit("the run must have validation photos of its own"),
    ):
        data = read(source, class_names=sources.class_names)
        for corrections in map(read_corrections, sources.corrections):
            data = apply(data, corrections) if corrections.data == Path(source).name else data
        datasets.append(data)
    train, val = aligned(*datasets)
    return train, val


# ---------------------------------------------------------------- calibration


@torch.no_grad()
def statistics(net: FakeQuantized, photos: Sequence[np.ndarray]) -> dict[float, np.ndarray]:
    """By percentile, (photos, tensors, 2) the lower and upper bound of each tensor on each photo, of the float network."""
    found: dict[float, list[Any]] = {percentile: [] for percentile in PERCENTILES}
    wanted = [side for percentile in PERCENTILES for side in (100 - percentile, percentile)]
    with bar("calibrating") as advance, net.rounding(()):
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
    """Method, photos and (tensors, 2) ranges."""
    for photos in PHOTOS:
        extremes = seen[100.0][:photos]
        yield (
            "widest of all photos",
            photos,
            np.stack([extremes[..., 0].min(axis=0), extremes[..., 1].max(axis=0)], axis=1),
        )
        yield "mean of least and greatest", photos, extremes.mean(axis=0)
        for percentile in PERCENTILES[:-1]:
            yield f"mean of percentile {percentile}", photos, seen[percentile][:photos].mean(axis=0)


# ---------------------------------------------------------------- measuring


class Judge:
    """Files against one set of labelled photos, and against the float file."""

    def __init__(self, spec: ModelSpec, val: Dataset) -> None:
        self.spec, self.val = spec, val
        self.reference: Evaluation | None = None

    def row(self, method: str, model: bytes, **facts: Any) -> dict[str, Any]:
        """Figures of a quantized file with raw heads; the first is the one that others are compared with."""
        finished = flatbuffer.finish(model, self.spec, LOWEST_SCORE)
        detector = LiteRTDetector(finished, self.spec, score_threshold=LOWEST_SCORE)
        result = evaluate(detector, self.val, threshold=self.spec.score_threshold)
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
    """F1 lost and its standard error, by drawing photos anew, the same ones for both."""
    counts = np.array(
        [
            [(p.score.tp, p.score.truth + p.score.found) for p in side.photos]
            for side in (before, after)
        ],
        np.float64,
    )
    draws = np.random.default_rng(SEED).integers(0, counts.shape[1], (DRAWS, counts.shape[1]))
    sums = counts[:, draws].sum(axis=2)
    drops = np.diff(2 * sums[..., 0] / sums[..., 1], axis=0)
    return before.micro.f1 - after.micro.f1, float(drops.std())


def with_ranges(model: bytes, net: FakeQuantized, bounds: np.ndarray) -> bytes:
    """A converted file with other ranges; the pixels keep theirs."""
    net.ranges[1:] = torch.from_numpy(bounds[1:]).float()
    return ranges.put(model, ranges.of_network(model, net))


def measure(
    run: Path, qat: Path | None, converted: Path | None
) -> tuple[dict[str, Any], list[Sensitivity]]:
    """All rows of the result, and the sensitivity of each step."""
    reference = load_run(run)
    spec = reference.spec
    train, val = labelled(read_sources(run))
    photos = bundle.calibration_photos(train, spec, max(PHOTOS), SEED)
    judge = Judge(spec, val)
    net = FakeQuantized(reference.net).eval()
    model, _ = ranges.take(converted.read_bytes() if converted else convert.to_litert(net, spec))
    rows = [
        judge.row("float32", model),
        judge.row(
            "moving average, as export",
            convert.quantize(model, "int8", photos[:64]),
            photos=len(photos[:64]),
        ),
    ]
    seen = statistics(net, photos)
    for method, count, bounds in calibrations(seen):
        rows.append(
            judge.row(
                method,
                convert.quantize(with_ranges(model, net, bounds), "int8", []),
                photos=min(count, len(photos)),
            )
        )
    plain = with_ranges(model, net, seen[100.0][:64].mean(axis=0))
    with bar("rounding one step at a time") as advance:
        everything, alone = sensitivity.by_step(
            net, [tensor(photo) for photo in photos[:SENSITIVITY_PHOTOS]], advance
        )
    for most in SPARED:
        kept = sensitivity.kept_float(model, net, alone, most)
        rows.append(
            judge.row(
                "mixed precision",
                convert.quantize(plain, "int8", [], kept),
                spared=most,
                float_tensors=len(kept),
            )
        )
    trained: dict[str, Any] = {}
    if qat:
        tuned = load_run(qat)
        model = convert.to_litert(tuned.net, tuned.spec)
        judge.spec = tuned.spec
        rows.append(
            judge.row(
                "quantization-aware training, before rounding",
                convert.quantize(model, "float32", []),
            )
        )
        rows.append(judge.row("quantization-aware training", convert.quantize(model, "int8", [])))
        trained = dict(tuned.spec.provenance)
    data = {
        "name": Path(val.name).name,
        "fingerprint": fingerprint(val),
        "photos": len(val),
        "products": val.boxes,
    }
    result = {
        "model": {"name": spec.name, "score_threshold": spec.score_threshold, **spec.provenance},
        "quantization_aware": trained,
        "data": data,
        "rows": rows,
        "sensitivity": {
            "photos": SENSITIVITY_PHOTOS,
            "all_db": {"location": everything.location, "scores": everything.scores},
            "alone": [
                {
                    "step": one.step,
                    "kind": one.kind,
                    "location_db": one.location,
                    "scores_db": one.scores,
                }
                for one in alone
            ],
        },
        "stamp": stamp(seed=SEED, threads=torch.get_num_threads()),
    }
    return result, alone


# ---------------------------------------------------------------- showing


def picture(result: dict[str, Any]) -> Figure:
    """The most sensitive steps: signal to noise of the outputs when one alone is rounded."""
    worst = result["sensitivity"]["alone"][:SHOWN]
    together = result["sensitivity"]["all_db"]
    figure = Figure(figsize=(8, 0.36 * len(worst) + 1.5), layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(worst))
    for offset, key, colour in ((-0.19, "location", "#0072B2"), (0.19, "scores", "#E69F00")):
        axes.barh(
            places + offset, [one[f"{key}_db"] for one in worst], 0.36, color=colour, label=key
        )
        axes.axvline(together[key], color=colour, linestyle="--", linewidth=1)
    axes.set_yticks(places, [one["step"] for one in worst], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("signal to quantization noise, dB; dashed: all operators rounded")
    axes.set_title(
        "The operators whose rounding costs most, each rounded alone", loc="left", fontsize=10
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *axes.get_legend_handles_labels(), frameon=False, loc="outside upper right", ncols=2
    )
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--qat", type=Path)
    parser.add_argument(
        "--float",
        type=Path,
        dest="converted",
        help="float32 file of RUN with raw heads; converted anew without it",
    )
    arguments = parser.parse_args()
    result, alone = measure(arguments.run, arguments.qat, arguments.converted)
    write_whole(RESULTS / "quantization.json", json.dumps(result, indent=1))
    with matplotlib.rc_context({"font.family": "DejaVu Sans"}):
        picture(result).savefig(RESULTS / "quantization.png", dpi=150, metadata={"Software": None})
    for row in result["rows"]:
        facts = ", ".join(f"{key} {row[key]}" for key in ("photos", "spared") if key in row)
        drop = f"drop {row['drop_points']:+.2f} points (standard error {row['drop_standard_error']:.2f})"
        print(
            f"{row['method']:46} {facts:12} F1 {row['f1']:.4f}, {drop}, {row['megabytes']:.2f} MB"
        )
    for one in alone[:SHOWN]:
        print(
            f"{one.step:40} {one.kind:7} location {one.location:5.1f} dB, scores {one.scores:5.1f} dB"
        )


if __name__ == "__main__":
    main()
