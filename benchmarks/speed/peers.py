"""Compare the released bundle with public detectors: size, work, memory and latency.

    python benchmarks/speed/peers.py

Fetches and converts the public detectors and writes results/peers.json. npm needs the network once,
to fetch `@mediapipe/objectron`. torchvision's detector is built from its code with random weights,
since latency does not depend on them. The detectors have other classes than shelves, so F1 is not
compared.

All detectors are measured up to their heads, without suppression: the public files end there, and
the bundle's file is cut there. torch is imported in functions, since each process that times a
model imports this file.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from shelfcount.cli.console import progress_bar
from shelfcount.deploy import flatbuffer, inspection
from shelfcount.files import sha256_of, write_json, write_whole
from shelfcount.records import ModelSpec, ShelfcountError
from shelfcount.runtime.bundle import read_bundle
from shelfcount.speed import latency, model_rows
from shelfcount.stamp import stamp

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "export" / "release" / "drinks-int8"
RESULT = Path(__file__).parents[1] / "results" / "peers.json"
CACHE = ROOT / "runs" / "peers"
OBJECTRON = "@mediapipe/objectron@0.4.1675468480"
# All files of the package are joined in one file. The loader says where each starts and ends.
ASSETS, LOADER = (
    "package/objectron_solution_packed_assets.data",
    "package/objectron_solution_packed_assets_loader.js",
)
DETECTOR = "object_detection_ssd_mobilenetv2_oidv4_fp16.tflite"
SSDLITE_SIZE, SSDLITE_CLASSES = 320, 91  # COCO's, as torchvision counts them with the background
NOISE_PHOTOS = 4


@dataclass(frozen=True)
class Peer:
    """A file to measure.

    Attributes:
        name: Name in the table.
        form: Number format.
        path: The .tflite file, up to its heads.
        source: Package and version that the file comes from.
        licence: Licence of that package.
    """

    name: str
    form: str
    path: Path
    source: str
    licence: str


def bundle_heads(cache: Path) -> Peer:
    """Write the released bundle's file without its last operator, the post-processing."""
    bundle = read_bundle(BUNDLE)
    model = flatbuffer.read_model((BUNDLE / "model.tflite").read_bytes())
    graph = model.subgraphs[0]
    last = graph.operators.pop()
    graph.outputs = list(last.inputs[:2])
    flatbuffer.name_signature(model)
    path = cache / "bundle-heads.tflite"
    write_whole(path, flatbuffer.write_model(model))
    name = f"shelfcount {bundle.spec.architecture}, {len(bundle.spec.classes)} classes"
    return Peer(
        name,
        bundle.recipe,
        path,
        f"export/release/{bundle.name}, sha256 {bundle.sha256[:12]}",
        "CC BY 4.0",
    )


def ssdlite(recipe: str, cache: Path) -> Peer:
    """Convert torchvision's SSDLite on MobileNetV3-Large with one of `convert.RECIPES`."""
    import torchvision

    path, plain = (cache / f"ssdlite320-{form}.tflite" for form in (recipe, "float32"))
    if not plain.exists():
        write_whole(plain, _converted_ssdlite())
    if not path.exists():
        write_whole(path, _quantized(plain, recipe))
    source = f"torchvision {torchvision.__version__}, random weights"
    return Peer(
        f"torchvision ssdlite320_mobilenet_v3_large, {SSDLITE_CLASSES} classes",
        recipe,
        path,
        source,
        "BSD-3-Clause",
    )


def _converted_ssdlite() -> bytes:
    import torch
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    from shelfcount.deploy import convert

    class Heads(torch.nn.Module):
        """The detector up to its heads, with the outputs that `convert.to_litert` needs."""

        def __init__(self) -> None:
            super().__init__()
            detector = ssdlite320_mobilenet_v3_large(
                weights=None, weights_backbone=None, num_classes=SSDLITE_CLASSES
            )
            self.backbone, self.head = detector.backbone, detector.head

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found = self.head(list(self.backbone(x).values()))
            return found["bbox_regression"], found["cls_logits"]

    torch.manual_seed(0)
    return convert.to_litert(
        Heads().eval(), ModelSpec("ssdlite", "ssdlite", ("any",), SSDLITE_SIZE, SSDLITE_SIZE, ())
    )


def _quantized(plain: Path, recipe: str) -> bytes:
    from shelfcount.deploy import convert

    return convert.quantize(plain.read_bytes(), recipe, noise(input_size(plain)[0]))


def objectron(cache: Path) -> Peer:
    """Fetch the SSD-MobileNetV2 for Open Images of MediaPipe's Objectron."""
    path = cache / DETECTOR
    if not path.exists():
        command = ["npm", "pack", OBJECTRON, "--silent", "--pack-destination", str(cache)]
        try:
            packed = subprocess.run(
                command, capture_output=True, text=True, check=True
            ).stdout.split()[-1]
        except (OSError, subprocess.CalledProcessError) as error:
            raise ShelfcountError(
                f"npm could not fetch {OBJECTRON}: {error}. "
                "Install npm, and connect to the network once."
            ) from error
        with tarfile.open(cache / packed) as archive:
            loader, assets = (archive.extractfile(name).read() for name in (LOADER, ASSETS))  # type: ignore[union-attr]
        place = re.search(rf'{re.escape(DETECTOR)}", "start": (\d+), "end": (\d+)'.encode(), loader)
        if place is None:
            raise ShelfcountError(f"the loader of {OBJECTRON} does not name {DETECTOR}")
        write_whole(path, assets[int(place[1]) : int(place[2])])
    return Peer(
        "MediaPipe SSD-MobileNetV2, Open Images", "float16", path, f"npm {OBJECTRON}", "Apache-2.0"
    )


def objectron_int8(cache: Path) -> Peer:
    """Quantize Objectron's detector to int8, with the recipe of the bundle."""
    peer = objectron(cache)
    path, plain = cache / "objectron-int8.tflite", cache / "objectron-float32.tflite"
    if not path.exists():
        write_whole(plain, as_float32(peer.path.read_bytes()))
        write_whole(path, _quantized(plain, "int8"))
    return Peer(peer.name, "int8", path, f"{peer.source}, quantized here", peer.licence)


def as_float32(data: bytes) -> bytes:
    """Return a float32 file with a signature, which the quantizer needs, from a float16 file.

    Args:
        data: .tflite file with float16 weights, each followed by a DEQUANTIZE.
    """
    model, names = flatbuffer.read_model(data), inspection.operator_names(data)
    graph, types = model.subgraphs[0], schema.TensorType
    widened: dict[int, int] = {}
    for name, op in zip(names, list(graph.operators), strict=True):
        weights = graph.tensors[op.inputs[0]]
        if name == "DEQUANTIZE" and weights.type == types.FLOAT16:
            buffer = model.buffers[weights.buffer]
            buffer.data = (
                np.frombuffer(bytes(buffer.data), np.float16).astype(np.float32).view(np.uint8)
            )
            weights.type = types.FLOAT32
            widened[op.outputs[0]] = op.inputs[0]
            graph.operators.remove(op)
            # The quantizer also reads tensors that no operator uses any more.
            left = graph.tensors[op.outputs[0]]
            left.shape, left.buffer = [1], len(model.buffers)
            model.buffers.append(schema.BufferT())
            model.buffers[-1].data = np.zeros(4, np.uint8)
    for op in graph.operators:
        op.inputs = [widened.get(index, index) for index in op.inputs]
    signature = schema.SignatureDefT()
    signature.signatureKey = b"serving_default"
    model.signatureDefs = [signature]
    flatbuffer.name_signature(model)
    return flatbuffer.write_model(model)


def noise(side: int) -> list[np.ndarray]:
    """Return noise to calibrate on. Latency does not depend on the ranges that noise gives."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(NOISE_PHOTOS)]


def input_size(path: Path) -> tuple[int, int]:
    """Return height and width of a file's input."""
    graph = flatbuffer.read_model(path.read_bytes()).subgraphs[0]
    shape = [int(side) for side in graph.tensors[graph.inputs[0]].shape]
    return (shape[1], shape[2]) if shape[3] == 3 else (shape[2], shape[3])


def gather(cache: Path) -> tuple[list[Peer], list[dict[str, str]]]:
    """Return the bundle and its peers, and the peers that are missing with the reason."""
    makers: dict[str, Callable[[], Peer]] = {
        "ssdlite float32": lambda: ssdlite("float32", cache),
        "ssdlite int8": lambda: ssdlite("int8", cache),
        "objectron float16": lambda: objectron(cache),
        "objectron int8": lambda: objectron_int8(cache),
    }
    peers, left_out = [bundle_heads(cache)], []
    with progress_bar("fetching and converting") as advance:
        for done, (name, make) in enumerate(makers.items(), start=1):
            try:
                peers.append(make())
            except (ShelfcountError, ValueError, RuntimeError) as error:
                left_out.append({"peer": name, "reason": str(error)})
            advance(done, len(makers), name)
    return peers, left_out


def measure(peers: list[Peer], runs: int, threads: int) -> list[dict[str, Any]]:
    """Measure all detectors in paired runs with the first one."""
    photo = next(iter(sorted((BUNDLE / "golden").glob("*.jpg"))))
    names = [f"{peer.name} {peer.form}" for peer in peers]
    subjects = {
        name: latency.TimedModel(peer.path, *input_size(peer.path))
        for name, peer in zip(names, peers, strict=True)
    }
    with progress_bar("measuring latency") as advance:
        timings = latency.time_models(
            subjects, photo, dict.fromkeys(names, runs), threads=threads, progress=advance
        )
    return [
        _row(peer, subjects[name], timings[name], timings[names[0]])
        for name, peer in zip(names, peers, strict=True)
    ]


def _row(
    peer: Peer, subject: latency.TimedModel, timing: latency.Timing, own: latency.Timing
) -> dict[str, Any]:
    data = peer.path.read_bytes()
    times = None if timing is own else model_rows.speed_ratio(timing.times, own.times)
    return {
        "name": peer.name,
        "form": peer.form,
        "source": peer.source,
        "licence": peer.licence,
        "sha256": sha256_of(data),
        "height": subject.height,
        "width": subject.width,
        "size": len(data),
        "macs": inspection.count_macs(data),
        "parameters": inspection.count_parameters(data),
        "memory": timing.memory,
        "latency": vars(timing.latency),
        "times_bundle": times and vars(times),
        "within_noise": times and times.within_noise,
        "outside": inspection.counted_names(inspection.undelegated_operators(data)),
        "moving": inspection.counted_names(inspection.data_movement_operators(data)),
        "partitions": inspection.partitions(data),
        "f1": None,
    }


def main() -> int:
    """Measure and write the result. Returns 2 if the bundle cannot be measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=RESULT, help="Result to write.")
    parser.add_argument(
        "--cache", type=Path, default=CACHE, help="Folder for fetched and converted files."
    )
    parser.add_argument("--runs", type=int, default=100, help="Timed runs. Default: 100.")
    parser.add_argument("--threads", type=int, default=1, help="Threads of LiteRT. Default: 1.")
    given = parser.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    try:
        peers, left_out = gather(given.cache)
        rows = measure(peers, given.runs, given.threads)
    except ShelfcountError as error:
        print(error, file=sys.stderr)
        return 2
    write_json(
        given.out, {"rows": rows, "left_out": left_out, "stamp": stamp(threads=given.threads)}
    )
    for row in rows:
        ratio = row["times_bundle"]
        against = (
            f", {model_rows.format_ratio(model_rows.Ratio(**ratio))} times the bundle's"
            if ratio
            else ""
        )
        print(
            f"{row['name']} {row['form']}: {row['size'] / 1e6:.2f} MB, "
            f"{row['latency']['p50']:.1f} ms{against}"
        )
    for missing in left_out:
        print(f"not measured: {missing['peer']}: {missing['reason'][:200]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
