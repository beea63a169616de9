"""A run folder: what training leaves behind, and how it becomes a detector again.

RUN/config.toml         resolved config
RUN/spec.json           model spec: classes, anchors, threshold, provenance
RUN/model.safetensors   averaged weights of the best epoch
RUN/data.json           where its photos, labels and corrections lie, as absolute paths
RUN/history.csv         losses and validation figures by epoch; tensorboard/ the same for TensorBoard
RUN/checkpoints/        for --resume
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from shelfcount import config as config_module
from shelfcount.config import Config
from shelfcount.records import Detections, ModelSpec, ShelfcountError
from shelfcount.training.backbones import read_safetensors
from shelfcount.training.detector import build
from shelfcount.training.fake_quant import FakeQuantized
from shelfcount.vision import anchors
from shelfcount.vision.images import PIXEL_SCALE, PIXEL_ZERO, stretch, write_whole
from shelfcount.vision.postprocess import detections_from_heads

SOURCES = "data.json"


class TorchDetector:
    """A network in PyTorch as a `Detector`: the reference that every exported file is held against.

    Args:
        net: Maps (1, 3, H, W) float32 in [-1, 1] to (location, logits).
        spec: Of the model.
        score_threshold: Other than the spec's; a low one for precision-recall curves.
    """

    def __init__(
        self, net: nn.Module, spec: ModelSpec, score_threshold: float | None = None
    ) -> None:
        self.net = net.eval()
        self.spec = (
            spec if score_threshold is None else replace(spec, score_threshold=score_threshold)
        )
        self.anchors = anchors.layout(spec.levels, spec.height, spec.width)

    @torch.inference_mode()
    def heads(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(h, w, 3) uint8 RGB to location (A, 4) and scores (A, C), sigmoid applied."""
        pixels = torch.from_numpy(stretch(image, self.spec.height, self.spec.width)).permute(
            2, 0, 1
        )[None]
        device = next(self.net.parameters()).device
        location, logits = self.net(normalise(pixels.to(device)))
        return location[0].float().cpu().numpy(), logits[0].float().sigmoid().cpu().numpy()

    def detect(self, image: np.ndarray) -> Detections:
        location, scores = self.heads(image)
        return detections_from_heads(
            location,
            scores,
            self.anchors,
            score_threshold=self.spec.score_threshold,
            nms_iou=self.spec.nms_iou,
            max_detections=self.spec.max_detections,
            width=image.shape[1],
            height=image.shape[0],
        )


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 pixels to what a network sees: a uint8 tensor of zero point 127 and scale 2/255 means the same."""
    return (pixels.float() - PIXEL_ZERO) / PIXEL_SCALE


def save_run(run: Path, config: Config, spec: ModelSpec, net: nn.Module) -> None:
    """Write config, spec and weights of a trained network, each whole."""
    config.write(run / "config.toml")
    weights = {k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
    write_whole(run / "model.safetensors", save(weights))
    write_whole(run / "spec.json", json.dumps(spec.to_json(), indent=2))


def load_run(run: Path, score_threshold: float | None = None) -> TorchDetector:
    """The trained network of a run.

    Raises:
        ShelfcountError: If the folder is no finished run, or its parts do not fit each other.
    """
    config, spec = read_config(run), read_spec(run)
    net = build(spec.architecture, len(spec.classes), spec.levels, config.model.neck)
    if config.train.quantize:
        net = FakeQuantized(net)
    try:
        net.load_state_dict(read_safetensors(run / "model.safetensors"))
    except RuntimeError as error:
        raise ShelfcountError(
            f"the weights in '{run}' do not fit its spec.json: {error}"
        ) from error
    return TorchDetector(net, spec, score_threshold)


def read_config(run: Path) -> Config:
    """The resolved config of a run."""
    return config_module.load(run / "config.toml")


def read_spec(run: Path) -> ModelSpec:
    """The model spec of a run.

    Raises:
        ShelfcountError: If there is none, or it cannot be read.
    """
    try:
        data = json.loads((run / "spec.json").read_text())
    except FileNotFoundError as error:
        raise ShelfcountError(
            f"'{run}' is not a finished run: it has no spec.json. Finish it with `shelfcount train ... --resume`."
        ) from error
    except (OSError, ValueError) as error:
        raise ShelfcountError(f"cannot read '{run / 'spec.json'}': {error}") from error
    if not isinstance(data, Mapping):
        raise ShelfcountError(
            f"'{run / 'spec.json'}' must hold an object, got {type(data).__name__}"
        )
    try:
        return ModelSpec.from_json(data)
    except ShelfcountError as error:
        raise ShelfcountError(f"'{run / 'spec.json'}': {error}") from error


def origin(weights: Path) -> Mapping[str, Any] | None:
    """What a file of detector weights says it learnt from, empty where it doesn't say; None for those of a classifier.

    Raises:
        ShelfcountError: If the file is missing or no safetensors file.
    """
    try:
        with safe_open(weights, "pt") as file:
            if not any(key.startswith("trunk.") for key in file.keys()):  # noqa: SIM118 - no mapping
                return None
            stated = (file.metadata() or {}).get("origin")
    except (OSError, SafetensorError) as error:
        raise ShelfcountError(f"cannot read weights '{weights}': {error}") from error
    if stated:
        return json.loads(stated)
    # A run keeps it in its spec.
    return read_spec(weights.parent).provenance if (weights.parent / "spec.json").exists() else {}


@dataclass(frozen=True)
class Sources:
    """Where the photos of a run lay, so that export finds them.

    Attributes:
        train: As `data.formats.read` takes it.
        val: The same, or None where validation photos were held back from `train`.
        class_names: Lookup table of numbered classes.
        corrections: Files of corrections to the labels.
    """

    train: str
    val: str | None = None
    class_names: Path | None = None
    corrections: tuple[Path, ...] = ()


def write_sources(run: Path, sources: Sources) -> None:
    """Keep them in the run's folder, as absolute paths."""
    data = {
        "train": str(Path(sources.train).resolve()),
        "val": sources.val and str(Path(sources.val).resolve()),
        "class_names": sources.class_names and str(sources.class_names.resolve()),
        "corrections": [str(path.resolve()) for path in sources.corrections],
    }
    write_whole(run / SOURCES, json.dumps(data, indent=2))


def read_sources(run: Path) -> Sources:
    """The inverse of `write_sources`."""
    try:
        data = json.loads((run / SOURCES).read_text())
        names = data["class_names"]
        return Sources(
            data["train"],
            data["val"],
            names and Path(names),
            tuple(map(Path, data.get("corrections", []))),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ShelfcountError(
            f"'{run}' does not say where its photos lie ({error}). Give --data and --val."
        ) from error
