"""Operators of a detector's .tflite file, traced from its network for fake quantization.

These are convolutions with folded batch normalisation and fused activation, additions, resizes,
and concatenations of the pyramid levels.
"""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx, nn

from shelfcount.records import ShelfcountError
from shelfcount.training import networks


@dataclass(frozen=True)
class QuantizedOperator:
    """One operator of the .tflite file.

    Attributes:
        name: Name of the output. For a convolution, this is also the path of its module.
        kind: 'conv', 'add', 'resize', 'flatten' (reshapes NCHW to (B, anchors, k)) or 'concat'.
        inputs: Names of the inputs: outputs of other steps, or the network's input.
        activation: Fused activation: 'relu6', 'relu' or '' for none.
        columns: k for 'flatten', scale factor for 'resize', otherwise 0.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    activation: str = ""
    columns: int = 0


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # timm subclasses both; the code inside these subclasses cannot be traced.
        return isinstance(m, nn.Conv2d | nn.BatchNorm2d) or super().is_leaf_module(
            m, module_qualified_name
        )


def trace_operators(
    net: nn.Module,
) -> tuple[tuple[QuantizedOperator, ...], dict[str, nn.Conv2d], tuple[str, str]]:
    """Return steps, folded convolutions by name, and names of the two outputs of a network."""
    if not isinstance(net, networks.ShelfDetector):
        raise ShelfcountError(
            f"quantization-aware training does not support {type(net).__name__}. "
            "Use a phone model, not the baseline."
        )
    nodes = _Tracer().trace(net).nodes
    parts = _OperatorCollector(net, Counter(str(node.target) for node in nodes))
    for node in nodes:
        parts.take(node)
    return tuple(parts.steps.values()), parts.convolutions, parts.outputs


class _OperatorCollector:
    """Collector of steps and folded convolutions from the nodes of a traced network.

    Args:
        net: Traced network.
        calls: Number of nodes per target; a module that is called more than once is shared.
    """

    def __init__(self, net: nn.Module, calls: Mapping[str, int]) -> None:
        self.modules, self.calls = dict(net.named_modules()), calls
        self.steps: dict[str, QuantizedOperator] = {}
        self.convolutions: dict[str, nn.Conv2d] = {}
        self.outputs = ("", "")
        self._written: dict[fx.Node, str] = {}
        self._called: Counter[str] = Counter()

    def take(self, node: fx.Node) -> None:
        """Add one node; all its inputs must have been added before.

        Raises:
            ShelfcountError: If the node's operator cannot be fake-quantized.
        """
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
            # Parts of `detector._rows`; its reshape becomes the step.
            self._written[node] = sources[0]
        elif node.target == "reshape":
            columns = int(node.args[-1])  # type: ignore[arg-type]
            self._written[node] = self._step(node.name, "flatten", sources[:1], columns=columns)
        elif node.target is torch.cat:
            self._written[node] = self._step(node.name, "concat", sources)
        else:
            raise ShelfcountError(
                f"quantization-aware training does not support the operator '{node.target}'. "
                "Use another model.architecture, or train.quantize=false."
            )

    def _module(self, path: str, sources: tuple[str, ...]) -> str:
        module, source = self.modules[path], sources[0]
        if isinstance(module, nn.Conv2d):
            return self._convolution(path, module, source)
        if isinstance(module, nn.Upsample):
            scale = int(module.scale_factor)  # type: ignore[arg-type]
            name = f"{path}.{source}".replace(".", "_")
            return self._step(name, "resize", sources, columns=scale)
        if isinstance(module, nn.BatchNorm2d):
            _fold(self.convolutions[source], module)
            module = getattr(module, "act", nn.Identity())
        if isinstance(module, nn.Identity | nn.Dropout):
            return source
        activation = {nn.ReLU6: "relu6", nn.ReLU: "relu"}.get(type(module))  # type: ignore[call-overload]
        if activation is None or self.steps[source].kind != "conv":
            raise ShelfcountError(
                "quantization-aware training does not support the layer "
                f"'{path}' ({type(module).__name__}). Use a model with ReLU or ReLU6."
            )
        self.steps[source] = QuantizedOperator(
            source, "conv", self.steps[source].inputs, activation
        )
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
        self.steps[name] = QuantizedOperator(name, kind, inputs, columns=columns)
        return name


@torch.no_grad()
def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)  # type: ignore[operator, arg-type]
    convolution.weight *= factor[:, None, None, None]
    convolution.bias.copy_((convolution.bias - norm.running_mean) * factor + norm.bias)  # type: ignore[union-attr, operator]


def own_ranges(steps: Sequence[QuantizedOperator]) -> list[str]:
    """Return the names of the steps with a range of their own.

    The output of a predicting convolution has the scale of the concatenation, and the output of a
    resize the scale of its input.
    """
    reshaped = {name for step in steps if step.kind == "flatten" for name in step.inputs}
    return [
        step.name
        for step in steps
        if step.kind in ("conv", "add", "concat") and step.name not in reshaped
    ]


def shared_ranges(steps: Sequence[QuantizedOperator], own: Mapping[str, int]) -> dict[str, int]:
    """Return the row of `FakeQuantized.ranges` for each step, by name.

    The output of a resize has the scale of its input, and the inputs of a concatenation have the
    scale of its output.

    Args:
        steps: Steps in execution order.
        own: Row of each step with a range of its own, by name.
    """
    rows = dict(own)
    for step in steps:
        if step.kind == "resize":
            rows[step.name] = rows[step.inputs[0]]
    for step in reversed(steps):
        if step.kind in ("concat", "flatten"):
            rows |= dict.fromkeys(step.inputs, rows[step.name])
    return rows
