"""From PyTorch to a float32 LiteRT file, and from there to float16, dynamic and full int8.

Two steps on purpose: conversion must not change the numbers (its output equals PyTorch's but for
rounding), quantization may, and by how much is measured.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from shelfcount.deploy import flatbuffer, ranges
from shelfcount.records import ModelSpec, ShelfcountError
from shelfcount.training.fake_quant import FakeQuantized
from shelfcount.vision.images import PIXEL_SCALE, PIXEL_ZERO

RECIPES = ("float32", "float16", "dynamic", "int8")


class _Exported(nn.Module):
    """The network as the file holds it: NHWC in, location and scores out, sigmoid inside."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        location, logits = self.net(image.permute(0, 3, 1, 2))
        return location, logits.sigmoid()


def to_litert(net: nn.Module, spec: ModelSpec) -> bytes:
    """Convert a trained network.

    Args:
        net: Maps (1, 3, H, W) in [-1, 1] to (location, logits).
        spec: Gives H and W.

    Returns:
        A float32 flatbuffer: one input (1, H, W, 3) float32 in [-1, 1]; outputs location (1, A, 4)
        and scores (1, A, C), in this order. Of a `FakeQuantized` network, with its weights unrounded, and its
        ranges kept with the tensors.
    """
    if isinstance(net, FakeQuantized):
        with net.without_rounding():
            data = _converted(net, spec)
        return ranges.put(data, ranges.of_network(data, net))
    return _converted(net, spec)


def _converted(net: nn.Module, spec: ModelSpec) -> bytes:
    example = torch.zeros(1, spec.height, spec.width, 3)
    exported = _Exported(net).eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        import litert_torch

        path = Path(folder) / "model.tflite"
        litert_torch.convert(exported, (example,)).export(str(path))
        return path.read_bytes()


def quantize(model: bytes, recipe: str, calibration: Iterable[np.ndarray]) -> bytes:
    """Quantize a float32 file; inputs and outputs stay float32.

    Args:
        model: From `to_litert`.
        recipe: One of `RECIPES`.
        calibration: (H, W, 3) uint8 training photos, stretched as at test time; read for int8 only, and
            there only where the file holds no ranges of its own.

    Returns:
        A flatbuffer with the same inputs and outputs.

    Raises:
        ShelfcountError: If the recipe is unknown or there are no calibration photos for int8.
    """
    if recipe not in RECIPES:
        raise ShelfcountError(f"unknown recipe '{recipe}'. Recipes are: {', '.join(RECIPES)}")
    model, known = ranges.take(model)
    if recipe == "float32":
        return model
    with tempfile.TemporaryDirectory() as folder, _quiet():
        from ai_edge_quantizer import qtyping, quantizer
        from ai_edge_quantizer import recipe as recipes

        operation = qtyping.TFLOperationName
        source, target = Path(folder) / "float.tflite", Path(folder) / "quantized.tflite"
        source.write_bytes(model)
        job = quantizer.Quantizer(str(source))
        calibrated = None
        if recipe == "float16":
            half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
            options = qtyping.OpQuantizationConfig(
                weight_tensor_config=half,
                compute_precision=qtyping.ComputePrecision.FLOAT,
                explicit_dequantize=True,
            )
            job.update_quantization_recipe(".*", operation.ALL_SUPPORTED, options, "float_casting")
        elif recipe == "dynamic":
            job.load_quantization_recipe(recipes.dynamic_wi8_afp32())
            # XNNPACK has no depthwise convolution of float pixels with int8 weights; they are few, and stay float.
            job.update_quantization_recipe(
                ".*", operation.DEPTHWISE_CONV_2D, algorithm_key="no_quantize"
            )
        else:
            job.load_quantization_recipe(recipes.static_wi8_ai8())
            for boundary in (operation.INPUT, operation.OUTPUT):
                job.update_quantization_recipe(".*", boundary, algorithm_key="no_quantize")
            # Groups have a mean and a variance for each photo: they fold into no weights, and int8 is too coarse for them.
            job.update_quantization_recipe(
                ".*GroupNorm.*", operation.ALL_SUPPORTED, algorithm_key="no_quantize"
            )
            calibrated = (
                _as_calibrated(model, known)
                if known
                else job.calibrate(_signature(model, calibration), num_threads=2)
            )
        job.quantize(calibrated).export_model(str(target))
        return target.read_bytes()


def _as_calibrated(
    model: bytes, known: Mapping[str, tuple[float, float]]
) -> dict[str, dict[str, np.ndarray]]:
    # In the form of the quantizer's own calibration: arrays of the tensor's rank.
    rank = {
        tensor.name.decode(): len(tensor.shape)
        for tensor in flatbuffer.read(model).subgraphs[0].tensors
    }
    return {
        name: {
            end: np.full([1] * rank[name], bound, np.float32)
            for end, bound in zip(("min", "max"), bounds, strict=True)
        }
        for name, bounds in known.items()
    }


def _signature(
    model: bytes, calibration: Iterable[np.ndarray]
) -> dict[str, list[dict[str, np.ndarray]]]:
    from ai_edge_litert.interpreter import Interpreter

    (key, signature), *_ = Interpreter(model_content=model).get_signature_list().items()
    (name,) = signature["inputs"]
    samples = []
    for pixels in calibration:
        # Black and white in a corner pin the input's range to that of pixels: then the int8 input
        # is the pixel byte itself, moved by 128.
        pinned = pixels.copy()
        pinned[0, 0], pinned[0, 1] = 0, 255
        samples.append({name: (pinned[None].astype(np.float32) - PIXEL_ZERO) / PIXEL_SCALE})
    if not samples:
        raise ShelfcountError("int8 needs training photos to calibrate on, got none")
    return {key: samples}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # The converter and the quantizer narrate on stdout, on stderr and, from C++, on the file
    # descriptors behind them. What they say of a failure comes with the exception.
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [(number, os.dup(number)) for number in (1, 2)]
    try:
        with open(os.devnull, "w") as nowhere:
            for number, _ in kept:
                os.dup2(nowhere.fileno(), number)
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                yield
    finally:
        for number, copy in kept:
            os.dup2(copy, number)
            os.close(copy)
        logging.root.setLevel(level)
