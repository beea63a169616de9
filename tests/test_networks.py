"""Networks: output rows are in the order of the anchors, and weights load if they fit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from shelfcount.records import AnchorLevel, ShelfcountError
from shelfcount.training import backbones, starting_weights
from shelfcount.training.backbones import FAMILY
from shelfcount.training.networks import (
    BASELINE,
    PRIOR,
    RANDOM,
    ShelfDetector,
    build,
    retinanet_levels,
)
from shelfcount.training.starting_weights import start_weights
from shelfcount.vision import anchors

LEVELS = (
    AnchorLevel(8, ((20.0, 10.0), (30.0, 15.0))),
    AnchorLevel(16, ((40.0, 20.0), (60.0, 30.0))),
)
HEIGHT, WIDTH, CLASSES = 64, 96, 3
PLACES = torch.from_numpy(anchors.anchor_grid(LEVELS, HEIGHT, WIDTH)) * torch.tensor(
    [HEIGHT, WIDTH, HEIGHT, WIDTH]
)


def _small(classes: int = CLASSES, neck: int = 16, levels: tuple = LEVELS) -> ShelfDetector:
    torch.manual_seed(0)
    return build("mobilenet_v2_050", classes, levels, neck).eval()


@pytest.fixture(scope="module")
def baseline() -> torch.nn.Module:
    torch.manual_seed(0)
    return build(BASELINE, CLASSES, retinanet_levels(), 0).eval()


@pytest.mark.parametrize("architecture", FAMILY)
def test_every_member_gives_a_row_for_every_anchor(architecture: str) -> None:
    with torch.no_grad():
        location, logits = build(architecture, CLASSES, LEVELS, 16).eval()(
            torch.zeros(2, 3, HEIGHT, WIDTH)
        )
    assert location.shape == (2, len(PLACES), 4)
    assert logits.shape == (2, len(PLACES), CLASSES)


@pytest.mark.parametrize(("level", "row", "column"), [(0, 3, 7), (0, 0, 11), (1, 2, 4), (1, 3, 0)])
def test_output_rows_are_in_the_order_of_the_anchors(level: int, row: int, column: int) -> None:
    net = _small()
    features = [torch.zeros(1, 16, HEIGHT // lv.stride, WIDTH // lv.stride) for lv in LEVELS]
    with torch.no_grad():
        before = net.locate(features)
        features[level][0, :, row, column] = torch.randn(16) * 10
        changed = ((net.locate(features) - before).abs().amax(dim=2)[0] > 1e-6).nonzero().flatten()
    # One 3 x 3 convolution changes the anchors of this level within one cell of the changed cell.
    stride = LEVELS[level].stride
    center = torch.tensor([(row + 0.5) * stride, (column + 0.5) * stride])
    near = ((PLACES[:, :2] - center).abs() < 1.5 * stride).all(dim=1)
    first = 0 if level == 0 else (HEIGHT // 8) * (WIDTH // 8) * 2
    last = (HEIGHT // 8) * (WIDTH // 8) * 2 if level == 0 else len(PLACES)
    of_level = (torch.arange(len(PLACES)) >= first) & (torch.arange(len(PLACES)) < last)
    assert changed.tolist() == (near & of_level).nonzero().flatten().tolist()


def test_anchors_of_one_cell_are_consecutive_rows() -> None:
    net = _small()
    with torch.no_grad():
        net.locate.predict.weight.zero_()
        # Channels: the four deltas of the first size, then those of the second.
        net.locate.predict.bias.copy_(torch.arange(8.0))
        location, _ = net(torch.zeros(1, 3, HEIGHT, WIDTH))
    second = (PLACES[:, 2] == 30) | (PLACES[:, 2] == 60)
    assert (location[0, ~second] == torch.arange(4.0)).all()
    assert (location[0, second] == torch.arange(4.0, 8.0)).all()


def test_training_starts_at_the_prior() -> None:
    with torch.no_grad():
        location, logits = _small()(torch.zeros(1, 3, HEIGHT, WIDTH))
    assert logits.sigmoid().mean() == pytest.approx(PRIOR, rel=0.1)
    assert location.abs().mean() < 1


def test_levels_are_chosen_by_stride() -> None:
    net = _small(levels=(LEVELS[1],))
    with torch.no_grad():
        location, _ = net(torch.zeros(1, 3, HEIGHT, WIDTH))
    assert location.shape == (1, 4 * 6 * 2, 4)


def test_level_without_a_feature_map_and_uneven_anchor_numbers_are_refused() -> None:
    with pytest.raises(
        ShelfcountError,
        match=re.escape(
            "the anchors have strides [8, 64], but 'mobilenet_v2_050' has feature maps of "
            "strides [8, 16, 32] only"
        ),
    ):
        _small(levels=(LEVELS[0], AnchorLevel(64, ((90.0, 90.0),) * 2)))
    with pytest.raises(
        ValueError, match=re.escape("different numbers of anchors per feature-map cell: [2, 1]")
    ):
        _small(levels=(LEVELS[0], AnchorLevel(16, ((40.0, 20.0),))))


def test_early_stages_are_the_first_of_the_backbone() -> None:
    net = _small()
    assert net.first_stages(0) == []
    assert net.first_stages(2) == [
        net.trunk.conv_stem,
        net.trunk.bn1,
        net.trunk.blocks[0],
        net.trunk.blocks[1],
    ]


def test_baseline_has_retinanets_rows(baseline: torch.nn.Module) -> None:
    x = torch.rand(1, 3, 128, 128) * 2 - 1
    with torch.no_grad():
        location, logits = baseline(x)
        features = list(baseline.fpn(baseline.trunk(x)).values())
        # torchvision's heads order their rows as its anchor generator does: cell by cell.
        expected_location, expected_logits = baseline.locate(features), baseline.classify(features)
    assert [tuple(f.shape[2:]) for f in features] == [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]
    assert location.shape == (1, len(anchors.anchor_grid(retinanet_levels(), 128, 128)), 4)
    torch.testing.assert_close(location, expected_location)
    torch.testing.assert_close(logits, expected_logits)


def test_retinanets_anchor_sizes() -> None:
    levels = retinanet_levels()
    assert [level.stride for level in levels] == [8, 16, 32, 64, 128]
    # Areas 32^2 to 512^2 at scale 1, each with three aspect ratios: section 4 of the paper.
    for level, side in zip(levels, (32, 64, 128, 256, 512), strict=True):
        assert len(level.sizes) == 9
        assert [h * w for h, w in level.sizes[:3]] == pytest.approx([side**2] * 3)
        assert [h / w for h, w in level.sizes[:3]] == pytest.approx([0.5, 1, 2])


def test_baseline_takes_only_its_own_levels() -> None:
    with pytest.raises(ShelfcountError, match="9 anchors at strides 8, 16, 32, 64 and 128"):
        build(BASELINE, CLASSES, LEVELS, 0)


def test_weights_of_a_run_are_loaded_completely(tmp_path: Path) -> None:
    net = _small()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    torch.manual_seed(1)
    other = build("mobilenet_v2_050", CLASSES, LEVELS, 16).eval()
    total = sum(not k.endswith("num_batches_tracked") for k in net.state_dict())
    assert (
        start_weights(other, "mobilenet_v2_050", str(tmp_path / "w.safetensors"))
        == f"{tmp_path.name}/w.safetensors ({total} of {total} tensors)"
    )
    x = torch.rand(1, 3, HEIGHT, WIDTH)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(net(x), other(x), strict=True))


def test_with_other_classes_all_but_the_last_convolution_is_loaded(tmp_path: Path) -> None:
    save_file(_small(classes=5).state_dict(), tmp_path / "w.safetensors")
    net = _small()
    total = sum(not k.endswith("num_batches_tracked") for k in net.state_dict())
    assert (
        start_weights(net, "mobilenet_v2_050", str(tmp_path / "w.safetensors"))
        == f"{tmp_path.name}/w.safetensors ({total - 2} of {total} tensors)"
    )
    (tmp_path / "spec.json").write_text('{"provenance": {"start": "random"}}')
    assert start_weights(net, "mobilenet_v2_050", str(tmp_path / "w.safetensors")).endswith(
        " tensors), from random"
    )
    for damaged in ("[", "[1]", '{"provenance": null}', '{"provenance": {"start": 3}}'):
        (tmp_path / "spec.json").write_text(damaged)
        assert start_weights(net, "mobilenet_v2_050", str(tmp_path / "w.safetensors")).endswith(
            " tensors)"
        )


def test_weights_of_another_detector_are_refused(tmp_path: Path) -> None:
    # A detector's file (keys 'trunk.') of another architecture: few names and shapes agree.
    save_file(build("mobilenet_v4_s", CLASSES, LEVELS, 24).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(
        ShelfcountError,
        match=r"weights are of another model: only \d+ of \d+ tensors fit\. "
        r"Set model\.architecture and model\.neck",
    ):
        start_weights(_small(), "mobilenet_v2_050", str(tmp_path / "w.safetensors"))


def test_start_is_random_or_refused_without_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert start_weights(_small(), "mobilenet_v2_050", "none") == RANDOM
    monkeypatch.setattr(starting_weights, "SHIPPED_FOLDER", tmp_path)
    with pytest.raises(
        ShelfcountError,
        match=r"contains no weights for 'mobilenet_v2_050'\. Use --set model\.weights=network",
    ):
        start_weights(_small(), "mobilenet_v2_050", "shipped")


def test_file_of_a_backbone_alone_starts_the_backbone(tmp_path: Path) -> None:
    backbone = backbones.make_backbone("mobilenet_v2_050")
    save_file(
        {k: v.contiguous() for k, v in backbone.state_dict().items()}, tmp_path / "t.safetensors"
    )
    net = _small()
    neck = net.laterals[0][0].weight.clone()
    file = tmp_path / "t.safetensors"
    assert start_weights(net, "mobilenet_v2_050", str(file)) == file.name
    assert torch.equal(net.trunk.blocks[3][0].conv_pw.weight, backbone.blocks[3][0].conv_pw.weight)
    assert torch.equal(net.laterals[0][0].weight, neck)


def test_the_baseline_starts_from_torchvisions_resnet50_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = tmp_path / "resnet50.safetensors"
    theirs = torchvision.models.resnet50(weights=None).eval()
    save_file(theirs.state_dict(), file)
    net = build(BASELINE, CLASSES, retinanet_levels(), 0).eval()
    assert start_weights(net, BASELINE, str(file)) == "resnet50.safetensors"
    pixels = torch.randint(
        0, 256, (1, 3, 128, 128), generator=torch.Generator().manual_seed(1)
    ).float()
    mean, std = (
        torch.tensor(starting_weights.IMAGENET_MEAN)[:, None, None],
        torch.tensor(starting_weights.IMAGENET_STD)[:, None, None],
    )
    with torch.no_grad():
        expected = theirs.bn1(theirs.conv1((pixels / 255 - mean) / std))
        got = net.trunk.bn1(net.trunk.conv1((pixels - 127) / 127.5))
    # Only inside, since zero padding means another colour at the border.
    torch.testing.assert_close(
        got[..., 4:-4, 4:-4], expected[..., 4:-4, 4:-4], rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(net.trunk.layer4[2].conv3.weight, theirs.layer4[2].conv3.weight)
    theirs.conv1.weight = torch.nn.Parameter(torch.zeros(64, 3, 3, 3))
    save_file(theirs.state_dict(), file)
    with pytest.raises(
        ShelfcountError,
        match=re.escape("'conv1.weight' has shape (64, 3, 3, 3), the model needs (64, 3, 7, 7)"),
    ):
        start_weights(build(BASELINE, CLASSES, retinanet_levels(), 0), BASELINE, str(file))
