"""Conversion from PyTorch to a float32 LiteRT file, and quantization of that file.

These are two separate steps: conversion must not change the outputs (except for float32 rounding
errors), while quantization may, and the change is measured.
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
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from torch import nn

from shelfcount.deploy import flatbuffer, ranges
from shelfcount.records import ModelSpec, ShelfcountError
from shelfcount.training.quantization_aware import FakeQuantized
from shelfcount.vision.images import network_input

# Quantization recipes: no quantization; float16 weights; int8 weights and float32 activations; int8
# weights and activations.
RECIPES = ("float32", "float16", "dynamic", "int8")


class _Exported(nn.Module):
    """Network with the interface of the .tflite file: NHWC input, and scores instead of logits."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        location, logits = self.net(image.permute(0, 3, 1, 2))
        return location, logits.sigmoid()


def to_litert(net: nn.Module, spec: ModelSpec) -> bytes:
    """Convert a trained network to a float32 .tflite file.

    Args:
        net: Network that maps (1, 3, H, W) float32 in [-1, 1] to (location, logits).
        spec: Specification of the model; it gives the input size H x W.

    Returns:
        Content of the file. It has one input, (1, H, W, 3) float32 in [-1, 1], and the outputs
        location (1, A, 4) and scores (1, A, C), both float32, in this order. The file of a
        `FakeQuantized` network has the unrounded weights, and the quantization ranges are stored
        with its tensors.

    Raises:
        ShelfcountError: If the converted file of a `FakeQuantized` network does not match its
            steps.
    """
    if isinstance(net, FakeQuantized):
        with net.without_rounding():
            data = _converted(net, spec)
        return ranges.store_ranges(data, ranges.of_network(data, net))
    return _converted(net, spec)


def _converted(net: nn.Module, spec: ModelSpec) -> bytes:
    example = torch.zeros(1, spec.height, spec.width, 3)
    exported = _Exported(net).eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        import litert_torch

        path = Path(folder) / "model.tflite"
        litert_torch.convert(exported, (example,)).export(str(path))
        return path.read_bytes()


def quantize(model: bytes, recipe: str, calibration: Iterable[NDArray[np.uint8]]) -> bytes:
    """Quantize a float32 .tflite file. Its inputs and outputs remain float32.

    Args:
        model: Content of a file from `to_litert`.
        recipe: Quantization recipe, one of `RECIPES`.
        calibration: Training photos as network inputs, each (H, W, 3) uint8 RGB. They are used for
            int8 only, and only if the file contains no quantization ranges.

    Returns:
        Content of the quantized file, with the same inputs and outputs.

    Raises:
        ShelfcountError: If the recipe is unknown, or there are no photos to calibrate int8 on.
    """
    if recipe not in RECIPES:
        raise ShelfcountError(f"unknown recipe '{recipe}'. Allowed: {', '.join(RECIPES)}")
    model, known = ranges.extract_ranges(model)
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
            # XNNPACK has no depthwise convolution of float32 inputs with int8 weights. These
            # convolutions have few weights, so they remain float32.
            job.update_quantization_recipe(
                ".*", operation.DEPTHWISE_CONV_2D, algorithm_key="no_quantize"
            )
        else:
            job.load_quantization_recipe(recipes.static_wi8_ai8())
            for boundary in (operation.INPUT, operation.OUTPUT):
                job.update_quantization_recipe(".*", boundary, algorithm_key="no_quantize")
            # Group normalisation computes mean and variance per photo, so it cannot be folded into
            # weights, and int8 is not precise enough for it.
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
) -> dict[str, dict[str, NDArray[np.float32]]]:
    # In the format of the quantizer's calibration: arrays with the tensor's number of dimensions.
    rank = {
        tensor.name.decode(): len(tensor.shape)
        for tensor in flatbuffer.read_model(model).subgraphs[0].tensors
    }
    return {
        name: {
            end: np.full([1] * rank[name], bound, np.float32)
            for end, bound in zip(("min", "max"), bounds, strict=True)
        }
        for name, bounds in known.items()
    }


def _signature(
    model: bytes, calibration: Iterable[NDArray[np.uint8]]
) -> dict[str, list[dict[str, NDArray[np.float32]]]]:
    (key, signature), *_ = Interpreter(model_content=model).get_signature_list().items()
    (name,) = signature["inputs"]
    samples = []
    for pixels in calibration:
        # A black and a white pixel in a corner fix the input's range: then int8 input value =
        # uint8 pixel - 128.
        pinned = pixels.copy()
        pinned[0, 0], pinned[0, 1] = 0, 255
        samples.append({name: network_input(pinned, (1, *pinned.shape), np.float32)})
    if not samples:
        raise ShelfcountError(
            "no training photos to calibrate int8 on. Give at least one, or use another recipe."
        )
    return {key: samples}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # The converter and the quantizer print to stdout, to stderr and, from C++, to their file
    # descriptors. All information about a failure is in the exception.
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [(number, os.dup(number)) for number in (1, 2)]
    try:
        with open(os.devnull, "w") as null:
            for number, _ in saved:
                os.dup2(null.fileno(), number)
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                yield
    finally:
        for number, copy in saved:
            os.dup2(copy, number)
            os.close(copy)
        logging.root.setLevel(level)
