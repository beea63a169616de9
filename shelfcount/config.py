"""Training configuration: read from TOML, changed with ``--set``, validated.

The resolved configuration is written next to every result.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from shelfcount.files import write_whole
from shelfcount.records import ShelfcountError
from shelfcount.validation import read_toml, validate_data
from shelfcount.vision.conditions import CONDITIONS

# Stride of the last backbone feature map; the same for every architecture, including the
# baseline.
BACKBONE_STRIDE = 32


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ModelConfig(_Section):
    """Architecture of the network and size of its input."""

    architecture: str = Field(
        default="mobilenet_v2_fused",
        description="Key of the architecture; `shelfcount train --help` lists them.",
    )
    height: int = Field(
        default=416,
        ge=64,
        le=2048,
        description="Height of the input in pixels: a multiple of 32 and of every stride.",
    )
    width: int = Field(
        default=416,
        ge=64,
        le=2048,
        description="Width of the input in pixels: a multiple of 32 and of every stride.",
    )
    neck: int = Field(
        default=96,
        ge=16,
        le=512,
        description="Number of channels of the feature pyramid and of the heads.",
    )
    strides: tuple[PositiveInt, ...] = Field(
        default=(8, 16, 32),
        min_length=1,
        description="Strides of the available pyramid levels, finest first. "
        "Levels that few products of the training data need are left out.",
    )
    anchors_per_place: int = Field(
        default=1, ge=1, le=9, description="Number of anchors per anchor location."
    )
    weights: str = Field(
        default="shipped",
        description="Initial weights: 'shipped' (in the package), 'network' (downloaded by timm or "
        "torchvision), 'none' (random) or the path of a .safetensors file.",
    )

    @field_validator("strides")
    @classmethod
    def _finest_first(cls, strides: tuple[int, ...]) -> tuple[int, ...]:
        if list(strides) != sorted(set(strides)):
            raise ValueError("must be in ascending order, without duplicates")
        return strides

    @model_validator(mode="after")
    def _multiple(self) -> ModelConfig:
        for name in ("height", "width"):
            if getattr(self, name) % self.step:
                raise ValueError(
                    f"{name} must be a multiple of {self.step}, got {getattr(self, name)}"
                )
        return self

    @property
    def step(self) -> int:
        """Number of pixels that the height and the width of the input must be a multiple of."""
        # The pyramid is built top-down from the backbone's stride 32, whichever levels are kept.
        return math.lcm(BACKBONE_STRIDE, *self.strides)


class TrainConfig(_Section):
    """Optimizer, schedule, loss and devices of training."""

    epochs: int = Field(default=100, ge=1, description="Number of epochs.")
    batch: int = Field(
        default=8, ge=1, description="Batch size: photos per step, over all devices."
    )
    lr: float = Field(
        default=2e-3, gt=0, description="Peak learning rate of AdamW for the neck and the heads."
    )
    backbone_lr: float = Field(
        default=0.25,
        ge=0,
        description="Learning rate of the backbone as a share of `lr`; 0 freezes the backbone.",
    )
    freeze: int = Field(
        default=2,
        ge=0,
        le=7,
        description="Number of backbone stages, from the input on, that stay frozen when training "
        "starts from pretrained weights. They take about half of a training step.",
    )
    weight_decay: float = Field(default=0.05, ge=0, description="Weight decay of AdamW.")
    clip: float = Field(
        default=10.0, gt=0, description="Gradient clipping: maximum L2 norm of the gradient."
    )
    warmup: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="Share of all steps in which the learning rate rises to its peak.",
    )
    ema: float = Field(
        default=0.998,
        ge=0,
        lt=1,
        description="Decay per step of the exponential moving average (EMA) of the weights.",
    )
    loss: Literal["task_aligned", "focal"] = Field(
        default="task_aligned",
        description="Loss: 'task_aligned' assigns anchors by score and IoU, 'focal' by IoU alone, "
        "as the baseline does.",
    )
    forgive: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Background anchors predicted with a higher score than this are left out of "
        "the loss, since the product may be unlabelled. 1 disables it.",
    )
    quantize: bool = Field(
        default=False,
        description="Fine-tune with fake quantization (quantization-aware training). "
        "`model.weights` must be the file of a trained detector.",
    )
    patience: int = Field(
        default=40,
        ge=1,
        description="Early stopping: number of epochs without a better validation mAP.",
    )
    validate_every: int = Field(
        default=2, ge=1, description="Number of epochs between two validations."
    )
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = Field(
        default="auto",
        description="Precision of training. 'auto' is mixed precision if the device has "
        "instructions for bfloat16 or float16, otherwise float32.",
    )
    channels_last: bool = Field(
        default=True, description="Whether to store tensors channels-last, which is faster on CPUs."
    )
    workers: int = Field(
        default=2, ge=0, description="Number of processes that load and augment photos."
    )
    accelerator: Literal["auto", "cpu", "gpu"] = Field(
        default="auto", description="Device to train on. 'auto' is a GPU if there is one."
    )
    devices: int = Field(
        default=1, ge=1, description="Number of devices per node; on CPU, number of processes."
    )
    nodes: int = Field(default=1, ge=1, description="Number of nodes.")
    seed: int = Field(default=0, ge=0, description="Random seed.")

    @model_validator(mode="after")
    def _of_the_loss(self) -> TrainConfig:
        if self.loss != "task_aligned" and self.forgive != 1.0:
            raise ValueError(f"forgive needs loss='task_aligned', got loss={self.loss!r}")
        return self


class AugmentConfig(_Section):
    """Probabilities and ranges of the data augmentation, which is used in training only."""

    mosaic: float = Field(
        default=0.5, ge=0, le=1, description="Probability of a mosaic of several photos."
    )
    mosaic_until: float = Field(
        default=0.85,
        ge=0,
        le=1,
        description="Share of the epochs, from the first on, that use mosaic.",
    )
    paste: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Probability that some products of a photo are replaced by other products of "
        "similar shape, rare classes first.",
    )
    flip: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Probability of a horizontal flip. Labels on a real shelf are never mirrored.",
    )
    scale: tuple[PositiveFloat, PositiveFloat] = Field(
        default=(0.7, 1.5), description="Minimum and maximum scale factor."
    )
    aspect: float = Field(
        default=0.15, ge=0, lt=1, description="Maximum relative change of the width."
    )
    rotate: float = Field(default=3.0, ge=0, le=45, description="Maximum rotation in degrees.")
    perspective: float = Field(
        default=0.3, ge=0, le=1, description="Probability of a perspective change."
    )
    brightness: float = Field(
        default=0.3, ge=0, description="Maximum relative change of the brightness."
    )
    contrast: float = Field(
        default=0.25, ge=0, description="Maximum relative change of the contrast."
    )
    saturation: float = Field(
        default=0.3, ge=0, description="Maximum relative change of the saturation."
    )
    hue: float = Field(
        default=0.02,
        ge=0,
        le=0.5,
        description="Maximum change of the hue in turns.",
    )
    blur: float = Field(default=0.15, ge=0, le=1, description="Probability of a Gaussian blur.")
    noise: float = Field(default=0.15, ge=0, le=1, description="Probability of added noise.")
    jpeg: float = Field(default=0.25, ge=0, le=1, description="Probability of JPEG compression.")
    conditions: tuple[str, ...] = Field(
        default=(),
        description="Image corruptions to train with, such as 'motion' or 'glare'. "
        "`shelfcount stress --fix` lists those that a detector needs.",
    )
    condition: float = Field(
        default=0.4,
        ge=0,
        le=1,
        description="Probability that one of `conditions` is applied to a photo.",
    )
    window: int = Field(
        default=0,
        ge=0,
        description="Side in pixels of a random square crop of each input, which makes steps "
        "smaller. 0 (default): the whole input.",
    )

    @field_validator("conditions")
    @classmethod
    def _known(cls, conditions: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in conditions if name not in CONDITIONS]:
            raise ValueError(
                f"unknown condition '{unknown[0]}', allowed are {', '.join(CONDITIONS)}"
            )
        return conditions

    @field_validator("scale")
    @classmethod
    def _ordered(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError("must be (smallest, largest)")
        return scale


class ExportConfig(_Section):
    """Calibration and post-processing of an exported bundle."""

    calibration_photos: int = Field(
        default=64, ge=1, description="Number of training photos for the int8 calibration."
    )
    max_detections: int = Field(
        default=300, ge=1, le=1000, description="Maximum number of boxes per photo or tile."
    )
    nms_iou: float = Field(
        default=0.5, gt=0, le=1, description="IoU threshold of non-maximum suppression."
    )


class Config(_Section):
    """Complete configuration of a run."""

    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    augment: AugmentConfig = AugmentConfig()
    export: ExportConfig = ExportConfig()

    @model_validator(mode="after")
    def _window(self) -> Config:
        window, step, largest = (
            self.augment.window,
            self.model.step,
            min(self.model.height, self.model.width),
        )
        if window % step or window > largest:
            raise ValueError(
                f"augment.window must be 0 or a multiple of {step} up to {largest}, got {window}"
            )
        return self

    def to_toml(self) -> str:
        """Return the resolved config as TOML; `load_config` reads an equal config from it."""
        return tomli_w.dumps(self.model_dump(mode="json"))

    def write(self, path: Path) -> None:
        """Write the resolved config to a TOML file."""
        write_whole(path, self.to_toml())


# Defaults of the baseline that differ: its five levels, the input size it is published with
# (640 pixels) and a learning rate for a network of 37 million weights. The package contains no
# weights to start it from.
BASELINE_DEFAULTS: dict[str, dict[str, Any]] = {
    "model": {
        "height": 640,
        "width": 640,
        "strides": [8, 16, 32, 64, 128],
        "anchors_per_place": 9,
        "weights": "none",
    },
    "train": {"lr": 2e-4, "backbone_lr": 1.0, "loss": "focal"},
}


def load_config(
    path: Path | None = None, changes: Sequence[str] = (), architecture: str | None = None
) -> Config:
    """Read a config file and apply ``--set`` changes. All errors are reported together.

    Args:
        path: Path of the TOML file; None for the defaults.
        changes: Changes such as ``train.epochs=30``. The value is read as TOML, or as a string if
            it is not valid TOML.
        architecture: Architecture that replaces the file's ``model.architecture``.

    Raises:
        ShelfcountError: If the file cannot be read, or a key or value is not allowed.
    """
    data: dict[str, Any] = {}
    if path is not None:
        data = read_toml(path, "config")
    for change in [*([f'model.architecture="{architecture}"'] if architecture else []), *changes]:
        _apply(data, change)
    if _section(data, "model").get("architecture") == "resnet50":
        for section, values in BASELINE_DEFAULTS.items():
            if isinstance(data.setdefault(section, {}), dict):
                data[section] = {**values, **data[section]}
    return validate_config(data, str(path or "--set"))


def validate_config(data: dict[str, Any], where: str) -> Config:
    """Validate plain data and return it as a config.

    Args:
        data: Sections with their keys and values.
        where: Source of the data, for error messages.

    Raises:
        ShelfcountError: If a key is unknown or a value is not allowed; the message names all of
            them.
    """
    return validate_data(data, Config, f"the config in {where}")


def _section(data: dict[str, Any], name: str) -> dict[str, Any]:
    # The validation reports a value in place of a section, together with all other errors.
    section = data.get(name)
    return section if isinstance(section, dict) else {}


def _apply(data: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    path = key.strip().split(".")
    if not equals or len(path) < 2:
        raise ShelfcountError(
            f"--set needs section.key=value, got '{change}'. For example --set train.epochs=30"
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for part in path[:-1]:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise ShelfcountError(f"--set {change}: '{part}' is a value, not a section")
    data[path[-1]] = value
