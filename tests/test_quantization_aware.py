"""Quantization-aware training: the PyTorch network equals its int8 file and can be trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.schema_py_generated import TensorType
from ai_edge_quantizer import qtyping
from ai_edge_quantizer.algorithms.uniform_quantize import uniform_quantize_tensor
from conftest import Shelves

from shelfcount import config
from shelfcount.deploy import convert, flatbuffer, inspection, ranges
from shelfcount.metrics.threshold import Validation
from shelfcount.records import AnchorLevel, ModelSpec, ShelfcountError
from shelfcount.training import lightning_module
from shelfcount.training.fit import fit
from shelfcount.training.networks import RetinaNet, build, retinanet_levels
from shelfcount.training.quantization_aware import (
    FakeQuantized,
    fake_weights,
    scale_and_zero,
    weight_scale,
)
from shelfcount.training.runs import load_run, normalise, read_config
from shelfcount.vision.images import read_photo, stretch
from shelfcount.vision.postprocess import LOWEST_SCORE

pytestmark = pytest.mark.usefixtures("one_thread")

LEVELS = (AnchorLevel(8, ((40.0, 20.0),)), AnchorLevel(16, ((60.0, 30.0),)))


def trained_like(architecture: str = "mobilenet_v2_050") -> torch.nn.Module:
    """Return a network with random weights and with statistics that are neither 0 nor 1."""
    torch.manual_seed(0)
    net = build(architecture, 3, LEVELS, 16)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)  # type: ignore[union-attr, operator]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return net.eval()


def pixels(seed: int = 0) -> torch.Tensor:
    return normalise(
        torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (1, 3, 64, 64), np.uint8))
    )


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return trained_like()


@pytest.fixture(scope="module")
def calibrated(network: torch.nn.Module) -> FakeQuantized:
    quantized = FakeQuantized(network).eval()
    quantized.calibrate([pixels(1), pixels(2)])
    return quantized


# ---------------------------------------------------------------- traced and folded


@torch.no_grad()
def test_without_rounding_the_outputs_equal_those_of_the_original_network(
    network: torch.nn.Module, calibrated: FakeQuantized
) -> None:
    rounded = calibrated(pixels())
    with calibrated.without_rounding():
        for folded, whole in zip(calibrated(pixels()), network(pixels()), strict=True):
            # Folding batch normalisation into float32 weights changes the last digits.
            np.testing.assert_allclose(folded, whole, atol=1e-4 * float(whole.abs().max()))
    # After the block, the network rounds again.
    for before, after in zip(rounded, calibrated(pixels()), strict=True):
        assert torch.equal(before, after)


def test_the_norms_of_each_level_are_folded_into_separate_weights(
    calibrated: FakeQuantized,
) -> None:
    one, other = (calibrated.get_submodule(f"locate.convolutions.0.at{i}").weight for i in range(2))
    assert not torch.equal(one, other)  # type: ignore[arg-type]
    assert [step.name for step in calibrated.steps].count("locate.convolutions.0.at0") == 1


def test_networks_that_cannot_be_fake_quantized_are_refused() -> None:
    with pytest.raises(
        ShelfcountError, match=r"does not support the layer 'trunk\.act1' \(Hardswish\)"
    ):
        FakeQuantized(build("mobilenet_v3", 3, LEVELS, 16))
    with pytest.raises(ShelfcountError, match=r"does not support RetinaNet\. Use a phone model"):
        FakeQuantized(RetinaNet(3, retinanet_levels()))
    with pytest.raises(ShelfcountError, match="no training photos to calibrate the int8 ranges"):
        FakeQuantized(trained_like()).calibrate([])


# ---------------------------------------------------------------- rounding


@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 2.0), (0.0, 6.0), (0.3, 4.0), (-3.0, -1.0), (-0.01, 5.7), (0.0, 0.0)]
)
def test_scale_and_zero_point_are_those_of_the_quantizer(low: float, high: float) -> None:
    zero, scale = uniform_quantize_tensor.tensor_zp_scale_from_min_max(
        np.float32([low]), np.float32([high]), 8, False, qtyping.QuantGranularity.TENSORWISE
    )
    ours, our_zero = scale_and_zero(torch.tensor(low), torch.tensor(high))
    assert (float(ours), int(our_zero)) == (pytest.approx(float(scale[0]), rel=1e-6), int(zero[0]))


def test_weights_have_at_most_255_values_per_channel_and_gradients_pass() -> None:
    weights = torch.nn.Parameter(
        torch.randn(4, 3, 3, 3) * torch.tensor([1.0, 0.01, 100.0, 0.0])[:, None, None, None]
    )
    rounded = fake_weights(weights, weight_scale(weights))
    steps = (rounded / weight_scale(weights)[:, None, None, None]).detach()
    np.testing.assert_allclose(steps, steps.round(), atol=1e-3)
    # The maximum of each channel is 127 steps. A channel of zeros remains zero.
    np.testing.assert_allclose(steps.abs().amax(dim=(1, 2, 3)), [127, 127, 127, 0], atol=1e-3)
    rounded.sum().backward()
    assert weights.grad is not None
    assert torch.equal(weights.grad, torch.ones_like(weights))


def test_scales_are_shared_as_in_the_file(calibrated: FakeQuantized) -> None:
    location, logits = calibrated.outputs
    for head, output in (("locate", location), ("classify", logits)):
        assert {calibrated.range_of(f"{head}.predict.at{i}") for i in range(2)} == {
            calibrated.range_of(output)
        }
    resize = next(step for step in calibrated.steps if step.kind == "resize")
    assert calibrated.range_of(resize.name) == calibrated.range_of(resize.inputs[0])
    assert calibrated.range_of(calibrated.input) == (
        pytest.approx(-127 / 127.5),
        pytest.approx(128 / 127.5),
    )


def test_ranges_follow_the_batches_in_training_only(network: torch.nn.Module) -> None:
    quantized = FakeQuantized(network)
    quantized.calibrate([pixels(1)])
    before = quantized.ranges.clone()
    quantized.eval()(pixels(3))
    assert torch.equal(quantized.ranges, before)
    location, _ = quantized.train()(pixels(3))
    assert not torch.equal(quantized.ranges[1:], before[1:])
    assert torch.equal(quantized.ranges[0], before[0])
    location.square().sum().backward()
    for name, parameter in quantized.named_parameters():
        if not name.startswith("classify"):
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


@torch.no_grad()
def test_integer_arithmetic_in_evaluation_is_close_to_training(calibrated: FakeQuantized) -> None:
    exact = calibrated(pixels(4))[0]
    quantized = FakeQuantized(trained_like())
    quantized.load_state_dict(calibrated.state_dict())
    for module in quantized.modules():
        module.training = True
    before = quantized.ranges.clone()
    close = quantized(pixels(4))[0]
    # The ranges have moved by 1 % towards this photo, and float32 sums have rounding errors, so the
    # outputs differ by some steps.
    scale, _ = scale_and_zero(*calibrated.ranges[calibrated.rounded[calibrated.outputs[0]]])
    assert float((exact - close).abs().median() / scale) < 2
    assert not torch.equal(before, quantized.ranges)


# ---------------------------------------------------------------- int8 file


def opened(model: bytes) -> Interpreter:
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def steps_apart(
    net: FakeQuantized, model: bytes, photo: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the differences of location and scores between file and network, in int8 steps."""
    x = normalise(torch.from_numpy(photo).permute(2, 0, 1)[None])
    with torch.no_grad():
        location, logits = net.eval()(x)
    interpreter = opened(model)
    interpreter.set_tensor(
        interpreter.get_input_details()[0]["index"], x.permute(0, 2, 3, 1).contiguous().numpy()
    )
    interpreter.invoke()
    file_location, file_scores = (
        interpreter.get_tensor(o["index"]) for o in interpreter.get_output_details()
    )
    scale = float(net.scale_of(net.outputs[0]))
    # A score is a multiple of 1/256 up to 255/256 in every LiteRT file.
    scores = (logits.sigmoid().numpy() * 256).round().clip(0, 255)
    return np.abs(file_location - location.numpy()) / scale, np.abs(file_scores * 256 - scores)


@pytest.mark.slow
def test_int8_file_gives_what_the_fake_quantized_network_gives(calibrated: FakeQuantized) -> None:
    spec = ModelSpec("two", "mobilenet_v2_050", ("a", "b", "c"), 64, 64, LEVELS)
    model = convert.to_litert(calibrated, spec)
    names = ranges.match_tensors(model, calibrated)
    assert set(names.values()) == {calibrated.input, *(step.name for step in calibrated.steps)}
    quantized = convert.quantize(model, "int8", [])
    photos = np.random.default_rng(5).integers(0, 256, (4, 64, 64, 3), np.uint8)
    # The last photo is smooth, as real photos are.
    photos[-1] = stretch(photos[0, :4, :4], 64, 64)
    for photo in photos:
        location, scores = steps_apart(calibrated, quantized, photo)
        print(f"location up to {location.max():.2f} steps apart, scores up to {scores.max():.2f}")
        # XNNPACK's results are bit-equal. Other kernels may round values near a half the other way.
        assert location.max() <= 2
        assert scores.max() <= 2
        assert (location < 0.5).mean() > 0.99
    # In the bundle's file, the only QUANTIZE operator is that of the pixels.
    assert (
        inspection.operator_names(
            flatbuffer.add_input_and_postprocess(quantized, spec, LOWEST_SCORE)
        ).count("QUANTIZE")
        == 1
    )
    types = [tensor.type for tensor in flatbuffer.read_model(quantized).subgraphs[0].tensors]
    assert types.count(TensorType.INT8) > 100
    # A float32 file contains no ranges.
    assert len(convert.quantize(model, "float32", [])) <= len(model)


def test_ranges_are_stored_in_the_file(tmp_path: Path) -> None:
    released = Path(__file__).parents[1] / "export" / "release" / "drinks-int8" / "model-raw.tflite"
    if not released.exists():
        pytest.skip(f"no released bundle at {released.parent}")
    model = released.read_bytes()
    name = (
        flatbuffer.read_model(model)
        .subgraphs[0]
        .tensors[flatbuffer.read_model(model).subgraphs[0].inputs[0]]
        .name.decode()
    )
    bare, stored = ranges.extract_ranges(ranges.store_ranges(model, {name: (-1.5, 2.25)}))
    assert stored == {name: (-1.5, 2.25)}
    assert ranges.extract_ranges(bare) == (bare, {})


# ---------------------------------------------------------------- training


@pytest.mark.slow
def test_training_can_continue_with_fake_quantization(
    tmp_path: Path, shelves: Shelves, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "model.safetensors"
    start = config.load_config(None, [*tiny, "train.epochs=1"])
    fit(shelves.train, shelves.val, tmp_path / "start", start)
    (tmp_path / "start" / "model.safetensors").rename(weights)
    settings = config.load_config(
        None,
        [
            *tiny,
            "train.quantize=true",
            "train.epochs=2",
            "train.lr=1e-4",
            f"model.weights={weights}",
        ],
    )
    epochs = iter((0.1, 0.2))
    monkeypatch.setattr(
        lightning_module,
        "validate",
        lambda data, detections: Validation(0.5, 0.25, mean_ap=next(epochs)),
    )
    trained = fit(shelves.train, shelves.val, tmp_path / "run", settings)
    assert read_config(tmp_path / "run").train.quantize
    loaded = load_run(tmp_path / "run")
    assert isinstance(loaded.net, FakeQuantized)
    # The loaded network equals the one that was validated, including its ranges.
    image = read_photo(shelves.val.photos[0].path)
    for ours, theirs in zip(trained.heads(image), loaded.heads(image), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (loaded.net.ranges[:, 1] > loaded.net.ranges[:, 0]).all()


def test_fine_tuning_needs_a_trained_detector(
    tmp_path: Path, shelves: Shelves, tiny: tuple[str, ...]
) -> None:
    settings = config.load_config(None, [*tiny, "train.quantize=true", "train.epochs=1"])
    with pytest.raises(
        ShelfcountError,
        match=r"model\.weights is 'none', but train\.quantize fine-tunes a trained detector\. "
        r"Set model\.weights to the path of its \.safetensors file",
    ):
        fit(shelves.train, shelves.val, tmp_path, settings)
