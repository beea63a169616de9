"""The networks: a MobileNet-SSD with a light pyramid, and the RetinaNet-ResNet50 it has to match.

Both map a (B, 3, H, W) batch in [-1, 1] to the same two heads, so that training, export and
evaluation need no second path: ``location`` (B, A, 4) as `vision.anchors.decode` reads it, and
``logits`` (B, A, C), one independent sigmoid a class.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shelfcount.records import AnchorLevel, ShelfcountError
from shelfcount.training import backbones

# Share of anchors that hold a product at the start of training (Lin et al. 2017, arXiv:1708.02002, section 4.1).
PRIOR = 0.01
BASELINE = "resnet50"
RANDOM = "random"


def build(architecture: str, classes: int, levels: Sequence[AnchorLevel], neck: int) -> nn.Module:
    """A network with random weights.

    Args:
        architecture: Key of `backbones.FAMILY`, or 'resnet50' for the baseline.
        classes: C.
        levels: Anchors, finest first.
        neck: Channels of the pyramid; the baseline has its own 256.
    """
    if architecture == BASELINE:
        return RetinaNet(classes, levels)
    return ShelfDetector(architecture, classes, levels, neck)


class _Conv(nn.Sequential):
    """Convolution, batch normalisation, ReLU6: what int8 kernels fuse into one operator."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, groups: int = 1, active: bool = True
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        super().__init__(*layers, *([nn.ReLU6()] if active else []))


class _Separable(nn.Sequential):
    """Depthwise 3 x 3, then 1 x 1."""

    def __init__(self, channels: int) -> None:
        super().__init__(_Conv(channels, channels, 3, groups=channels), _Conv(channels, channels))


class _Head(nn.Module):
    """Tower and prediction of one kind; the convolutions are shared by all levels, the norms are not.

    Levels see different statistics, so each keeps its own normalisation; it is folded into the
    shared weights when the network is exported.
    """

    def __init__(self, channels: int, depth: int, outputs: int, places: Sequence[int]) -> None:
        super().__init__()
        if len(set(places)) != 1:
            raise ValueError(
                f"every level must have as many anchors at a place, got {list(places)}"
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
        parts = []
        for level, x in enumerate(features):
            for convolution, norms in zip(self.convolutions, self.norms, strict=True):
                x = self.active(norms[level](convolution(x)))  # type: ignore[index]
            parts.append(_rows(self.predict(x), self.outputs))
        return torch.cat(parts, dim=1)


def _rows(x: torch.Tensor, k: int) -> torch.Tensor:
    # Channels are last in the exported graph: there this permute and reshape move no data.
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, k)


class ShelfDetector(nn.Module):
    """MobileNet trunk, top-down pyramid to stride 8, shared light heads.

    Args:
        architecture: Key of `backbones.FAMILY`.
        classes: C.
        levels: Anchors, finest first, as many at a place on each level.
        neck: Channels of pyramid and heads.
    """

    def __init__(
        self, architecture: str, classes: int, levels: Sequence[AnchorLevel], neck: int
    ) -> None:
        super().__init__()
        self.trunk = backbones.make_trunk(architecture)
        info: Any = self.trunk.feature_info
        strides = info.reduction()
        wanted = [level.stride for level in levels]
        if not set(wanted) <= set(strides):
            raise ShelfcountError(
                f"'{architecture}' has strides {strides}, got anchors for {wanted}. Set model.strides to a part of them."
            )
        self.laterals = nn.ModuleList(_Conv(c, neck, active=False) for c in info.channels())
        self.smooth = nn.ModuleList(_Separable(neck) for _ in wanted)
        self.kept = [strides.index(s) for s in wanted]
        # Bilinear, because XNNPACK has no nearest-neighbour resize.
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        places = [len(level.sizes) for level in levels]
        # A class needs more looking than a place: two blocks against one.
        self.classify = _Head(neck, 2, classes, places)
        self.locate = _Head(neck, 1, 4, places)
        nn.init.normal_(self.classify.predict.weight, std=0.01)
        with torch.no_grad():
            self.classify.predict.bias.fill_(-math.log((1 - PRIOR) / PRIOR))  # type: ignore[union-attr]
            self.locate.predict.bias.zero_()  # type: ignore[union-attr]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 3, H, W) in [-1, 1] to location (B, A, 4) and logits (B, A, C)."""
        return self.from_features(self.trunk(x))

    def from_features(self, trunk: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Pyramid and heads alone, from the trunk's features, finest first."""
        pyramid = [lateral(f) for lateral, f in zip(self.laterals, trunk, strict=True)]
        for i in range(len(pyramid) - 2, -1, -1):
            pyramid[i] = pyramid[i] + self.up(pyramid[i + 1])
        features = [smooth(pyramid[i]) for smooth, i in zip(self.smooth, self.kept, strict=True)]
        return self.locate(features), self.classify(features)

    def early(self, stages: int) -> list[nn.Module]:
        """Stem and first stages of the trunk: edges and colours, which ImageNet taught well enough."""
        trunk: Any = self.trunk
        return [trunk.conv_stem, trunk.bn1, *list(trunk.blocks)[:stages]] if stages else []

    def load_start(self, architecture: str, source: str) -> str:
        """Pretrained weights from 'shipped', 'network', 'none' or a file; returns how, for the record."""
        if source == "none":
            return RANDOM
        if source == "shipped":
            path = backbones.SHIPPED / f"{architecture}.safetensors"
            if not path.exists():
                raise ShelfcountError(
                    f"the package ships no weights for '{architecture}'. "
                    "Use --set model.weights=network (needs a network once), =none, or a .safetensors file."
                )
            source = str(path)
        if source != "network" and (state := _detector_weights(Path(source))):
            missing, total = _load_what_fits(self, state)
            return f"{_shown(Path(source))} ({total - missing} of {total} tensors){_earlier(Path(source))}"
        return backbones.load_trunk(self.trunk, architecture, source)


class RetinaNet(nn.Module):
    """torchvision's RetinaNet-ResNet50-FPN-v2 body and heads behind the common interface.

    Resize, anchors, decoding and suppression are this package's own, so that baseline and phone
    model differ in the network alone.

    Args:
        classes: C.
        levels: Anchors of strides 8, 16, 32, 64 and 128.
    """

    def __init__(self, classes: int, levels: Sequence[AnchorLevel]) -> None:
        super().__init__()
        from torchvision.models.detection import retinanet_resnet50_fpn_v2

        net = retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=classes)
        if [level.stride for level in levels] != [8, 16, 32, 64, 128] or {
            len(level.sizes) for level in levels
        } != {9}:
            raise ShelfcountError(
                "the ResNet-50 baseline has 9 anchors at strides 8, 16, 32, 64 and 128 (`retinanet_levels`)"
            )
        self.trunk = net.backbone.body
        self.fpn = net.backbone.fpn
        self.classes = classes
        self.classify = net.head.classification_head
        self.locate = net.head.regression_head

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 3, H, W) in [-1, 1] to location (B, A, 4) and logits (B, A, C)."""
        features = list(self.fpn(self.trunk(x)).values())
        location = [_rows(self.locate.bbox_reg(self.locate.conv(f)), 4) for f in features]
        logits = [
            _rows(self.classify.cls_logits(self.classify.conv(f)), self.classes) for f in features
        ]
        return torch.cat(location, dim=1), torch.cat(logits, dim=1)

    def early(self, stages: int) -> list[nn.Module]:
        """Stem and first stages of the trunk."""
        trunk = self.trunk
        return (
            [trunk.conv1, trunk.bn1, *[trunk.layer1, trunk.layer2, trunk.layer3][: stages - 1]]
            if stages
            else []
        )

    def load_start(self, architecture: str, source: str) -> str:
        """'network' for torchvision's ImageNet ResNet-50, 'none', or a file; returns how, for the record."""
        if source in ("none", "shipped"):
            return RANDOM
        if source == "network":
            from torchvision.models import ResNet50_Weights

            try:
                state = ResNet50_Weights.IMAGENET1K_V1.get_state_dict(
                    progress=True, check_hash=True
                )
            except OSError as error:
                raise ShelfcountError(
                    f"torchvision's ResNet-50 weights could not be fetched ({error}). They need the network once; "
                    "without one use --set model.weights=none or the path of a .safetensors file."
                ) from error
            self.trunk.load_state_dict(state, strict=False)
            backbones.fold_normalisation(self.trunk)
            return "torchvision ResNet50_Weights.IMAGENET1K_V1"
        state = backbones.read_safetensors(Path(source))
        if "conv1.weight" in state:
            self.trunk.load_state_dict(backbones.in_order(self.trunk.state_dict(), state, source))
            backbones.fold_normalisation(self.trunk)
            return Path(source).name
        missing, total = _load_what_fits(self, state)
        return (
            f"{_shown(Path(source))} ({total - missing} of {total} tensors){_earlier(Path(source))}"
        )


def retinanet_levels() -> tuple[AnchorLevel, ...]:
    """RetinaNet's anchors: sizes 32 to 512 times 2^(0, 1/3, 2/3), aspects 1/2, 1 and 2 (arXiv:1708.02002, section 4)."""
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


def _shown(path: Path) -> str:
    # Every run calls its weights model.safetensors; its folder tells them apart.
    return f"{path.absolute().parent.name}/{path.name}"


def _earlier(path: Path) -> str:
    # What a network was before it was what it starts from now: a baseline that has seen synthetic shelves is no random one.
    try:
        start = json.loads((path.absolute().parent / "spec.json").read_text())["provenance"][
            "start"
        ]
    except (OSError, ValueError, LookupError, TypeError):
        # Weights without a run beside them, or a damaged one: they serve as well, and say less of themselves.
        return ""
    return f", from {start}" if isinstance(start, str) and start else ""


def _detector_weights(path: Path) -> dict[str, torch.Tensor] | None:
    state = backbones.read_safetensors(path)
    return state if any(k.startswith("trunk.") for k in state) else None


def _load_what_fits(model: nn.Module, state: dict[str, torch.Tensor]) -> tuple[int, int]:
    # Another number of classes or anchors changes only the last convolutions; the rest is a start.
    mine = model.state_dict()
    fitting = {k: v for k, v in state.items() if k in mine and mine[k].shape == v.shape}
    if len(fitting) * 2 < len(mine):
        fit = f"{len(fitting)} of {len(mine)} tensors fit"
        raise ShelfcountError(
            f"these weights are of another model: {fit}. Give the architecture and neck they were made with."
        )
    model.load_state_dict(fitting, strict=False)
    counted = [k for k in mine if not k.endswith("num_batches_tracked")]
    return len([k for k in counted if k not in fitting]), len(counted)
