"""Tests of a bundle in the runtimes of apps, each in its own environment.

``.ci/consumers`` creates the environments in .consumers; the scripts that run in them are in
tests/consumers. The bundle is the released one, or the one in the variable
SHELFCOUNT_CONSUMERS_BUNDLE. The results are written to the folder SHELFCOUNT_CONSUMERS_OUT, one
JSON file per consumer; `benchmarks/quality/consumers.py` collects them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shelfcount.deploy import flatbuffer, golden
from shelfcount.files import write_whole
from shelfcount.records import Detections
from shelfcount.runtime.bundle import RAW_MODEL, Bundle, read_bundle
from shelfcount.vision import anchors
from shelfcount.vision.boxes import xyxy_to_xywh
from shelfcount.vision.images import PIXEL_SCALE, PIXEL_ZERO, read_photo, stretch
from shelfcount.vision.postprocess import detections_from_heads

ROOT = Path(__file__).parents[2]
ENVIRONMENTS, SCRIPTS = ROOT / ".consumers", ROOT / "tests" / "consumers"
MAIN, RAW = "model.tflite", RAW_MODEL
# Names of the consumers in the table of results, and their environments. LITERT is tested in the
# project's own environment.
LITERT, ARM = "LiteRT", "LiteRT on Arm (Cortex-A76, qemu)"
TENSORFLOW, TFLITE_RUNTIME = "TensorFlow Lite in TensorFlow", "tflite_runtime"
PYTHON, WEB, ANALYZER = (
    "MediaPipe Tasks, Python",
    "MediaPipe Tasks, web",
    "TensorFlow's GPU analyzer",
)
ENVIRONMENT = {
    ARM: "arm",
    TENSORFLOW: "tensorflow",
    TFLITE_RUNTIME: "tflite_runtime",
    PYTHON: "mediapipe",
    WEB: "web",
    ANALYZER: "gpu_analyzer",
}
CASES = [
    *((name, MAIN) for name in (LITERT, ARM, TENSORFLOW, TFLITE_RUNTIME, PYTHON, WEB)),
    (PYTHON, RAW),
    (WEB, RAW),
]
# IoU threshold of MediaPipe's own class-agnostic non-maximum suppression, which it applies if the
# file has none. ObjectDetector has no option to change it.
MEDIAPIPE_NMS_IOU = 0.3


@pytest.fixture(scope="module")
def shipped(released: Path) -> Bundle:
    """The opened bundle."""
    return read_bundle(released)


@pytest.fixture(scope="module")
def reference(shipped: Bundle) -> dict[str, dict[str, Any]]:
    """Return the expected content of golden.json by model file.

    For the raw file, the detections are computed from its heads with the non-maximum suppression of
    MediaPipe.
    """
    main = golden.read_golden(shipped)
    lowest = main["score_threshold"] - main["tolerance"]["score"]
    photos = [
        {**photo, "detections": to_json(decoded(shipped, photo, lowest), shipped)}
        for photo in main["photos"]
    ]
    return {MAIN: main, RAW: {**main, "photos": photos}}


@pytest.fixture(scope="module")
def keep(
    tmp_path_factory: pytest.TempPathFactory, shipped: Bundle, reference: dict[str, dict[str, Any]]
) -> Callable[..., None]:
    """Return a function that writes a result for the table."""
    folder = Path(
        os.environ.get("SHELFCOUNT_CONSUMERS_OUT") or tmp_path_factory.mktemp("consumers")
    )
    photos = reference[MAIN]["photos"]
    expected = [photo["detections"] for photo in photos]
    report = golden.compare_with_golden(reference[MAIN], expected, shipped.spec)
    about = {
        "name": shipped.name,
        "sha256": shipped.sha256,
        "photos": len(photos),
        "products": sum(len(p["truth"]) for p in photos),
    }
    write_whole(folder / "bundle.json", json.dumps({**about, "f1": report.f1}))

    def write(consumer: str, file: str, **facts: Any) -> None:
        name = f"{ENVIRONMENT.get(consumer, 'own')}-{file.removesuffix('.tflite')}.json"
        write_whole(folder / name, json.dumps({"consumer": consumer, "form": file, **facts}))

    return write


@pytest.mark.slow
@pytest.mark.parametrize(("consumer", "file"), CASES)
def test_golden_photos_are_met(
    consumer: str,
    file: str,
    shipped: Bundle,
    reference: dict[str, dict[str, Any]],
    keep: Callable[..., None],
) -> None:
    ready(consumer, file, keep)
    result = answer(consumer, file, shipped.path)
    report = golden.compare_with_golden(reference[file], result["photos"], shipped.spec)
    facts = {
        "f1": report.f1,
        "largest_box_px": report.largest_box_px,
        "largest_score": report.largest_score,
    }
    keep(consumer, file, version=result["version"], **facts)
    assert report.failures == ()


@pytest.mark.slow
def test_arm_kernels_give_the_bits_of_x86(
    shipped: Bundle, reference: dict[str, dict[str, Any]], tmp_path: Path, keep: Callable[..., None]
) -> None:
    ready(ARM, "bits", keep)
    photos = [shipped.path / "golden" / photo["file"] for photo in reference[MAIN]["photos"]]
    network, pixels = tmp_path / "network.tflite", tmp_path / "pixels.npy"
    network.write_bytes(int8_network((shipped.path / MAIN).read_bytes()))
    np.save(
        pixels,
        np.stack(
            [stretch(read_photo(path), shipped.spec.height, shipped.spec.width) for path in photos]
        ),
    )
    x86, arm = (
        heads(python_of(consumer), network, pixels, tmp_path / "heads.npz")
        for consumer in (LITERT, ARM)
    )
    assert [(h.dtype, h.shape) for h in x86] == [(np.int8, t.shape) for t in arm]
    # The difference of two int8 values does not fit into int8.
    steps = [np.abs(h.astype(np.int16) - t) for h, t in zip(x86, arm, strict=True)]
    keep(
        ARM,
        "bits",
        photos=len(photos),
        values=sum(s.size for s in steps),
        different=int(sum((s > 0).sum() for s in steps)),
    )
    assert [int(s.max()) for s in steps] == [0, 0]
    assert answer(ARM, MAIN, shipped.path)["photos"] == answer(LITERT, MAIN, shipped.path)["photos"]


@pytest.mark.slow
def test_gpu_delegates_take_every_operator_of_the_raw_artifact(
    shipped: Bundle, keep: Callable[..., None]
) -> None:
    ready(ANALYZER, RAW, keep)
    result = run(python_of(ANALYZER), SCRIPTS / "gpu_analyzer.py", shipped.path)
    complaints = result["complaints"]
    verdict = (
        "static check, nothing is run; the GPU delegate supports all operators "
        "(TensorFlow 2.18 and later do not check)"
    )
    keep(ANALYZER, RAW, version=result["version"], reason=verdict)
    assert complaints[RAW] == []
    # The warning about the other file shows that the analyzer does check.
    assert f"Not supported custom op {flatbuffer.POSTPROCESS}" in complaints[MAIN]


def test_environments_are_made_by_name() -> None:
    done = subprocess.run([ROOT / ".ci" / "consumers", "toaster"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("Unknown consumer 'toaster'. Known ones: ")
    assert sorted(done.stderr.split(": ")[1].split()) == sorted(ENVIRONMENT.values())


def ready(consumer: str, file: str, keep: Callable[..., None]) -> None:
    """Create the environment of a consumer.

    If that is not possible, the test is skipped; in CI it fails.
    """
    if consumer in ENVIRONMENT and (reason := missing(ENVIRONMENT[consumer])):
        keep(consumer, file, reason=f"not run: {reason}")
        if os.environ.get("CI"):
            pytest.fail(f"cannot test {consumer}, which is required in CI: {reason}")
        pytest.skip(f"{consumer}: {reason}")


@cache
def missing(environment: str) -> str:
    """Return why an environment cannot be created; empty if it exists."""
    done = subprocess.run(
        [ROOT / ".ci" / "consumers", environment], capture_output=True, text=True, timeout=900
    )
    return (
        ""
        if done.returncode == 0
        else (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    )


@cache
def answer(consumer: str, file: str, bundle: Path) -> dict[str, Any]:
    """Run the script of a consumer.

    Returns:
        ``version``, and ``photos``: for each golden photo its detections as in golden.json.
    """
    if consumer == WEB:
        return run("node", SCRIPTS / "web.mjs", ENVIRONMENTS / "web", bundle, file)
    if consumer == PYTHON:
        return run(python_of(consumer), SCRIPTS / "mediapipe_tasks.py", bundle, file)
    module = {TENSORFLOW: "tensorflow", TFLITE_RUNTIME: "tflite_runtime"}.get(
        consumer, "ai_edge_litert"
    )
    return run(python_of(consumer), SCRIPTS / "interpreter.py", module, bundle)


def python_of(consumer: str) -> str:
    return (
        str(ENVIRONMENTS / ENVIRONMENT[consumer] / "bin" / "python")
        if consumer in ENVIRONMENT
        else sys.executable
    )


def run(*command: object) -> dict[str, Any]:
    """Run a script that must succeed, and return the JSON on the last line of its output."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stderr[-4000:]}"
    return json.loads(done.stdout.splitlines()[-1])


def heads(python: str, network: Path, pixels: Path, out: Path) -> list[np.ndarray]:
    """Return the outputs of a network on (n, H, W, 3) pixels, delegated to XNNPACK as a whole."""
    assert run(python, SCRIPTS / "heads.py", network, pixels, out) == {"delegates": 1}
    with np.load(out) as outputs:
        return [outputs[name] for name in outputs.files]


def int8_network(data: bytes) -> bytes:
    """Cut off the post-processing of an int8 file.

    The outputs are then the integers that the network computes.
    """
    model = flatbuffer.read_model(data)
    graph = model.subgraphs[0]
    made_by = {index: operator for operator in graph.operators for index in operator.outputs}
    last = made_by[graph.outputs[0]]
    dequantized = [made_by[index] for index in list(last.inputs)[:2]]
    graph.outputs = [operator.inputs[0] for operator in dequantized]
    graph.operators = [
        operator for operator in graph.operators if operator not in (last, *dequantized)
    ]
    return flatbuffer.write_model(model)


def decoded(bundle: Bundle, photo: dict[str, Any], lowest: float) -> Detections:
    """Return the detections of the raw file on a golden photo.

    The heads are decoded by shelfcount, with the non-maximum suppression of MediaPipe.
    """
    from ai_edge_litert.interpreter import Interpreter

    spec = bundle.spec
    interpreter = Interpreter(model_path=str(bundle.path / RAW))
    interpreter.allocate_tensors()
    pixels = stretch(read_photo(bundle.path / "golden" / photo["file"]), spec.height, spec.width)
    (source,) = interpreter.get_input_details()
    interpreter.set_tensor(
        source["index"], (pixels[None].astype(np.float32) - PIXEL_ZERO) / PIXEL_SCALE
    )
    interpreter.invoke()
    location, scores = (
        interpreter.get_tensor(output["index"])[0] for output in interpreter.get_output_details()
    )
    return detections_from_heads(
        location,
        scores,
        anchors.anchor_grid(spec.levels, spec.height, spec.width),
        score_threshold=lowest,
        nms_iou=MEDIAPIPE_NMS_IOU,
        max_detections=spec.max_detections,
        width=photo["width"],
        height=photo["height"],
    )


def to_json(detections: Detections, bundle: Bundle) -> list[dict[str, Any]]:
    """Return detections in the format of golden.json."""
    rows = zip(
        detections.classes,
        detections.scores.tolist(),
        xyxy_to_xywh(detections.boxes).tolist(),
        strict=True,
    )
    return [{"class": bundle.spec.classes[k], "score": score, "box": box} for k, score, box in rows]
