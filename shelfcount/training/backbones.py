"""The model family: timm trunks that give features at strides 8, 16 and 32, and where their weights come from.

Every trunk sees pixels as ``(p - 127) / 127.5``. That is exactly a uint8 tensor with zero point 127
and scale 2/255, so on the phone the pixel bytes are the quantized input and normalising costs nothing.
Pretrained weights made for another mean and deviation are moved to it on loading.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNetFeatures
from torch import nn

from shelfcount.records import ShelfcountError
from shelfcount.vision.images import PIXEL_SCALE, PIXEL_ZERO

# Of torchvision's and timm's ImageNet weights, RGB in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# How the keys of what comes behind a trunk begin in torchvision's and timm's classifiers.
CLASSIFIER_KEYS = ("classifier.", "fc.", "head.")
SHIPPED = Path(__file__).parent.parent / "weights"


# In timm's notation (er: a 3 x 3 convolution that widens, then a 1 x 1; ir: inverted residual; r: repeats; k: kernel;
# s: stride; e: expansion; c: channels). The depthwise convolutions in front of stride 8 are a tenth of
# MobileNetV2's work and more than half of its time in int8; plain ones do the same, as in MobileNetV4
# (arXiv:2404.10518). From stride 16 on it is MobileNetV2 block by block, up to where a shelf needs no more context.
FUSED_STEM = 24
FUSED_STAGES = (
    ("er_r2_k3_s2_e4_c24",),
    ("er_r2_k3_s2_e4_c32", "ir_r1_k3_s1_e4_c32"),
    ("ir_r4_k3_s2_e6_c64",),
    ("ir_r3_k3_s1_e6_c96",),
    ("ir_r2_k3_s2_e6_c160",),
)


@dataclass(frozen=True)
class Trunk:
    """One row of the family: timm's name, None where it is put together here, and whether int8 keeps it inside XNNPACK."""

    timm_name: str | None
    int8: bool
    note: str = ""


# Whether a trunk is fast in int8 follows from its operators: ReLU and ReLU6 stay in XNNPACK,
# hard-swish and squeeze-excite fall out of it.
FAMILY: Mapping[str, Trunk] = {
    "mobilenet_v2_fused": Trunk(
        None, True, "the default: MobileNetV2 with plain convolutions up to stride 8, and shorter"
    ),
    "mobilenet_v2": Trunk("mobilenetv2_100", True, "ImageNet start"),
    "mobilenet_v2_050": Trunk("mobilenetv2_050", True, "half the width"),
    "mobilenet_v4_s": Trunk("mobilenetv4_conv_small", True, "fastest in int8"),
    "mobilenet_v4_m": Trunk("mobilenetv4_conv_medium", True, "largest"),
    "efficientnet_lite0": Trunk("efficientnet_lite0", True),
    "mobilenet_v3": Trunk("mobilenetv3_large_100", False, "for float targets"),
}


def make_trunk(architecture: str) -> nn.Module:
    """A timm feature extractor with random weights and TF-style SAME padding.

    SAME padding puts no PAD operator before a stride-2 convolution in the exported graph.

    Returns:
        A module from (B, 3, H, W) to features at strides 8, 16 and 32, with `feature_info`.

    Raises:
        ShelfcountError: If the family has no such member.
    """
    if architecture not in FAMILY:
        raise ShelfcountError(
            f"unknown model '{architecture}'. The family is: {', '.join([*FAMILY, 'resnet50'])}"
        )
    name = FAMILY[architecture].timm_name
    if name is None:
        stages = decode_arch_def([list(stage) for stage in FUSED_STAGES])
        return EfficientNetFeatures(
            stages,
            out_indices=(2, 3, 4),
            stem_size=FUSED_STEM,
            fix_stem=True,
            pad_type="same",
            act_layer=nn.ReLU6,
        )
    return timm.create_model(name, features_only=True, out_indices=(2, 3, 4), pad_type="same")


def load_trunk(trunk: nn.Module, architecture: str, source: str) -> str:
    """Give a trunk its pretrained weights.

    Args:
        trunk: From `make_trunk`; changed in place.
        architecture: Its name.
        source: 'network' for timm's own weights, or a safetensors file with torchvision's or
            timm's key names.

    Returns:
        How the trunk was initialised, for the record.

    Raises:
        ShelfcountError: If the weights cannot be had or do not fit.
    """
    if source == "network":
        state, note = (
            _timm_weights(architecture),
            f"timm {FAMILY[architecture].timm_name}, ImageNet",
        )
    else:
        state, note = read_safetensors(Path(source)), Path(source).name
    mine = trunk.state_dict()
    found = in_order(mine, state, source)
    trunk.load_state_dict(found)
    fold_normalisation(trunk)
    return note


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file as float32; safetensors hold no code.

    Raises:
        ShelfcountError: If the file is missing or no safetensors file.
    """
    try:
        return {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise ShelfcountError(f"cannot read weights '{path}': {error}") from error


def fold_normalisation(trunk: nn.Module) -> None:
    """Let the first convolution expect ``(p - 127) / 127.5`` where it was trained on ImageNet's mean and deviation.

    With x = (p - 127)/127.5 the old input is (x/2 + 127/255 - mean) / std, linear in x: the factor goes
    into the weights, the constant into the mean of the normalisation behind them. Exact but for
    the border, where zero padding means mid-grey instead of ImageNet's mean colour.
    """
    convolution = next(m for m in trunk.modules() if isinstance(m, nn.Conv2d))
    norm = next(m for m in trunk.modules() if isinstance(m, nn.BatchNorm2d))
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    with torch.no_grad():
        if norm.running_mean is not None:
            norm.running_mean -= (
                convolution.weight * ((PIXEL_ZERO / 255 - mean) / std)[None, :, None, None]
            ).sum(dim=(1, 2, 3))
        convolution.weight *= (PIXEL_SCALE / 255 / std)[None, :, None, None]


def in_order(
    mine: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor], source: str
) -> dict[str, torch.Tensor]:
    """Weights of a classifier under a trunk's own key names, and the trunk's own for what they lack.

    torchvision and timm name the same layers differently but list them in the same order; the
    shapes are checked one by one. Counters and what follows the trunk (classifier) are left out.

    Raises:
        ShelfcountError: If a tensor is missing or of another shape.
    """

    def floats(state: Mapping[str, torch.Tensor]) -> list[tuple[str, torch.Tensor]]:
        return [
            (k, v)
            for k, v in state.items()
            if not k.endswith("num_batches_tracked") and not k.startswith(CLASSIFIER_KEYS)
        ]

    def natural(item: tuple[str, torch.Tensor]) -> list[Any]:
        parts = item[0].split(".")
        kind = {"weight": 0, "bias": 1, "running_mean": 2, "running_var": 3}.get(parts[-1], 4)
        # Numbers before names, so that a foreign file gets a message and not a TypeError.
        return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts[:-1]] + [(0, kind, "")]

    if set(dict(floats(mine))) <= set(theirs):
        found = {k: theirs[k] for k, _ in floats(mine)}
    else:
        # safetensors sorts keys as text ('features.10' before 'features.2'); torchvision's
        # numbered names give the order back.
        ordered = sorted(floats(theirs), key=natural)
        found = dict(zip((k for k, _ in floats(mine)), (v for _, v in ordered), strict=False))
    for key, tensor in floats(mine):
        got = tuple(found[key].shape) if key in found else "nothing"
        if got != tuple(tensor.shape):
            raise ShelfcountError(
                f"weights '{source}' do not fit the model: '{key}' must have shape {tuple(tensor.shape)}, got {got}"
            )
    return {**mine, **found}


def _timm_weights(architecture: str) -> dict[str, torch.Tensor]:
    name = FAMILY[architecture].timm_name
    if name is None:
        raise ShelfcountError(
            f"nobody publishes ImageNet weights for '{architecture}', which is put together here. "
            "Use --set model.weights=shipped, =none, or the path of a .safetensors file."
        )
    try:
        model = timm.create_model(name, pretrained=True, features_only=True, out_indices=(2, 3, 4))
    except Exception as error:  # timm passes on whatever its hub client raises: a dozen types
        raise ShelfcountError(
            f"the weights of timm's '{name}' could not be fetched ({type(error).__name__}: {error}). They need the network once. "
            "Without one, use --set model.weights=shipped, =none, or the path of a .safetensors file."
        ) from error
    return model.state_dict()
