"""Detection networks: a MobileNet-SSD with a light feature pyramid, and the RetinaNet baseline.

Both networks map a (B, 3, H, W) float32 batch in [-1, 1] to the same two outputs, so training,
export and evaluation have one code path for both: ``location`` (B, A, 4), the box deltas that
`vision.anchors.decode` decodes, and ``logits`` (B, A, C), one independent sigmoid per class. A is
the number of anchors, C the number of classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torchvision.models.detection import retinanet_resnet50_fpn_v2

from shelfcount.records import AnchorLevel, ShelfcountError
from shelfcount.training import backbones

# Score of every class at every anchor at the start of training (Lin et al. 2017, arXiv:1708.02002,
# section 4.1).
PRIOR = 0.01
# Architecture name of the baseline.
BASELINE = "resnet50"
# Description of a start without pretrained weights.
RANDOM = "random"


def build(architecture: str, classes: int, levels: Sequence[AnchorLevel], neck: int) -> nn.Module:
    """Create a detection network with random weights.

    Args:
        architecture: Key of `backbones.FAMILY`, or 'resnet50' for the baseline.
        classes: Number of classes, C.
        levels: Anchors of each pyramid level, finest stride first.
        neck: Channels of the feature pyramid and the heads. The baseline ignores it: it has 256.

    Returns:
        `ShelfDetector`, or `RetinaNet` for the baseline.

    Raises:
        ShelfcountError: If the architecture is unknown or does not have the strides of `levels`.
        ValueError: If the levels of a `ShelfDetector` differ in their number of anchors per cell.
    """
    if architecture == BASELINE:
        return RetinaNet(classes, levels)
    return ShelfDetector(architecture, classes, levels, neck)


class _Conv(nn.Sequential):
    """Convolution, batch normalisation and ReLU6, which int8 kernels fuse into one operator."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, groups: int = 1, active: bool = True
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        super().__init__(*layers, *([nn.ReLU6()] if active else []))


class _Separable(nn.Sequential):
    """Depthwise separable convolution: depthwise 3 x 3, then 1 x 1."""

    def __init__(self, channels: int) -> None:
        super().__init__(_Conv(channels, channels, 3, groups=channels), _Conv(channels, channels))


class _Head(nn.Module):
    """Prediction head: a tower of separable convolutions and one predicting convolution.

    All pyramid levels share the convolutions. Their feature statistics differ, so each level has
    its own batch normalisation, which the export folds into a copy of the shared weights.

    Args:
        channels: Channels of the feature pyramid.
        depth: Number of separable convolutions in the tower.
        outputs: Values per anchor: 4 for boxes, or the number of classes.
        places: Number of anchors per feature-map cell, for each level; all must be equal.

    Raises:
        ValueError: If the numbers in `places` differ.
    """

    def __init__(self, channels: int, depth: int, outputs: int, places: Sequence[int]) -> None:
        super().__init__()
        if len(set(places)) != 1:
            raise ValueError(
                "the levels have different numbers of anchors per feature-map cell: "
                f"{list(places)}. The heads are shared, so the numbers must be equal."
            )
        self.outputs = outputs
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        for _ in range(depth):
            self.convolutions += [
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
                nn.Conv2d(channels, channels, 1, bias=False),
            ]
            self.norms += [
                nn.ModuleList(nn.BatchNorm2d(channels) for _ in places) for _ in range(2)
            ]
        self.active = nn.ReLU6()
        self.predict = nn.Conv2d(channels, outputs * places[0], 1)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Predict from the (B, channels, h, w) features of each level; returns (B, A, outputs)."""
        parts = []
        for level, x in enumerate(features):
            for convolution, norms in zip(self.convolutions, self.norms, strict=True):
                x = self.active(norms[level](convolution(x)))  # type: ignore[index]
            parts.append(_rows(self.predict(x), self.outputs))
        return torch.cat(parts, dim=1)


def _rows(x: torch.Tensor, k: int) -> torch.Tensor:
    # (B, anchors * k, h, w) to (B, h * w * anchors, k). The exported graph is channels-last, so
    # there this permute and reshape move no data.
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, k)


class ShelfDetector(nn.Module):
    """MobileNet-SSD: mobile backbone, top-down feature pyramid to stride 8, shared light heads.

    Args:
        architecture: Key of `backbones.FAMILY`.
        classes: Number of classes, C.
        levels: Anchors of each pyramid level, finest stride first. All levels must have the same
            number of anchors per feature-map cell.
        neck: Channels of the feature pyramid and the heads.

    Raises:
        ShelfcountError: If the architecture is unknown, or the backbone has no feature map for the
            stride of a level.
        ValueError: If the levels differ in their number of anchors per cell.
    """

    def __init__(
        self, architecture: str, classes: int, levels: Sequence[AnchorLevel], neck: int
    ) -> None:
        super().__init__()
        # Weight files name the backbone's tensors after this attribute.
        self.trunk = backbones.make_backbone(architecture)
        info: Any = self.trunk.feature_info
        strides = info.reduction()
        level_strides = [level.stride for level in levels]
        if not set(level_strides) <= set(strides):
            raise ShelfcountError(
                f"the anchors have strides {level_strides}, but '{architecture}' has feature maps "
                f"of strides {strides} only. Set model.strides to some of these."
            )
        self.laterals = nn.ModuleList(_Conv(c, neck, active=False) for c in info.channels())
        self.smooth = nn.ModuleList(_Separable(neck) for _ in level_strides)
        self.kept = [strides.index(s) for s in level_strides]
        # Bilinear, because XNNPACK has no nearest-neighbour resize.
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        places = [len(level.sizes) for level in levels]
        # Classification is harder than box regression: its tower has two blocks instead of one.
        self.classify = _Head(neck, 2, classes, places)
        self.locate = _Head(neck, 1, 4, places)
        nn.init.normal_(self.classify.predict.weight, std=0.01)
        with torch.no_grad():
            self.classify.predict.bias.fill_(-math.log((1 - PRIOR) / PRIOR))  # type: ignore[union-attr]
            self.locate.predict.bias.zero_()  # type: ignore[union-attr]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict boxes and classes for a batch.

        Args:
            x: (B, 3, H, W) float32 in [-1, 1]: pixels normalised as ``(p - 127) / 127.5``.

        Returns:
            location (B, A, 4), encoded as `vision.anchors.decode` expects, and logits (B, A, C).
        """
        return self.from_features(self.trunk(x))

    def from_features(
        self, feature_maps: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the feature pyramid and the heads from features of the backbone.

        Args:
            feature_maps: Backbone features of strides 8, 16 and 32, each (B, C, h, w), finest
                first.

        Returns:
            location (B, A, 4) and logits (B, A, C), as `forward`.
        """
        pyramid = [lateral(f) for lateral, f in zip(self.laterals, feature_maps, strict=True)]
        for i in range(len(pyramid) - 2, -1, -1):
            pyramid[i] = pyramid[i] + self.up(pyramid[i + 1])
        features = [smooth(pyramid[i]) for smooth, i in zip(self.smooth, self.kept, strict=True)]
        return self.locate(features), self.classify(features)

    def first_stages(self, stages: int) -> list[nn.Module]:
        """Return the parts of the backbone that training may freeze.

        They detect edges and colours, for which the pretrained weights are good enough.

        Args:
            stages: Number of backbone stages, from the input on; 0 for none.

        Returns:
            Stem and first stages; empty if `stages` is 0.
        """
        backbone: Any = self.trunk
        return [backbone.conv_stem, backbone.bn1, *list(backbone.blocks)[:stages]] if stages else []


class RetinaNet(nn.Module):
    """Baseline: backbone, FPN and heads of torchvision's RetinaNet-ResNet50-FPN-v2.

    Resizing, anchors, decoding and non-maximum suppression are those of this package, so that the
    baseline differs from the phone models in its network only.

    Args:
        classes: Number of classes, C.
        levels: Anchors from `retinanet_levels`: 9 per cell, at strides 8, 16, 32, 64 and 128.

    Raises:
        ShelfcountError: If `levels` has other strides or other numbers of anchors.
    """

    def __init__(self, classes: int, levels: Sequence[AnchorLevel]) -> None:
        super().__init__()
        net = retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=classes)
        if [level.stride for level in levels] != [8, 16, 32, 64, 128] or {
            len(level.sizes) for level in levels
        } != {9}:
            raise ShelfcountError(
                "the anchors do not fit the ResNet-50 baseline, which has "
                "9 anchors at strides 8, 16, 32, 64 and 128 (`retinanet_levels`)"
            )
        self.trunk = net.backbone.body
        self.fpn = net.backbone.fpn
        self.classes = classes
        self.classify = net.head.classification_head
        self.locate = net.head.regression_head

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict boxes and classes for a batch; see `ShelfDetector.forward`."""
        features = list(self.fpn(self.trunk(x)).values())
        location = [_rows(self.locate.bbox_reg(self.locate.conv(f)), 4) for f in features]
        logits = [
            _rows(self.classify.cls_logits(self.classify.conv(f)), self.classes) for f in features
        ]
        return torch.cat(location, dim=1), torch.cat(logits, dim=1)

    def first_stages(self, stages: int) -> list[nn.Module]:
        """Return the parts of the backbone that training may freeze.

        Args:
            stages: Number of parts, from the input on: stem, layer1, layer2, layer3; 0 for none.

        Returns:
            Modules of the stem and of `stages` - 1 layers; empty if `stages` is 0.
        """
        backbone = self.trunk
        return (
            [
                backbone.conv1,
                backbone.bn1,
                *[backbone.layer1, backbone.layer2, backbone.layer3][: stages - 1],
            ]
            if stages
            else []
        )


def retinanet_levels() -> tuple[AnchorLevel, ...]:
    """Return RetinaNet's anchors, finest stride first (arXiv:1708.02002, section 4).

    Sizes are 32 to 512 pixels (4 times the stride), times 2^(0, 1/3, 2/3), with aspect ratios
    (height / width) 1/2, 1 and 2: 9 anchors per cell.
    """
    return tuple(
        AnchorLevel(
            stride,
            tuple(
                (4 * stride * scale * math.sqrt(aspect), 4 * stride * scale / math.sqrt(aspect))
                for scale in (1, 2 ** (1 / 3), 2 ** (2 / 3))
                for aspect in (0.5, 1, 2)
            ),
        )
        for stride in (8, 16, 32, 64, 128)
    )
