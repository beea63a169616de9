"""Starting weights of networks: shipped, downloaded, or from a .safetensors file.

Weights that were trained with another mean and standard deviation of pixels are converted when
they are loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torchvision.models import ResNet50_Weights

from shelfcount.records import ShelfcountError
from shelfcount.training.backbones import FAMILY
from shelfcount.training.networks import RANDOM, RetinaNet
from shelfcount.vision.images import PIXEL_SCALE, PIXEL_ZERO

# Mean and standard deviation of ImageNet in torchvision and timm, for RGB in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Key prefixes of the classification layers, after the backbone, in torchvision's and timm's files.
CLASSIFIER_KEYS = ("classifier.", "fc.", "head.")
# Folder of the weights that the package ships.
SHIPPED_FOLDER = Path(__file__).parent.parent / "weights"


def start_weights(net: nn.Module, architecture: str, source: str) -> str:
    """Load the weights that training starts from into a detection network, in place.

    Args:
        net: Network from `networks.build`.
        architecture: Architecture that the network was made from.
        source: 'shipped' for the weights in the package, 'network' to download ImageNet weights of
            timm or, for the baseline, of torchvision, 'none' to keep the random ones, or the path
            of a safetensors file. Of a detector's file, all tensors that fit are loaded; a
            classifier's file gives the backbone's weights. The package contains no weights for the
            baseline, so 'shipped' keeps its random ones.

    Returns:
        Description of the weights for the provenance of the model; `RANDOM` if none were loaded.

    Raises:
        ShelfcountError: If the weights cannot be downloaded or read, or do not fit.
    """
    if source == "none":
        return RANDOM
    if isinstance(net, RetinaNet):
        return _start_baseline(net, source)
    backbone: Any = net.trunk
    if source == "shipped":
        path = SHIPPED_FOLDER / f"{architecture}.safetensors"
        if not path.exists():
            raise ShelfcountError(
                f"the package contains no weights for '{architecture}'. Use "
                "--set model.weights=network (needs network access once), =none, or the path "
                "of a .safetensors file."
            )
        source = str(path)
    if source != "network":
        state = read_safetensors(Path(source))
        if any(key.startswith("trunk.") for key in state):
            return _load_what_fits(net, state, Path(source))
    return load_backbone_weights(backbone, architecture, source)


def _start_baseline(net: RetinaNet, source: str) -> str:
    if source == "shipped":
        return RANDOM
    if source == "network":
        try:
            state = ResNet50_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
        except OSError as error:
            raise ShelfcountError(
                f"cannot download torchvision's ResNet-50 weights ({error}). The first "
                "download needs network access. Without it, use --set model.weights=none or "
                "the path of a .safetensors file."
            ) from error
        net.trunk.load_state_dict(state, strict=False)
        fold_normalisation(net.trunk)
        return "torchvision ResNet50_Weights.IMAGENET1K_V1"
    state = read_safetensors(Path(source))
    if "conv1.weight" in state:
        net.trunk.load_state_dict(in_order(net.trunk.state_dict(), state, source))
        fold_normalisation(net.trunk)
        return Path(source).name
    return _load_what_fits(net, state, Path(source))


def _load_what_fits(model: nn.Module, state: dict[str, torch.Tensor], path: Path) -> str:
    """Load all tensors of a detector that fit, and describe them.

    Another number of classes or anchors changes only the predicting convolutions.
    """
    mine = model.state_dict()
    fitting = {k: v for k, v in state.items() if k in mine and mine[k].shape == v.shape}
    if len(fitting) * 2 < len(mine):
        raise ShelfcountError(
            f"the weights are of another model: only {len(fitting)} of {len(mine)} tensors fit. "
            "Set model.architecture and model.neck to those of the weights."
        )
    model.load_state_dict(fitting, strict=False)
    counted = [k for k in mine if not k.endswith("num_batches_tracked")]
    loaded = sum(k in fitting for k in counted)
    # Every run names its weights model.safetensors, so the folder's name is shown too.
    name = f"{path.absolute().parent.name}/{path.name}"
    return f"{name} ({loaded} of {len(counted)} tensors){_earlier_start(path)}"


def _earlier_start(path: Path) -> str:
    # The weights that the run of this file started from: a baseline that was first trained on
    # synthetic shelves is not described like one with random weights.
    try:
        start = json.loads((path.absolute().parent / "spec.json").read_text())["provenance"][
            "start"
        ]
    except (OSError, ValueError, LookupError, TypeError):
        # No run in the file's folder, or a damaged one: the weights can be used, without this part.
        return ""
    return f", from {start}" if isinstance(start, str) and start else ""


def load_backbone_weights(backbone: nn.Module, architecture: str, source: str) -> str:
    """Load pretrained ImageNet weights into a backbone, in place.

    Args:
        backbone: Backbone from `make_backbone`.
        architecture: Key of `FAMILY` that `backbone` was made from.
        source: 'network' to download timm's weights, or the path of a safetensors file with the
            key names of torchvision or timm.

    Returns:
        Description of the weights for the provenance of the model: timm's name or the file name.

    Raises:
        ShelfcountError: If the weights cannot be downloaded or read, or do not fit the backbone.
    """
    if source == "network":
        state, note = (
            _timm_weights(architecture),
            f"timm {FAMILY[architecture].timm_name}, ImageNet",
        )
    else:
        state, note = read_safetensors(Path(source)), Path(source).name
    backbone.load_state_dict(in_order(backbone.state_dict(), state, source))
    fold_normalisation(backbone)
    return note


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a safetensors file, a format that cannot contain code.

    Args:
        path: Path of the file.

    Returns:
        Tensors by key. Floating-point tensors are converted to float32.

    Raises:
        ShelfcountError: If the file is missing or is not a safetensors file.
    """
    try:
        return {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise ShelfcountError(f"cannot read weights '{path}': {error}") from error


def fold_normalisation(backbone: nn.Module) -> None:
    """Convert a backbone from ImageNet's normalisation to ``(p - 127) / 127.5``, in place.

    With x = (p - 127) / 127.5, the input that the backbone was trained with is
    (x / 2 + 127 / 255 - mean) / std. This is linear in x: the factor is multiplied into the weights
    of the first convolution, and the constant is subtracted from the running mean of the first
    batch normalisation. The result is exact except at the border, where zero padding now means
    mid-grey instead of ImageNet's mean colour.

    Args:
        backbone: Backbone whose first convolution has no bias and is followed by batch
            normalisation.
    """
    convolution = next(m for m in backbone.modules() if isinstance(m, nn.Conv2d))
    norm = next(m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d))
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    with torch.no_grad():
        if norm.running_mean is not None:
            norm.running_mean -= (
                convolution.weight * ((PIXEL_ZERO / 255 - mean) / std)[None, :, None, None]
            ).sum(dim=(1, 2, 3))
        convolution.weight *= (PIXEL_SCALE / 255 / std)[None, :, None, None]


def in_order(
    expected: Mapping[str, torch.Tensor], stored: Mapping[str, torch.Tensor], source: str
) -> dict[str, torch.Tensor]:
    """Return the weights of a classifier under the key names of a backbone.

    torchvision and timm name the same layers differently, but list them in the same order, so the
    tensors are matched by order unless all key names are equal. The shape of every tensor is
    checked. Batch counters and the classification layers are not taken over.

    Args:
        expected: State dict of the backbone.
        stored: State dict of the classifier.
        source: Name of the weights for error messages.

    Returns:
        State dict with the keys of `expected`: weights from `stored`, batch counters from
        `expected`.

    Raises:
        ShelfcountError: If a tensor is missing or has another shape.
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
        # Tuples that start with the kind of the part: a number and a name at the same position of
        # two keys can then be compared, and any file gets an error message, not a TypeError.
        return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts[:-1]] + [(0, kind, "")]

    if set(dict(floats(expected))) <= set(stored):
        renamed = {k: stored[k] for k, _ in floats(expected)}
    else:
        # safetensors sorts keys as text ('features.10' before 'features.2'); sorting by the numbers
        # in torchvision's names restores the order of the layers.
        ordered = sorted(floats(stored), key=natural)
        renamed = dict(zip((k for k, _ in floats(expected)), (v for _, v in ordered), strict=False))
    for key, tensor in floats(expected):
        needed = tuple(tensor.shape)
        if key not in renamed:
            fault = f"'{key}' of shape {needed} is missing"
        elif tuple(renamed[key].shape) != needed:
            fault = f"'{key}' has shape {tuple(renamed[key].shape)}, the model needs {needed}"
        else:
            continue
        raise ShelfcountError(
            f"weights '{source}' do not fit the model: {fault}. "
            "Give weights of the same architecture."
        )
    return {**expected, **renamed}


def _timm_weights(architecture: str) -> dict[str, torch.Tensor]:
    name = FAMILY[architecture].timm_name
    if name is None:
        raise ShelfcountError(
            f"timm has no ImageNet weights for '{architecture}', an architecture of shelfcount. "
            "Use --set model.weights=shipped, =none, or the path of a .safetensors file."
        )
    try:
        model = timm.create_model(name, pretrained=True, features_only=True, out_indices=(2, 3, 4))
    except Exception as error:  # timm's hub client raises about a dozen types of exceptions
        raise ShelfcountError(
            f"cannot download the weights of timm's '{name}' ({type(error).__name__}: {error}). "
            "The first download needs network access. Without it, use --set "
            "model.weights=shipped, =none, or the path of a .safetensors file."
        ) from error
    return model.state_dict()
