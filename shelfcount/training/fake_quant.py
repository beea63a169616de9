"""Quantization-aware training: a detector that computes in float what its int8 file will compute in integers.

The network is taken apart into the operators of the file: convolutions with normalisation folded into
them and the activation fused, additions, resizes, and the concatenations that join the levels. Weights are rounded to int8,
symmetric, one scale an output channel; what an operator writes to int8, asymmetric, one scale a tensor
(Jacob et al. 2018, arXiv:1712.05877). Gradients pass the rounding straight through.
"""

from __future__ import annotations

import contextlib
import copy
import math
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.func import functional_call

from shelfcount.records import ShelfcountError
from shelfcount.training import detector
from shelfcount.vision.images import PIXEL_SCALE, PIXEL_ZERO

# Of int8 weights, as LiteRT's kernels want them, and of int8 activations (LiteRT 8-bit quantization specification).
WEIGHT_STEPS = 127
LOWEST, HIGHEST = -128, 127
# Narrowest range of a tensor, as ai-edge-quantizer has it, so that no scale is 0.
NARROWEST = 1e-9
# Share of a training batch in the running average of the ranges: some hundred steps of memory.
MOMENTUM = 0.01


@dataclass(frozen=True)
class Step:
    """One operator of the file.

    Attributes:
        name: Of what it writes; for a convolution the path of its module too.
        kind: 'conv', 'add', 'resize', 'rows' (NCHW to (B, places, k)) or 'concat'.
        inputs: Names of what it reads.
        activation: 'relu6', 'relu' or '', fused into the operator.
        columns: k of 'rows', factor of 'resize'.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    activation: str = ""
    columns: int = 0


class FakeQuantized(nn.Module):
    """A trained detector, folded, with the rounding of the int8 file inside.

    Weights keep the paths of the network they come from; a convolution that several levels share becomes
    one for each (``.at0``, ``.at1``), as each level's norm is folded into it. In training mode the ranges follow the batches.

    Args:
        net: From `detector.build`, with its final normalisation statistics; copied, not changed.

    Raises:
        ShelfcountError: If the network holds an operator that has no int8 counterpart here.
    """

    ranges: torch.Tensor

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.steps, convolutions, self.outputs = _taken_apart(net)
        for name, module in convolutions.items():
            _attach(self, name, module)
        self.input = self.steps[0].inputs[0]
        self.rounded = {name: i for i, name in enumerate([self.input, *_own_ranges(self.steps)])}
        self._row = _shared_ranges(self.steps, self.rounded)
        self.register_buffer("ranges", torch.zeros(len(self.rounded), 2))
        # Pixels are what they are: their int8 value is the byte itself, moved by 128.
        self.ranges[0] = torch.tensor(
            [(0 - PIXEL_ZERO) / PIXEL_SCALE, (255 - PIXEL_ZERO) / PIXEL_SCALE]
        )
        self._rounding = True

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 3, H, W) in [-1, 1] to location (B, A, 4) and logits (B, A, C)."""
        location, logits = self.outputs
        values = self.values(x)
        return values[location], values[logits]

    def values(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """What each step writes, by its name; the input, rounded, under its own."""
        # Half precision is coarser than int8's rounding.
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
        """Set the ranges to the mean of the photos' least and greatest values, of the float network.

        Args:
            batches: (B, 3, H, W) float32 in [-1, 1], at least one.

        Raises:
            ShelfcountError: If there are none.
        """
        seen = [self._seen(batch) for batch in batches]
        if not seen:
            raise ShelfcountError("int8 ranges need training photos to calibrate on, got none")
        self.ranges[1:] = torch.stack(seen).mean(dim=0)[1:]

    def range_of(self, name: str) -> tuple[float, float]:
        """Least and greatest value that int8 can hold in what the step of this name writes."""
        low, high = self.ranges[self._row[name]].tolist()
        return min(low, 0.0), max(high, 0.0)

    def scale_of(self, name: str) -> torch.Tensor:
        """() float32, the value of one int8 step of what the step of this name writes."""
        return scale_and_zero(*self.ranges[self._row[name]])[0]

    def early(self, stages: int) -> list[nn.Module]:
        """Stem and first stages of the trunk, as `ShelfDetector.early`."""
        trunk: Any = self.trunk
        return [trunk.conv_stem, *list(trunk.blocks.children())[:stages]] if stages else []

    @torch.no_grad()
    def _seen(self, batch: torch.Tensor) -> torch.Tensor:
        with self.without_rounding():
            values = self.values(batch)
        return torch.stack([_extremes(values[name]) for name in self.rounded])

    def _run(self, step: Step, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
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
        elif step.kind == "rows":
            x = inputs[0].permute(0, 2, 3, 1).reshape(inputs[0].shape[0], -1, step.columns)
        else:
            x = torch.cat(list(inputs), dim=1)
        return self._round(step.name, x)

    def _convolve(self, step: Step, x: torch.Tensor) -> torch.Tensor:
        convolution: Any = self.get_submodule(step.name)
        if not self._rounding:
            return convolution(x)
        bias, scale = convolution.bias, weight_scale(convolution.weight)
        weight = fake_weights(convolution.weight, scale)

        # The file's bias is int32 and counts products of a weight's step and an input's.
        step_in = self.scale_of(step.inputs[0])
        unit = scale * step_in
        whole = (bias / unit).round()
        if self.training:
            return functional_call(
                convolution, {"weight": weight, "bias": bias + (whole * unit - bias).detach()}, x
            )
        # float32 adds whole numbers without loss, as the file's int32 does, and XNNPACK brings the sum to the next scale
        # in one float32 product. One value in a million that falls to the other side of a half would be hundreds at the end.
        parts = {"weight": (weight / scale[:, None, None, None]).round(), "bias": whole}
        sums = functional_call(convolution, parts, (x / step_in).round())
        step_out = self.scale_of(step.name)
        return (sums * (unit / step_out)[:, None, None]).round() * step_out

    def _add(self, step: Step, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        if self.training or not self._rounding:
            return inputs[0] + inputs[1]
        # XNNPACK's addition in int32 (src/microparams-init.c, xnn_init_qs8_add_minmax_scalar_params): the greater factor
        # gets 21 bits, and halves are rounded up. float64 holds it whole.
        out, scales = self.scale_of(step.name), [self.scale_of(name) for name in step.inputs]
        factors = [float(scale / out) for scale in scales]
        one = 2.0 ** (21 - math.frexp(max(factors))[1])
        products = [
            (x / scale).round().double() * round(factor * one)
            for x, scale, factor in zip(inputs, scales, factors, strict=True)
        ]
        return (torch.stack(products).sum(dim=0) / one + 0.5).floor().float() * out

    def _resize(self, step: Step, x: torch.Tensor) -> torch.Tensor:
        larger = nn.functional.interpolate(
            x, scale_factor=float(step.columns), mode="bilinear", align_corners=False
        )
        if not self._rounding:
            return larger
        scale = self.scale_of(step.name)
        # XNNPACK interpolates the integers and rounds halves up. Integers here too: of sixteenths, none is lost.
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
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, LOWEST, HIGHEST)


def scale_and_zero(low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale (float32) and zero point (int32) of an int8 tensor for a range, 0 included, as ai-edge-quantizer computes them."""
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    scale = (high - low).clamp(min=NARROWEST) / (HIGHEST - LOWEST)
    return scale, (LOWEST - low / scale).round().to(torch.int32)


def _extremes(x: torch.Tensor) -> torch.Tensor:
    # (2,) means over the photos of a batch, so that a batch of any size has the ranges of its photos.
    return torch.stack([end.mean() for end in x.flatten(1).aminmax(dim=1)])


def weight_scale(weights: torch.Tensor) -> torch.Tensor:
    """(out,) float32, the value of one int8 step of (out, in, h, w) weights."""
    return weights.detach().abs().amax(dim=(1, 2, 3)).clamp(min=NARROWEST) / WEIGHT_STEPS


def fake_weights(weights: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """(out, in, h, w) weights rounded to int8, symmetric, with one scale an output channel."""
    scale = scale[:, None, None, None]
    # Divided, as the quantizer does: PyTorch's own operator multiplies by 1 / scale, and a weight near a half falls the other way.
    return weights + ((weights / scale).round() * scale - weights).detach()


# ---------------------------------------------------------------- taking a network apart


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # timm derives its own from both; what they do inside can't be traced.
        return isinstance(m, nn.Conv2d | nn.BatchNorm2d) or super().is_leaf_module(
            m, module_qualified_name
        )


def _taken_apart(net: nn.Module) -> tuple[tuple[Step, ...], dict[str, nn.Conv2d], tuple[str, str]]:
    if not isinstance(net, detector.ShelfDetector):
        raise ShelfcountError(
            f"quantization-aware training is for the phone models, got {type(net).__name__}"
        )
    nodes = _Tracer().trace(net).nodes
    parts = _Parts(net, Counter(str(node.target) for node in nodes))
    for node in nodes:
        parts.take(node)
    return tuple(parts.steps.values()), parts.convolutions, parts.outputs


class _Parts:
    """Steps and folded convolutions, collected node by node."""

    def __init__(self, net: nn.Module, calls: Mapping[str, int]) -> None:
        self.modules, self.calls = dict(net.named_modules()), calls
        self.steps: dict[str, Step] = {}
        self.convolutions: dict[str, nn.Conv2d] = {}
        self.outputs = ("", "")
        self._written: dict[fx.Node, str] = {}
        self._called: Counter[str] = Counter()

    def take(self, node: fx.Node) -> None:
        sources = tuple(self._written[n] for n in node.all_input_nodes)
        if node.op == "placeholder":
            self._written[node] = node.name
        elif node.op == "output":
            self.outputs = sources  # type: ignore[assignment]
        elif node.op == "call_module":
            self._written[node] = self._module(str(node.target), sources)
        elif node.target is operator.add:
            self._written[node] = self._step(node.name, "add", sources)
        elif node.target in ("permute", getattr, operator.getitem):
            # Of `detector._rows`: its reshape stands for them.
            self._written[node] = sources[0]
        elif node.target == "reshape":
            self._written[node] = self._step(
                node.name, "rows", sources[:1], columns=int(node.args[-1])
            )  # type: ignore[arg-type]
        elif node.target is torch.cat:
            self._written[node] = self._step(node.name, "concat", sources)
        else:
            raise ShelfcountError(
                f"the int8 counterpart of '{node.target}' is not known; quantization-aware training can't have it"
            )

    def _module(self, path: str, sources: tuple[str, ...]) -> str:
        module, source = self.modules[path], sources[0]
        if isinstance(module, nn.Conv2d):
            return self._convolution(path, module, source)
        if isinstance(module, nn.Upsample):
            return self._step(
                f"{path}.{source}".replace(".", "_"),
                "resize",
                sources,
                columns=int(module.scale_factor),
            )  # type: ignore[arg-type]
        if isinstance(module, nn.BatchNorm2d):
            _fold(self.convolutions[source], module)
            module = getattr(module, "act", nn.Identity())
        if isinstance(module, nn.Identity | nn.Dropout):
            return source
        activation = {nn.ReLU6: "relu6", nn.ReLU: "relu"}.get(type(module))  # type: ignore[call-overload]
        if activation is None or self.steps[source].kind != "conv":
            raise ShelfcountError(
                f"the int8 counterpart of '{path}' ({type(module).__name__}) is not known; models with ReLU and ReLU6 can be quantized so"
            )
        self.steps[source] = Step(source, "conv", self.steps[source].inputs, activation)
        return source

    def _convolution(self, path: str, module: nn.Conv2d, source: str) -> str:
        name = f"{path}.at{self._called[path]}" if self.calls[path] > 1 else path
        self._called[path] += 1
        folded = copy.deepcopy(module)
        if folded.bias is None:
            folded.bias = nn.Parameter(torch.zeros(folded.out_channels))
        self.convolutions[name] = folded
        return self._step(name, "conv", (source,))

    def _step(self, name: str, kind: str, inputs: tuple[str, ...], columns: int = 0) -> str:
        self.steps[name] = Step(name, kind, inputs, columns=columns)
        return name


@torch.no_grad()
def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)  # type: ignore[operator, arg-type]
    convolution.weight *= factor[:, None, None, None]
    convolution.bias.copy_((convolution.bias - norm.running_mean) * factor + norm.bias)  # type: ignore[union-attr, operator]


def _own_ranges(steps: Sequence[Step]) -> list[str]:
    # A convolution that predicts writes the concatenation's scale at once; a resize keeps the scale it reads.
    towards = {name for step in steps if step.kind == "rows" for name in step.inputs}
    return [
        step.name
        for step in steps
        if step.kind in ("conv", "add", "concat") and step.name not in towards
    ]


def _shared_ranges(steps: Sequence[Step], own: Mapping[str, int]) -> dict[str, int]:
    # A resize writes the scale it reads, and what a concatenation joins is written in the concatenation's.
    rows = dict(own)
    for step in steps:
        if step.kind == "resize":
            rows[step.name] = rows[step.inputs[0]]
    for step in reversed(steps):
        if step.kind in ("concat", "rows"):
            rows |= dict.fromkeys(step.inputs, rows[step.name])
    return rows


def _attach(root: nn.Module, path: str, module: nn.Module) -> None:
    *folders, leaf = path.split(".")
    for folder in folders:
        if not hasattr(root, folder):
            root.add_module(folder, nn.Module())
        root = getattr(root, folder)
    root.add_module(leaf, module)
