"""Backbones of the model family: timm feature extractors at strides 8, 16 and 32.

Every backbone sees pixels as ``(p - 127) / 127.5``, which is exactly a uint8 tensor with zero
point 127 and scale 2/255: on the phone the pixel bytes are the quantized input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import timm
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNetFeatures
from torch import nn

from shelfcount.records import ShelfcountError

# Stages of mobilenet_v2_fused in timm's notation (er: edge residual, a 3 x 3 convolution that
# expands the channels, then a 1 x 1 convolution; ir: inverted residual; r: repeats; k: kernel size;
# s: stride; e: expansion; c: channels). In MobileNetV2, the depthwise convolutions before stride 8
# are a tenth of the computation, but more than half of the int8 latency; plain convolutions replace
# them, as in MobileNetV4 (arXiv:2404.10518). From stride 16 on, it has the blocks of MobileNetV2,
# without its last two: shelves need no more context.
FUSED_STEM = 24
FUSED_STAGES = (
    ("er_r2_k3_s2_e4_c24",),
    ("er_r2_k3_s2_e4_c32", "ir_r1_k3_s1_e4_c32"),
    ("ir_r4_k3_s2_e6_c64",),
    ("ir_r3_k3_s1_e6_c96",),
    ("ir_r2_k3_s2_e6_c160",),
)


@dataclass(frozen=True)
class Backbone:
    """One backbone of the model family.

    Attributes:
        timm_name: Name of the model in timm; None if this module defines the architecture.
        int8: Whether all operators of the int8 model are delegated to XNNPACK.
        note: Short description for help texts.
    """

    timm_name: str | None
    int8: bool
    note: str = ""


# The operators decide whether a backbone is fast in int8: ReLU and ReLU6 are delegated to XNNPACK,
# hard-swish and squeeze-and-excitation are not.
FAMILY: Mapping[str, Backbone] = {
    "mobilenet_v2_fused": Backbone(
        None,
        True,
        "the default: a shorter MobileNetV2 with plain convolutions up to stride 8",
    ),
    "mobilenet_v2": Backbone("mobilenetv2_100", True, "starts from ImageNet weights"),
    "mobilenet_v2_050": Backbone("mobilenetv2_050", True, "half the width"),
    "mobilenet_v4_s": Backbone("mobilenetv4_conv_small", True, "fastest in int8"),
    "mobilenet_v4_m": Backbone("mobilenetv4_conv_medium", True, "largest"),
    "efficientnet_lite0": Backbone("efficientnet_lite0", True),
    "mobilenet_v3": Backbone("mobilenetv3_large_100", False, "for float targets"),
}


def make_backbone(architecture: str) -> nn.Module:
    """Create a timm feature extractor with random weights and TensorFlow's SAME padding.

    With SAME padding, the exported graph needs no PAD operator before a convolution of stride 2.

    Args:
        architecture: Key of `FAMILY`.

    Returns:
        Module with the attribute ``feature_info``. It maps (B, 3, H, W) float32 in [-1, 1] to a
        list of three feature maps of strides 8, 16 and 32, each (B, C, H / stride, W / stride).

    Raises:
        ShelfcountError: If `architecture` is not in `FAMILY`.
    """
    if architecture not in FAMILY:
        raise ShelfcountError(
            f"unknown model architecture '{architecture}'. "
            f"Allowed: {', '.join([*FAMILY, 'resnet50'])}"
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
