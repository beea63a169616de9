"""The forms of a model that a comparison measures: a bundle's own file, and what its run can be exported to."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from shelfcount.deploy import flatbuffer
from shelfcount.records import Detector, Dropped, ModelSpec, ShelfcountError
from shelfcount.runtime.bundle import LOWEST_SCORE, Bundle, LiteRTDetector
from shelfcount.stamp import versions
from shelfcount.vision.images import write_whole

UNTRAINED = "resnet50"
BASELINE_SIZE = 640
PYTORCH = "PyTorch float32"
# Of a run that was trained with int8's rounding inside.
ROUNDED = "PyTorch int8"
PHONE_RECIPES = ("float32", "float16", "dynamic", "int8")
BASELINE_RECIPES = ("float32", "int8")
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Variant:
    """A model in one form, ready to be measured.

    Attributes:
        role: 'phone' or 'baseline'.
        form: Runtime and number format, such as 'LiteRT int8'.
        path: A .tflite file, or the folder of a run, which PyTorch runs.
        spec: Of the model.
        trained: Whether its F1 means anything.
    """

    role: str
    form: str
    path: Path
    spec: ModelSpec
    trained: bool = True

    @property
    def key(self) -> str:
        """Tells it from the others of a comparison."""
        return f"{self.role} {self.form}"

    @property
    def name(self) -> str:
        return f"{self.spec.architecture} {self.spec.width} x {self.spec.height}"

    @property
    def start(self) -> str:
        """How its weights were initialised."""
        return str(self.spec.provenance.get("start", ""))

    @property
    def is_file(self) -> bool:
        """Whether it is a .tflite file."""
        return self.path.suffix == ".tflite"

    @property
    def bytes(self) -> int:
        """Of the file; in PyTorch, of the weights."""
        return (self.path if self.is_file else self.path / "model.safetensors").stat().st_size

    def detector(self, threads: int) -> Detector:
        """Opened down to low scores, as mAP needs them."""
        if self.is_file:
            return LiteRTDetector(self.path.read_bytes(), self.spec, threads, LOWEST_SCORE)
        import torch

        from shelfcount.training.runs import load_run

        torch.set_num_threads(threads)
        return load_run(self.path, LOWEST_SCORE)

    def parameters(self) -> int:
        """Weights and biases. A file counts those that levels share once for each of them, as they are folded apart."""
        if self.is_file:
            return count_parameters(self.path.read_bytes())
        from shelfcount.training.runs import load_run

        return sum(p.numel() for p in load_run(self.path).net.parameters())


def of_bundle(
    bundle: Bundle, run: Path | None, folder: Path, progress: Progress
) -> tuple[list[Variant], list[Dropped]]:
    """The bundle's own file first, then what its run gives: PyTorch, and the other recipes.

    Args:
        bundle: The phone model.
        run: It was exported from it, or fine-tuned from it with int8's rounding; None where there is none at hand.
        folder: Exported files are kept here, and taken from here the next time.
        progress: Called with files made, files in all, and what is being done.

    Returns:
        The variants, and those that could not be made with the reason.

    Raises:
        ShelfcountError: If the run is not the one that the bundle came from.
    """
    own = Variant("phone", f"LiteRT {bundle.recipe}", bundle.path / "model.tflite", bundle.spec)
    if run is None:
        return [own], []
    _check_same(bundle, run)
    recipes = [recipe for recipe in PHONE_RECIPES if recipe != bundle.recipe]
    made, dropped = _of_run("phone", run, recipes, folder, progress)
    return [own, *made], dropped


def of_baseline(
    source: str, classes: Sequence[str], folder: Path, progress: Progress
) -> tuple[list[Variant], list[Dropped]]:
    """The baseline: a bundle's own file; of a run PyTorch, float32 and int8; of 'resnet50' an untrained network's float32.

    Args:
        source: Folder, or 'resnet50'.
        classes: Of the phone model; an untrained network gets as many.
        folder: As for `of_bundle`.
        progress: As for `of_bundle`.

    Raises:
        ShelfcountError: If `source` is none of these.
    """
    path = Path(source)
    if (path / "model.json").exists():
        from shelfcount.runtime.bundle import read_bundle

        bundle = read_bundle(path)
        return [
            Variant("baseline", f"LiteRT {bundle.recipe}", path / "model.tflite", bundle.spec)
        ], []
    if source == UNTRAINED:
        return [_untrained(tuple(classes), folder, progress)], []
    if not path.is_dir():
        raise ShelfcountError(
            f"--baseline must be a run or bundle folder, or '{UNTRAINED}' for an untrained one, got '{source}'"
        )
    return _of_run("baseline", path, BASELINE_RECIPES, folder, progress)


def count_parameters(model: bytes) -> int:
    """Weights and biases of a .tflite file's convolutions and fully connected layers, each stored array once."""
    read = flatbuffer.read(model)
    graph = read.subgraphs[0]
    # float16 weights pass through a DEQUANTIZE on their way.
    names = flatbuffer.operator_names(model)
    source = {
        op.outputs[0]: op.inputs[0]
        for name, op in zip(names, graph.operators, strict=True)
        if name == "DEQUANTIZE"
    }
    stored = {}
    for name, op in zip(names, graph.operators, strict=True):
        if name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            for index in op.inputs[1:]:
                tensor = graph.tensors[source.get(index, index)]
                if index >= 0 and read.buffers[tensor.buffer].data is not None:
                    stored[tensor.buffer] = int(np.prod(tensor.shape))
    return sum(stored.values())


def counted_names(names: Sequence[str]) -> list[str]:
    """Equal names as one with their number.

    >>> counted_names(["PADV2", "BROADCAST_TO", "BROADCAST_TO"])
    ['PADV2', 'BROADCAST_TO × 2']
    """
    return [name if n == 1 else f"{name} × {n}" for name, n in Counter(names).items()]


def _check_same(bundle: Bundle, run: Path) -> None:
    from shelfcount.training.runs import read_spec

    spec = read_spec(run)
    fields = ["architecture", "classes", "height", "width", "levels", "score_threshold"]
    if str(bundle.spec.provenance.get("start", "")).startswith(f"{run.absolute().name}/"):
        # Fine-tuned from it: the float network is the one that int8 is measured against, with a threshold of its own.
        fields.remove("score_threshold")
    for field in fields:
        ours, theirs = getattr(bundle.spec, field), getattr(spec, field)
        if ours != theirs:
            shown = (ours, theirs) if len(str(ours)) < 60 else ("its own", "other ones")
            raise ShelfcountError(
                f"--run must be the run that '{bundle.path}' was exported or fine-tuned from; their {field} differ: {shown[0]} in the "
                f"bundle, {shown[1]} in '{run}'"
            )


def _of_run(
    role: str, run: Path, recipes: Sequence[str], folder: Path, progress: Progress
) -> tuple[list[Variant], list[Dropped]]:
    from shelfcount.training.fake_quant import FakeQuantized
    from shelfcount.training.runs import load_run

    detector = load_run(run)
    spec = detector.spec
    form = ROUNDED if isinstance(detector.net, FakeQuantized) else PYTORCH
    weights = hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
    exporter = _Exporter(detector.net, spec, weights, folder, lambda: _calibration(run, spec))
    variants, dropped = [Variant(role, form, run, spec)], []
    for done, recipe in enumerate(recipes):
        progress(done, len(recipes), f"exporting {spec.architecture} to {recipe}")
        try:
            variants.append(Variant(role, f"LiteRT {recipe}", exporter.export(recipe), spec))
        except (ShelfcountError, ValueError, RuntimeError) as error:
            dropped.append(Dropped(f"{role} LiteRT {recipe}", f"could not be exported: {error}"))
    progress(len(recipes), len(recipes), f"exporting {spec.architecture}")
    return variants, dropped


def _untrained(classes: tuple[str, ...], folder: Path, progress: Progress) -> Variant:
    """Its size and latency are those of a trained one."""
    from shelfcount.training.detector import BASELINE, RANDOM, build, retinanet_levels

    size = BASELINE_SIZE
    spec = ModelSpec(
        BASELINE,
        BASELINE,
        classes,
        size,
        size,
        retinanet_levels(),
        provenance={"start": f"{RANDOM}, untrained"},
    )
    progress(0, 1, f"exporting an untrained {BASELINE} to float32")
    net = build(BASELINE, len(classes), spec.levels, 256)
    path = _Exporter(net, spec, "untrained", folder, list).export("float32")
    progress(1, 1, f"exporting an untrained {BASELINE} to float32")
    return Variant("baseline", "LiteRT float32", path, spec, trained=False)


@dataclass
class _Exporter:
    """Makes files of one network, converted once, and keeps them under the fingerprint of all they depend on."""

    net: Any
    spec: ModelSpec
    weights: str
    folder: Path
    calibration: Callable[[], list[np.ndarray]]
    converted: bytes | None = None

    def export(self, recipe: str) -> Path:
        spec = replace(self.spec, provenance={})
        known = json.dumps(
            [self.weights, spec.to_json(), recipe, versions(), _exporting_code()], sort_keys=True
        )
        path = (
            self.folder
            / f"{spec.architecture}-{recipe}-{hashlib.sha256(known.encode()).hexdigest()[:12]}.tflite"
        )
        if not path.exists():
            # Converting needs torch and takes a while; a file that stands already needs neither.
            from shelfcount.deploy import convert
            from shelfcount.deploy.bundle import artifact

            photos = self.calibration() if recipe == "int8" else []
            self.converted = self.converted or convert.to_litert(self.net, self.spec)
            write_whole(path, artifact(self.converted, self.spec, recipe, photos))
        return path


def _exporting_code() -> str:
    """Fingerprint of the source that builds, converts and quantizes networks: the package's version alone misses a change in a checkout."""
    parts = [Path(__file__).parents[1] / part for part in ("deploy", "training")]
    return hashlib.sha256(
        b"".join(file.read_bytes() for part in parts for file in sorted(part.glob("*.py")))
    ).hexdigest()


def _calibration(run: Path, spec: ModelSpec) -> list[np.ndarray]:
    """The training photos that `shelfcount export` calibrates on."""
    from shelfcount.data.formats import read
    from shelfcount.data.splits import split
    from shelfcount.deploy.bundle import calibration_photos
    from shelfcount.training import runs

    sources, settings = runs.read_sources(run), runs.read_config(run)
    training = read(sources.train, class_names=sources.class_names)
    if sources.val is None:
        training = split(training, {"train": 6 / 7, "val": 1 / 7}, settings.train.seed)["train"]
    return calibration_photos(training, spec, settings.export.calibration_photos)
