"""Run folders: the files that training writes, and loading a detector from them.

RUN/config.toml         configuration with all defaults
RUN/spec.json           model specification: classes, anchors, score threshold, provenance
RUN/model.safetensors   EMA weights of the best epoch
RUN/data.json           absolute paths of the photos, labels and corrections
RUN/history.csv         losses and validation metrics per epoch
RUN/tensorboard/        the same for TensorBoard
RUN/checkpoints/        checkpoints for --resume
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from shelfcount import config as config_module
from shelfcount.config import Config
from shelfcount.files import write_json, write_whole
from shelfcount.records import Detections, ModelSpec, ShelfcountError
from shelfcount.training.networks import build
from shelfcount.training.quantization_aware import FakeQuantized
from shelfcount.training.starting_weights import read_safetensors
from shelfcount.vision import anchors
from shelfcount.vision.images import PIXEL_SCALE, PIXEL_ZERO, stretch
from shelfcount.vision.postprocess import detections_from_heads

SOURCES = "data.json"


class TorchDetector:
    """`Detector` that runs a PyTorch network: the reference for every exported file.

    Args:
        net: Network that maps (1, 3, H, W) float32 in [-1, 1] to (location, logits).
        spec: Specification of the model.
        score_threshold: Score threshold; a low one is needed for precision-recall curves. Default:
            the threshold in `spec`.
    """

    def __init__(
        self, net: nn.Module, spec: ModelSpec, score_threshold: float | None = None
    ) -> None:
        self.net = net.eval()
        self.spec = (
            spec if score_threshold is None else replace(spec, score_threshold=score_threshold)
        )
        self.anchors = anchors.anchor_grid(spec.levels, spec.height, spec.width)

    @torch.inference_mode()
    def heads(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run the network on one photo.

        Args:
            image: (h, w, 3) uint8 RGB of any size; it is stretched to the network input.

        Returns:
            location (A, 4) float32, box deltas (y, x, h, w), and scores (A, C) float32 in [0, 1].
        """
        pixels = torch.from_numpy(stretch(image, self.spec.height, self.spec.width)).permute(
            2, 0, 1
        )[None]
        device = next(self.net.parameters()).device
        location, logits = self.net(normalise(pixels.to(device)))
        return location[0].float().cpu().numpy(), logits[0].float().sigmoid().cpu().numpy()

    def detect(self, image: NDArray[np.uint8]) -> Detections:
        """Detect the products on one photo; see `records.Detector.detect`."""
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
    """Convert pixels to the network input, ``(p - 127) / 127.5``.

    A uint8 tensor with zero point 127 and scale 2/255 represents the same values.

    Args:
        pixels: uint8 tensor of any shape.

    Returns:
        float32 tensor of the same shape.
    """
    return (pixels.float() - PIXEL_ZERO) / PIXEL_SCALE


def save_run(run: Path, config: Config, spec: ModelSpec, net: nn.Module) -> None:
    """Write configuration, specification and weights of a trained network to a run folder.

    Each file is written completely or not at all.

    Args:
        run: Run folder.
        config: Configuration of the run.
        spec: Specification of the model.
        net: Trained network.
    """
    config.write(run / "config.toml")
    weights = {k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
    write_whole(run / "model.safetensors", save(weights))
    write_json(run / "spec.json", spec.to_json())


def load_run(run: Path, score_threshold: float | None = None) -> TorchDetector:
    """Load the trained detector of a run.

    Args:
        run: Run folder.
        score_threshold: Score threshold. Default: the threshold in the run's spec.json.

    Returns:
        Detector with the EMA weights of the best epoch.

    Raises:
        ShelfcountError: If the folder is not a finished run, or its files do not fit each other.
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
    """Read the configuration of a run.

    Raises:
        ShelfcountError: If config.toml cannot be read or contains a setting that is not allowed.
    """
    return config_module.load_config(run / "config.toml")


def read_spec(run: Path) -> ModelSpec:
    """Read the model specification of a run.

    Raises:
        ShelfcountError: If spec.json is missing, cannot be read, or has a wrong field.
    """
    try:
        data = json.loads((run / "spec.json").read_text())
    except FileNotFoundError as error:
        raise ShelfcountError(
            f"'{run}' is not a finished run: it has no spec.json. "
            "Finish it with `shelfcount train ... --resume`."
        ) from error
    except (OSError, ValueError) as error:
        raise ShelfcountError(f"cannot read '{run / 'spec.json'}': {error}") from error
    if not isinstance(data, Mapping):
        raise ShelfcountError(
            f"'{run / 'spec.json'}' must contain a JSON object, got {type(data).__name__}"
        )
    try:
        return ModelSpec.from_json(data)
    except ShelfcountError as error:
        raise ShelfcountError(f"'{run / 'spec.json'}': {error}") from error


def weights_origin(weights: Path) -> Mapping[str, Any] | None:
    """Read on which data the detector weights in a file were trained.

    Args:
        weights: Path of a safetensors file.

    Returns:
        Provenance from the file's metadata, or from spec.json in the same folder; empty if neither
        exists. None if the file contains a classifier, not a detector.

    Raises:
        ShelfcountError: If the file is missing or is not a safetensors file.
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
    # The weights of a run have no metadata: the provenance is in its spec.json.
    return read_spec(weights.parent).provenance if (weights.parent / "spec.json").exists() else {}


@dataclass(frozen=True)
class Sources:
    """Paths of the data that a run was trained on, for commands that read them again.

    Attributes:
        train: Training data, as an argument of `read_labels`.
        val: Validation data, or None if the validation photos were held out from `train`.
        class_names: File with the names of numbered classes, or None.
        corrections: Files with corrections of the labels.
    """

    train: str
    val: str | None = None
    class_names: Path | None = None
    corrections: tuple[Path, ...] = ()


def write_sources(run: Path, sources: Sources) -> None:
    """Write the paths of a run's data to its data.json, as absolute paths.

    Args:
        run: Run folder.
        sources: Paths of the data.
    """
    data = {
        "train": str(Path(sources.train).resolve()),
        "val": sources.val and str(Path(sources.val).resolve()),
        "class_names": sources.class_names and str(sources.class_names.resolve()),
        "corrections": [str(path.resolve()) for path in sources.corrections],
    }
    write_json(run / SOURCES, data)


def read_sources(run: Path) -> Sources:
    """Read the paths of a run's data that `write_sources` wrote.

    Raises:
        ShelfcountError: If data.json is missing or damaged.
    """
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
        fault = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ShelfcountError(
            f"cannot read the photo locations of run '{run}' from {SOURCES} ({fault}). "
            "Give --data and --val."
        ) from error
