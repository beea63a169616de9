"""One validated config: read from TOML, changed with ``--set``, written back resolved beside every result."""

from __future__ import annotations

import difflib
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
    ValidationError,
    field_validator,
    model_validator,
)

from shelfcount.records import ShelfcountError
from shelfcount.vision.conditions import CONDITIONS
from shelfcount.vision.images import write_whole

# Of the coarsest feature that every trunk of the family, and the baseline's, gives.
TRUNK_STRIDE = 32


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ModelConfig(_Section):
    """The network and its input."""

    architecture: str = Field(
        default="mobilenet_v2_fused",
        description="Key of the model family; `shelfcount train --help` lists them.",
    )
    height: int = Field(
        default=416,
        ge=64,
        le=2048,
        description="Input pixels; a multiple of 32 and of the coarsest stride.",
    )
    width: int = Field(default=416, ge=64, le=2048)
    neck: int = Field(
        default=96, ge=16, le=512, description="Channels of the pyramid and the heads."
    )
    strides: tuple[PositiveInt, ...] = Field(
        default=(8, 16, 32),
        min_length=1,
        description="Pyramid levels on offer, finest first; those that no product needs are left out.",
    )
    anchors_per_place: int = Field(default=1, ge=1, le=9)
    weights: str = Field(
        default="shipped",
        description="'shipped' (in the package), 'network' (timm or torchvision), 'none', or a .safetensors file.",
    )

    @field_validator("strides")
    @classmethod
    def _finest_first(cls, strides: tuple[int, ...]) -> tuple[int, ...]:
        if list(strides) != sorted(set(strides)):
            raise ValueError("must rise from the finest to the coarsest")
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
        """Pixels that every side of an input is a multiple of."""
        # The pyramid is built down from the trunk's stride 32, whichever levels are kept.
        return math.lcm(TRUNK_STRIDE, *self.strides)


class TrainConfig(_Section):
    """How the network learns."""

    epochs: int = Field(default=100, ge=1)
    batch: int = Field(default=8, ge=1, description="Photos a step, over all devices.")
    lr: float = Field(
        default=2e-3, gt=0, description="Peak learning rate of AdamW for neck and heads."
    )
    trunk_lr: float = Field(
        default=0.25,
        ge=0,
        description="Learning rate of the backbone as a share of `lr`; 0 freezes it.",
    )
    freeze: int = Field(
        default=2,
        ge=0,
        le=7,
        description="First stages of a pretrained backbone that stay as they are; half the time of a step is theirs.",
    )
    weight_decay: float = Field(default=0.05, ge=0)
    clip: float = Field(default=10.0, gt=0, description="Largest norm of the gradient.")
    schedule: Literal["cosine", "one_cycle"] = "cosine"
    warmup: float = Field(
        default=0.05, ge=0, lt=1, description="Share of all steps in which the rate rises."
    )
    ema: float = Field(
        default=0.998, ge=0, lt=1, description="Decay of the averaged weights, a step."
    )
    loss: Literal["task_aligned", "focal", "multibox"] = "task_aligned"
    smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        description="Share of a product's score that is spread over all classes.",
    )
    forgive: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="A place without a label that scores above it goes unpunished: labels may lack it.",
    )
    quantize: bool = Field(
        default=False,
        description="Fine-tune with the rounding of int8 inside; `model.weights` is the trained detector's file.",
    )
    patience: int = Field(
        default=40, ge=1, description="Epochs without a better validation mAP before stopping."
    )
    validate_every: int = Field(default=2, ge=1, description="Epochs.")
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = Field(
        default="auto",
        description="Mixed where the device multiplies in bfloat16 or float16, otherwise float32.",
    )
    channels_last: bool = True
    workers: int = Field(default=2, ge=0, description="Processes that decode and augment.")
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = Field(default=1, ge=1, description="Devices of one node; on CPU, processes.")
    nodes: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _of_the_loss(self) -> TrainConfig:
        if self.loss != "task_aligned" and (self.smoothing, self.forgive) != (0.0, 1.0):
            raise ValueError(
                f"smoothing and forgive are parts of the task_aligned loss, got loss={self.loss!r}"
            )
        return self


class AugmentConfig(_Section):
    """What phones and people do to a photo, in training only. Probabilities and ranges."""

    mosaic: float = Field(default=0.5, ge=0, le=1)
    mosaic_until: float = Field(
        default=0.85,
        ge=0,
        le=1,
        description="Share of the epochs with mosaic; the last ones see whole photos.",
    )
    paste: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Some products give their place to others of like shape, rare ones first.",
    )
    flip: float = Field(
        default=0.0, ge=0, le=1, description="Left for right; labels are never mirrored on a shelf."
    )
    scale: tuple[PositiveFloat, PositiveFloat] = Field(
        default=(0.7, 1.5), description="Smallest and largest enlargement."
    )
    aspect: float = Field(
        default=0.15, ge=0, lt=1, description="Width changes against height by up to this share."
    )
    rotate: float = Field(default=3.0, ge=0, le=45, description="Degrees, either way.")
    perspective: float = Field(
        default=0.3, ge=0, le=1, description="Probability of a change of view."
    )
    brightness: float = Field(default=0.3, ge=0)
    contrast: float = Field(default=0.25, ge=0)
    saturation: float = Field(default=0.3, ge=0)
    hue: float = Field(default=0.02, ge=0, le=0.5)
    blur: float = Field(default=0.15, ge=0, le=1)
    noise: float = Field(default=0.15, ge=0, le=1)
    jpeg: float = Field(default=0.25, ge=0, le=1)
    conditions: tuple[str, ...] = Field(
        default=(),
        description="Such as 'motion' or 'glare', of `vision.conditions`; `shelfcount stress --fix` lists what a detector lacks.",
    )
    condition: float = Field(
        default=0.4,
        ge=0,
        le=1,
        description="Probability that a photo is seen under one of `conditions`.",
    )
    window: int = Field(
        default=0,
        ge=0,
        description="Side in pixels of the square that training sees of each input, from anywhere in it: more and smaller steps; 0 is all.",
    )

    @field_validator("conditions")
    @classmethod
    def _known(cls, conditions: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in conditions if name not in CONDITIONS]:
            raise ValueError(f"'{unknown[0]}' is none of {', '.join(CONDITIONS)}")
        return conditions

    @field_validator("scale")
    @classmethod
    def _ordered(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError("must be (smallest, largest)")
        return scale


class ExportConfig(_Section):
    """From weights to a bundle."""

    calibration_photos: int = Field(
        default=64, ge=1, description="Training photos that set the int8 ranges."
    )
    max_detections: int = Field(default=300, ge=1, le=1000)
    nms_iou: float = Field(default=0.5, gt=0, le=1)


class Config(_Section):
    """Everything that decides a run, with its defaults."""

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
        """The resolved config; reading it back gives an equal one."""
        return tomli_w.dumps(self.model_dump(mode="json"))

    def write(self, path: Path) -> None:
        write_whole(path, self.to_toml())


# What the baseline wants otherwise: its five levels, the input it is published with (640 pixels),
# and a rate for a network of 37 million weights; nothing is shipped to start it from.
BASELINE_DEFAULTS: dict[str, dict[str, Any]] = {
    "model": {
        "height": 640,
        "width": 640,
        "strides": [8, 16, 32, 64, 128],
        "anchors_per_place": 9,
        "weights": "none",
    },
    "train": {"lr": 2e-4, "trunk_lr": 1.0, "loss": "focal"},
}


def load(
    path: Path | None = None, changes: Sequence[str] = (), architecture: str | None = None
) -> Config:
    """Read a config file and apply ``--set`` changes; every error is reported at once.

    Args:
        path: TOML; None for the defaults.
        changes: Such as ``train.epochs=30``; the value is read as TOML, or taken as a string.
        architecture: Takes the place of the file's ``model.architecture``.

    Raises:
        ShelfcountError: If the file cannot be read, or a key or value is not allowed.
    """
    data: dict[str, Any] = {}
    if path is not None:
        try:
            data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ShelfcountError(f"cannot read config '{path}': {error}") from error
    for change in [*([f'model.architecture="{architecture}"'] if architecture else []), *changes]:
        _apply(data, change)
    if _section(data, "model").get("architecture") == "resnet50":
        for section, values in BASELINE_DEFAULTS.items():
            if isinstance(data.setdefault(section, {}), dict):
                data[section] = {**values, **data[section]}
    return parse(data, str(path or "--set"))


def parse(data: dict[str, Any], where: str) -> Config:
    """Validate plain data as a config.

    Raises:
        ShelfcountError: Naming every key that is unknown or holds a wrong value.
    """
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        lines = [_explain(problem) for problem in error.errors()]
        raise ShelfcountError(
            f"the config in {where} cannot be used:\n" + "\n".join(f"  {line}" for line in lines)
        ) from error


def _section(data: dict[str, Any], name: str) -> dict[str, Any]:
    # A value where a section belongs is reported by the validation, with all other errors.
    section = data.get(name)
    return section if isinstance(section, dict) else {}


def _apply(data: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    path = key.strip().split(".")
    if not equals or len(path) < 2:
        raise ShelfcountError(
            f"--set wants section.key=value, got '{change}'. For example --set train.epochs=30"
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


def _known_keys() -> list[str]:
    sections = Config.model_fields
    keys = [
        f"{name}.{key}"
        for name, field in sections.items()
        for key in field.default.__class__.model_fields
    ]
    return [*sections, *keys]


def _explain(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        alike = [known for known in _known_keys() if known.count(".") == key.count(".")]
        near = difflib.get_close_matches(key, alike, n=1)
        return f"Unknown config key '{key}'." + (f" Did you mean '{near[0]}'?" if near else "")
    rule = problem["msg"].removeprefix("Value error, ")
    # A rule on a whole section states the value itself.
    return (
        f"{key}: {rule}"
        if isinstance(problem["input"], dict)
        else f"{key}: {rule}, got {problem['input']!r}"
    )
