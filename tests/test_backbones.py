"""Backbones: weights from torchvision's and timm's files, folded normalisation, error messages."""

from __future__ import annotations

import re
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from shelfcount.records import ShelfcountError
from shelfcount.training import starting_weights
from shelfcount.training.backbones import FAMILY, make_backbone
from shelfcount.training.starting_weights import IMAGENET_MEAN, IMAGENET_STD, load_backbone_weights


def _shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model with statistics and scales other than 0 and 1, so that swapped tensors show.

    The model is changed in place.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                    tensor.add_(torch.rand(tensor.shape, generator=generator) * 0.2)
    return model.eval()


def _save(state: dict[str, torch.Tensor], path: Path) -> str:
    save_file({k: v.contiguous() for k, v in state.items()}, path)
    return str(path)


def _imagenet(pixels: torch.Tensor) -> torch.Tensor:
    mean, std = (
        torch.tensor(IMAGENET_MEAN)[:, None, None],
        torch.tensor(IMAGENET_STD)[:, None, None],
    )
    return (pixels / 255 - mean) / std


def _stride_8(backbone: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        # Cells in the middle, with a receptive field that ends at least 20 pixels before the
        # border: after folding, zero padding means another colour.
        return backbone(x)[0][..., 7:9, 7:9]


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randint(
        0, 256, (1, 3, 128, 128), generator=torch.Generator().manual_seed(1)
    ).float()


def test_torchvisions_file_gives_torchvisions_features(
    tmp_path: Path, pixels: torch.Tensor
) -> None:
    theirs = _shaken(torchvision.models.mobilenet_v2(weights=None))
    file = _save(theirs.state_dict(), tmp_path / "tv.safetensors")
    # This model is padded as in torchvision; `make_backbone` uses the SAME padding of TensorFlow.
    mine = timm.create_model("mobilenetv2_100", features_only=True, out_indices=(2, 3, 4)).eval()
    assert load_backbone_weights(mine, "mobilenet_v2", file) == "tv.safetensors"
    with torch.no_grad():
        expected = theirs.features[:7](_imagenet(pixels))[..., 7:9, 7:9]
    got = _stride_8(mine, (pixels - 127) / 127.5)
    assert expected.abs().mean() > 0.01
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("architecture", ["mobilenet_v4_s", "efficientnet_lite0"])
def test_timms_file_with_its_classifier_loads_by_name_and_folds_exactly(
    tmp_path: Path, pixels: torch.Tensor, architecture: str
) -> None:
    whole = _shaken(timm.create_model(FAMILY[architecture].timm_name))
    file = _save(whole.state_dict(), tmp_path / "timm.safetensors")
    plain = timm.create_model(
        FAMILY[architecture].timm_name, features_only=True, out_indices=(2, 3, 4)
    ).eval()
    expected_state = {k: v for k, v in whole.state_dict().items() if k in plain.state_dict()}
    folded = timm.create_model(
        FAMILY[architecture].timm_name, features_only=True, out_indices=(2, 3, 4)
    ).eval()
    plain.load_state_dict(expected_state)
    load_backbone_weights(folded, architecture, file)
    expected, got = _stride_8(plain, _imagenet(pixels)), _stride_8(folded, (pixels - 127) / 127.5)
    assert expected.abs().mean() > 0.01
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("architecture", FAMILY)
def test_family_gives_features_at_strides_8_16_and_32(architecture: str) -> None:
    backbone = make_backbone(architecture).eval()
    assert backbone.feature_info.reduction() == [8, 16, 32]
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, 64, 96))
    assert [tuple(f.shape[2:]) for f in features] == [(8, 12), (4, 6), (2, 3)]


def test_unknown_member_lists_the_family() -> None:
    family = r"Allowed: mobilenet_v2_fused, mobilenet_v2, .*, mobilenet_v3, resnet50"
    with pytest.raises(
        ShelfcountError, match=rf"unknown model architecture 'mobilenet_v9'\. {family}"
    ):
        make_backbone("mobilenet_v9")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {"conv.weight": torch.zeros(8, 3, 3, 3)},
            "'conv_stem.weight' has shape (8, 3, 3, 3), the model needs (32, 3, 3, 3)",
        ),
        (
            {"conv.weight": torch.zeros(32, 3, 3, 3)},
            "'bn1.weight' of shape (32,) is missing",
        ),
        # A number and a name at the same position of two keys.
        (
            {"a.0.x": torch.zeros(2), "a.b.x": torch.zeros(3)},
            "'conv_stem.weight' has shape (2,), the model needs (32, 3, 3, 3)",
        ),
        ({}, "'conv_stem.weight' of shape (32, 3, 3, 3) is missing"),
    ],
)
def test_weights_that_do_not_fit_name_tensor_and_shapes(
    tmp_path: Path, state: dict, message: str
) -> None:
    backbone = make_backbone("mobilenet_v2")
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    file = _save(state, tmp_path / "w.safetensors")
    with pytest.raises(
        ShelfcountError, match=re.escape(f"weights '{file}' do not fit the model: {message}")
    ):
        load_backbone_weights(backbone, "mobilenet_v2", file)
    assert all(torch.equal(before[k], v) for k, v in backbone.state_dict().items())


def test_weights_of_another_member_are_refused(tmp_path: Path) -> None:
    file = _save(make_backbone("mobilenet_v2_050").state_dict(), tmp_path / "half.safetensors")
    with pytest.raises(
        ShelfcountError,
        match=r"'conv_stem\.weight' has shape \(16, 3, 3, 3\), the model needs \(32, 3, 3, 3\)",
    ):
        load_backbone_weights(make_backbone("mobilenet_v2"), "mobilenet_v2", file)


@pytest.mark.parametrize("content", [None, b"", b"\x80\x04pickle"])
def test_file_that_is_missing_or_no_safetensors_is_named(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ShelfcountError, match=r"cannot read weights '.*w\.safetensors': "):
        starting_weights.read_safetensors(path)


def test_half_precision_files_are_read_as_float32(tmp_path: Path) -> None:
    file = _save(
        {"a": torch.ones(2, dtype=torch.float16), "n": torch.ones(1, dtype=torch.int64)},
        tmp_path / "h.safetensors",
    )
    state = starting_weights.read_safetensors(Path(file))
    assert (state["a"].dtype, state["n"].dtype) == (torch.float32, torch.int64)


def test_without_a_network_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # HF_HUB_OFFLINE=1 sets this constant when the hub's client is imported. The cache is empty.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ShelfcountError,
        match=r"cannot download the weights of timm's 'mobilenetv2_100' "
        r".* --set model\.weights=shipped",
    ):
        load_backbone_weights(make_backbone("mobilenet_v2"), "mobilenet_v2", "network")


def test_the_fused_backbone_is_mobilenet_v2_from_stride_8_on() -> None:
    plain, fused = make_backbone("mobilenet_v2"), make_backbone("mobilenet_v2_fused")
    for theirs, mine in ((3, 2), (4, 3)):
        shapes = [
            {k: v.shape for k, v in backbone.blocks[i].state_dict().items()}
            for backbone, i in ((plain, theirs), (fused, mine))
        ]
        assert shapes[0] == shapes[1]
    assert fused.feature_info.channels() == [32, 96, 160]


def test_the_fused_backbone_has_no_weights_in_timm() -> None:
    with pytest.raises(
        ShelfcountError, match="timm has no ImageNet weights for 'mobilenet_v2_fused'"
    ):
        load_backbone_weights(make_backbone("mobilenet_v2_fused"), "mobilenet_v2_fused", "network")
