"""Variants of a model for a comparison: the file of a bundle, and exports of its run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shelfcount.deploy.inspection import count_parameters
from shelfcount.files import sha256_json, sha256_of, write_whole
from shelfcount.records import Detector, Dropped, ModelSpec, Progress, ShelfcountError
from shelfcount.runtime.bundle import Bundle, LiteRTDetector, find_bundle, read_bundle
from shelfcount.stamp import package_versions
from shelfcount.vision.postprocess import LOWEST_SCORE

UNTRAINED = "resnet50"
BASELINE_SIZE = 640
PYTORCH = "PyTorch float32"
# A run with quantization-aware training (QAT).
ROUNDED = "PyTorch int8"
PHONE_RECIPES = ("float32", "float16", "dynamic", "int8")
BASELINE_RECIPES = ("float32", "int8")


@dataclass(frozen=True)
class Variant:
    """A model in one format, ready to be measured.

    Attributes:
        role: 'phone' or 'baseline'.
        form: Runtime and number format, such as 'LiteRT int8'.
        path: A .tflite file, or the folder of a run, which is run by PyTorch.
        spec: Specification of the model.
        trained: Whether the model is trained, so that its F1 is meaningful.
    """

    role: str
    form: str
    path: Path
    spec: ModelSpec
    trained: bool = True

    @property
    def key(self) -> str:
        """Identifier within a comparison: role and format."""
        return f"{self.role} {self.form}"

    @property
    def name(self) -> str:
        """Architecture and input size."""
        return f"{self.spec.architecture} {self.spec.width} x {self.spec.height}"

    @property
    def start(self) -> str:
        """Initialisation of the weights; empty if it is not known."""
        return str(self.spec.provenance.get("start", ""))

    @property
    def is_file(self) -> bool:
        """Whether the model is a .tflite file."""
        return self.path.suffix == ".tflite"

    @property
    def bytes(self) -> int:
        """Size of the .tflite file, or of the weights for PyTorch, in bytes."""
        return (self.path if self.is_file else self.path / "model.safetensors").stat().st_size

    def detector(self, threads: int) -> Detector:
        """Open the model with a score threshold low enough for mAP.

        Args:
            threads: Number of threads of the runtime.

        Returns:
            The detector.
        """
        if self.is_file:
            return LiteRTDetector(self.path.read_bytes(), self.spec, threads, LOWEST_SCORE)
        import torch

        from shelfcount.training.runs import load_run

        torch.set_num_threads(threads)
        return load_run(self.path, LOWEST_SCORE)

    def parameters(self) -> int:
        """Return the number of weights and biases.

        A .tflite file has a folded copy of the shared head for each pyramid level, and all copies
        are counted.
        """
        if self.is_file:
            return count_parameters(self.path.read_bytes())
        from shelfcount.training.runs import load_run

        return sum(p.numel() for p in load_run(self.path).net.parameters())


def of_bundle(
    bundle: Bundle, run: Path | None, folder: Path, progress: Progress
) -> tuple[list[Variant], list[Dropped]]:
    """Collect the formats of a bundle: its own file, then PyTorch and the other recipes of its run.

    Args:
        bundle: The phone model.
        run: The run that the bundle was exported from, or the run before quantization-aware
            training. If None, only the file of the bundle is returned.
        folder: Cache folder for exported files. Existing files are reused.
        progress: Called with the number of files done, the number of all files, and a description
            of the step.

    Returns:
        The variants, and the formats that could not be exported with the reason.

    Raises:
        ShelfcountError: If the bundle does not come from this run.
    """
    shipped = Variant("phone", f"LiteRT {bundle.recipe}", bundle.path / "model.tflite", bundle.spec)
    if run is None:
        return [shipped], []
    _check_same(bundle, run)
    recipes = [recipe for recipe in PHONE_RECIPES if recipe != bundle.recipe]
    made, dropped = _of_run("phone", run, recipes, folder, progress)
    return [shipped, *made], dropped


def of_baseline(
    source: str, classes: Sequence[str], folder: Path, progress: Progress
) -> tuple[list[Variant], list[Dropped]]:
    """Collect the formats of the baseline.

    Args:
        source: A bundle, by folder or name (its own file is used), a run folder (PyTorch, float32
            and int8 are used), or 'resnet50' (an untrained network in float32 is used).
        classes: Class names of the phone model. An untrained network gets the same classes.
        folder: Cache folder for exported files. Existing files are reused.
        progress: Called with the number of files done, the number of all files, and a description
            of the step.

    Returns:
        The variants, and the formats that could not be exported with the reason.

    Raises:
        ShelfcountError: If `source` is neither a folder nor 'resnet50'.
    """
    path = find_bundle(source)
    if (path / "model.json").exists():
        bundle = read_bundle(path)
        return [
            Variant("baseline", f"LiteRT {bundle.recipe}", path / "model.tflite", bundle.spec)
        ], []
    if source == UNTRAINED:
        return [_untrained(tuple(classes), folder, progress)], []
    if not path.is_dir():
        raise ShelfcountError(
            f"--baseline must be a run folder, a bundle folder, or '{UNTRAINED}' for an untrained "
            f"network, got '{source}'"
        )
    return _of_run("baseline", path, BASELINE_RECIPES, folder, progress)


def _check_same(bundle: Bundle, run: Path) -> None:
    from shelfcount.training.runs import read_spec

    spec = read_spec(run)
    fields = ["architecture", "classes", "height", "width", "levels", "score_threshold"]
    if str(bundle.spec.provenance.get("start", "")).startswith(f"{run.absolute().name}/"):
        # The bundle was fine-tuned from this run, which therefore has another score threshold.
        fields.remove("score_threshold")
    for field in fields:
        ours, theirs = getattr(bundle.spec, field), getattr(spec, field)
        if ours != theirs:
            values = f": {ours} and {theirs}" if len(str(ours)) < 60 else ""
            raise ShelfcountError(
                f"bundle '{bundle.path}' and run '{run}' differ in {field}{values}. --run must be "
                "the run that the bundle was exported or fine-tuned from."
            )


def _of_run(
    role: str, run: Path, recipes: Sequence[str], folder: Path, progress: Progress
) -> tuple[list[Variant], list[Dropped]]:
    from shelfcount.training.inputs import calibration_photos_of_run
    from shelfcount.training.quantization_aware import FakeQuantized
    from shelfcount.training.runs import load_run

    detector = load_run(run)
    spec = detector.spec
    form = ROUNDED if isinstance(detector.net, FakeQuantized) else PYTORCH
    weights = sha256_of(run / "model.safetensors")
    exporter = _Exporter(
        detector.net, spec, weights, folder, lambda: calibration_photos_of_run(run, spec)
    )
    variants, dropped = [Variant(role, form, run, spec)], []
    for done, recipe in enumerate(recipes):
        progress(done, len(recipes), f"{spec.architecture} to {recipe}")
        try:
            variants.append(Variant(role, f"LiteRT {recipe}", exporter.export(recipe), spec))
        except (ShelfcountError, ValueError, RuntimeError) as error:
            dropped.append(Dropped(f"{role} LiteRT {recipe}", f"cannot be exported: {error}"))
    progress(len(recipes), len(recipes), spec.architecture)
    return variants, dropped


def _untrained(classes: tuple[str, ...], folder: Path, progress: Progress) -> Variant:
    """Export an untrained baseline, whose size and latency equal those of a trained one."""
    from shelfcount.training.networks import BASELINE, RANDOM, build, retinanet_levels

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
    progress(0, 1, f"an untrained {BASELINE} to float32")
    net = build(BASELINE, len(classes), spec.levels, 256)
    path = _Exporter(net, spec, "untrained", folder, list).export("float32")
    progress(1, 1, f"an untrained {BASELINE} to float32")
    return Variant("baseline", "LiteRT float32", path, spec, trained=False)


@dataclass
class _Exporter:
    """Exporter of one network, which it converts once.

    The name of each file contains a fingerprint of everything that the file depends on, so that
    existing files can be reused.

    Attributes:
        net: The PyTorch network.
        spec: Specification of the model.
        weights: Fingerprint of the weights.
        folder: Folder for the files.
        calibration: Function that returns (h, w, 3) uint8 RGB photos for int8 calibration.
        converted: The float32 .tflite file after the first conversion.
    """

    net: Any
    spec: ModelSpec
    weights: str
    folder: Path
    calibration: Callable[[], list[NDArray[np.uint8]]]
    converted: bytes | None = None

    def export(self, recipe: str) -> Path:
        """Return the path of the file for a recipe; it is exported if it does not exist."""
        spec = replace(self.spec, provenance={})
        inputs = [self.weights, spec.to_json(), recipe, package_versions(), _exporting_code()]
        fingerprint = sha256_json(inputs, canonical=True)
        path = self.folder / f"{spec.architecture}-{recipe}-{fingerprint[:12]}.tflite"
        if not path.exists():
            # Imported only for a conversion, since these modules need PyTorch.
            from shelfcount.deploy.bundle import main_artifact
            from shelfcount.deploy.convert import to_litert

            photos = self.calibration() if recipe == "int8" else []
            self.converted = self.converted or to_litert(self.net, self.spec)
            write_whole(path, main_artifact(self.converted, self.spec, recipe, photos))
        return path


def _exporting_code() -> str:
    """Return a fingerprint of the source code that decides the content of an exported file.

    The version of the package is not sufficient, since the code of a checkout can change. Anchors,
    the scale of the pixels and the lowest score of the file are defined in `vision`.
    """
    package = Path(__file__).parents[1]
    sources = [package / "records.py"]
    for room in ("deploy", "training", "vision"):
        sources += sorted((package / room).glob("*.py"))
    return sha256_of(b"".join(file.read_bytes() for file in sources))
