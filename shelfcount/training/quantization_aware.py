"""Fake quantization for quantization-aware training (QAT) of a detector.

A fake-quantized detector computes in float32 what its int8 .tflite file will compute in integers.
The network is traced and split into the operators of that file: convolutions with folded batch
normalisation and fused activation, additions, resizes, and concatenations of the pyramid levels.
Weights are quantized to symmetric int8 with one scale per output channel, activations to asymmetric
int8 with one scale per tensor (Jacob et al. 2018, arXiv:1712.05877). Gradients are those of the
straight-through estimator: the rounding is treated as the identity.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from shelfcount.records import ShelfcountError
from shelfcount.training.operator_tracing import (
    QuantizedOperator,
    own_ranges,
    shared_ranges,
    trace_operators,
)
from shelfcount.vision.images import PIXEL_SCALE, PIXEL_ZERO

# LiteRT 8-bit quantization specification: int8 weights are in [-127, 127], int8 activations in
# [-128, 127].
WEIGHT_STEPS = 127
INT8_MIN, INT8_MAX = -128, 127
# Minimum width of a tensor's range, as in ai-edge-quantizer, so that no scale is 0.
NARROWEST = 1e-9
# Weight of a training batch in the moving average of the ranges, which spans about 100 steps.
MOMENTUM = 0.01


class FakeQuantized(nn.Module):
    """Detector with folded batch normalisation and fake quantization.

    The weights have the same paths as in the original network. A convolution that the pyramid
    levels share becomes one convolution per level (``.at0``, ``.at1``), since the batch
    normalisation of each level is folded into it. In training mode, the quantization ranges follow
    the batches as a moving average.

    Args:
        net: Trained `detector.ShelfDetector`. It is copied and not changed.

    Raises:
        ShelfcountError: If `net` is not a `ShelfDetector`, or contains an operator that cannot be
            fake-quantized.
    """

    ranges: torch.Tensor

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.steps, convolutions, self.outputs = trace_operators(net)
        for name, module in convolutions.items():
            _attach(self, name, module)
        self.input = self.steps[0].inputs[0]
        self.rounded = {name: i for i, name in enumerate([self.input, *own_ranges(self.steps)])}
        self._row = shared_ranges(self.steps, self.rounded)
        self.register_buffer("ranges", torch.zeros(len(self.rounded), 2))
        # The input's quantization is fixed: int8 value = uint8 pixel - 128.
        self.ranges[0] = torch.tensor(
            [(0 - PIXEL_ZERO) / PIXEL_SCALE, (255 - PIXEL_ZERO) / PIXEL_SCALE]
        )
        self._rounding = True

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict boxes and classes for a batch; see `detector.ShelfDetector.forward`."""
        location, logits = self.outputs
        values = self.values(x)
        return values[location], values[logits]

    def values(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the outputs of all steps.

        Args:
            x: (B, 3, H, W) float32 in [-1, 1].

        Returns:
            Quantized input and the output of every step, float32, by name.
        """
        # In half precision, rounding errors would be larger than those of int8.
        with torch.autocast(x.device.type, enabled=False):
            values = {self.input: self._round(self.input, x.float())}
            for step in self.steps:
                values[step.name] = self._run(step, [values[name] for name in step.inputs])
        return values

    @contextlib.contextmanager
    def without_rounding(self) -> Iterator[None]:
        """Compute in float32, without fake quantization, inside the ``with`` block."""
        before, self._rounding = self._rounding, False
        try:
            yield
        finally:
            self._rounding = before

    def calibrate(self, batches: Iterable[torch.Tensor]) -> None:
        """Set the quantization ranges from the activations of the float32 network.

        The range of a tensor is the mean minimum and the mean maximum over the photos. The range of
        the input is not changed.

        Args:
            batches: Batches of training photos, each (B, 3, H, W) float32 in [-1, 1]; at least one.

        Raises:
            ShelfcountError: If `batches` is empty.
        """
        extremes = [self._seen(batch) for batch in batches]
        if not extremes:
            raise ShelfcountError(
                "no training photos to calibrate the int8 ranges. Give at least one."
            )
        self.ranges[1:] = torch.stack(extremes).mean(dim=0)[1:]

    def range_of(self, name: str) -> tuple[float, float]:
        """Return the minimum and maximum that int8 can represent in a tensor.

        Args:
            name: Name of a step, or of the network's input.

        Returns:
            Minimum and maximum; the range contains 0.
        """
        low, high = self.ranges[self._row[name]].tolist()
        return min(low, 0.0), max(high, 0.0)

    def scale_of(self, name: str) -> torch.Tensor:
        """Return the int8 scale of a tensor.

        Args:
            name: Name of a step, or of the network's input.

        Returns:
            () float32, the difference of two neighbouring int8 values.
        """
        return scale_and_zero(*self.ranges[self._row[name]])[0]

    def first_stages(self, stages: int) -> list[nn.Module]:
        """Return the backbone parts that training may freeze, see `ShelfDetector.first_stages`."""
        backbone: Any = self.trunk
        return [backbone.conv_stem, *list(backbone.blocks.children())[:stages]] if stages else []

    @torch.no_grad()
    def _seen(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the (ranges, 2) minima and maxima of one batch in the float32 network."""
        with self.without_rounding():
            values = self.values(batch)
        return torch.stack([_extremes(values[name]) for name in self.rounded])

    def _run(self, step: QuantizedOperator, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        if step.kind == "conv":
            x = self._convolve(step, inputs[0])
            x = (
                nn.functional.relu6(x)
                if step.activation == "relu6"
                else nn.functional.relu(x)
                if step.activation
                else x
            )
        elif step.kind == "add":
            x = self._add(step, inputs)
        elif step.kind == "resize":
            return self._resize(step, inputs[0])
        elif step.kind == "flatten":
            x = inputs[0].permute(0, 2, 3, 1).reshape(inputs[0].shape[0], -1, step.columns)
        else:
            x = torch.cat(list(inputs), dim=1)
        return self._round(step.name, x)

    def _convolve(self, step: QuantizedOperator, x: torch.Tensor) -> torch.Tensor:
        convolution: Any = self.get_submodule(step.name)
        if not self._rounding:
            return convolution(x)
        bias, scale = convolution.bias, weight_scale(convolution.weight)
        weight = fake_weights(convolution.weight, scale)

        # The file's bias is int32; its scale is the weights' scale times the input's scale.
        step_in = self.scale_of(step.inputs[0])
        unit = scale * step_in
        whole = (bias / unit).round()
        if self.training:
            return functional_call(
                convolution, {"weight": weight, "bias": bias + (whole * unit - bias).detach()}, x
            )
        # As in the file: float32 adds these integers without rounding error, as int32 does, and
        # XNNPACK requantizes the sum with one float32 multiplication. If one value in a million
        # were rounded the other way, hundreds of output values would differ.
        parts = {"weight": (weight / scale[:, None, None, None]).round(), "bias": whole}
        sums = functional_call(convolution, parts, (x / step_in).round())
        step_out = self.scale_of(step.name)
        return (sums * (unit / step_out)[:, None, None]).round() * step_out

    def _add(self, step: QuantizedOperator, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        if self.training or not self._rounding:
            return inputs[0] + inputs[1]
        # XNNPACK adds in int32 (src/microparams-init.c, xnn_init_qs8_add_minmax_scalar_params): the
        # greater factor has 21 bits, and halves are rounded up. float64 holds the sums exactly.
        out, scales = self.scale_of(step.name), [self.scale_of(name) for name in step.inputs]
        factors = [float(scale / out) for scale in scales]
        one = 2.0 ** (21 - math.frexp(max(factors))[1])
        products = [
            (x / scale).round().double() * round(factor * one)
            for x, scale, factor in zip(inputs, scales, factors, strict=True)
        ]
        return (torch.stack(products).sum(dim=0) / one + 0.5).floor().float() * out

    def _resize(self, step: QuantizedOperator, x: torch.Tensor) -> torch.Tensor:
        larger = nn.functional.interpolate(
            x, scale_factor=float(step.columns), mode="bilinear", align_corners=False
        )
        if not self._rounding:
            return larger
        scale = self.scale_of(step.name)
        # XNNPACK interpolates the integers and rounds halves up. Here they are interpolated as
        # integers in float32 too, which represents the resulting sixteenths exactly.
        with torch.no_grad():
            whole = nn.functional.interpolate(
                (x / scale).round(),
                scale_factor=float(step.columns),
                mode="bilinear",
                align_corners=False,
            )
            rounded = (whole + 0.5).floor() * scale
        return larger + (rounded - larger).detach()

    def _round(self, name: str, x: torch.Tensor) -> torch.Tensor:
        if name not in self.rounded or not self._rounding:
            return x
        bounds = self.ranges[self.rounded[name]]
        if self.training and name != self.input:
            with torch.no_grad():
                bounds.lerp_(_extremes(x), MOMENTUM)
        scale, zero = scale_and_zero(bounds[0], bounds[1])
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, INT8_MIN, INT8_MAX)


def scale_and_zero(low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scale and zero point of an int8 tensor, as ai-edge-quantizer computes them.

    Args:
        low: () float32, minimum of the range; reduced to 0 if it is above.
        high: () float32, maximum of the range; raised to 0 if it is below.

    Returns:
        Scale, () float32, and zero point, () int32 in [-128, 127].
    """
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    scale = (high - low).clamp(min=NARROWEST) / (INT8_MAX - INT8_MIN)
    return scale, (INT8_MIN - low / scale).round().to(torch.int32)


def _extremes(x: torch.Tensor) -> torch.Tensor:
    # (2,) float32: mean minimum and mean maximum over the photos of a batch. Means, so that the
    # result does not depend on the batch size.
    return torch.stack([end.mean() for end in x.flatten(1).aminmax(dim=1)])


def weight_scale(weights: torch.Tensor) -> torch.Tensor:
    """Return the int8 scales of convolution weights.

    Args:
        weights: (out, in, h, w) float32.

    Returns:
        (out,) float32, one scale per output channel: the channel's maximum magnitude / 127.
    """
    return weights.detach().abs().amax(dim=(1, 2, 3)).clamp(min=NARROWEST) / WEIGHT_STEPS


def fake_weights(weights: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Fake-quantize convolution weights to symmetric int8.

    Args:
        weights: (out, in, h, w) float32.
        scale: (out,) float32 from `weight_scale`.

    Returns:
        (out, in, h, w) float32, multiples of `scale`. The gradient is that of the identity.
    """
    scale = scale[:, None, None, None]
    # A division, as in the quantizer. PyTorch's own operator multiplies by 1 / scale, which rounds
    # some weights near a half the other way.
    return weights + ((weights / scale).round() * scale - weights).detach()


def _attach(root: nn.Module, path: str, module: nn.Module) -> None:
    *folders, leaf = path.split(".")
    for folder in folders:
        if not hasattr(root, folder):
            root.add_module(folder, nn.Module())
        root = getattr(root, folder)
    root.add_module(leaf, module)
