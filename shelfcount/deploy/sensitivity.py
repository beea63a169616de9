"""How much of the output each operator's rounding costs, and which tensors mixed precision leaves in float for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import torch

from shelfcount.deploy import ranges
from shelfcount.records import ShelfcountError
from shelfcount.training.fake_quant import FakeQuantized

# Places that score below it, as in training's validation, hold no product, and where their boxes lie changes nothing.
LOW_SCORE = 0.05
# Bits of an error that is not there; more than float32 can tell.
FLAWLESS = 150.0


@dataclass(frozen=True)
class Sensitivity:
    """What is left of the outputs when one step alone rounds its weights and what it writes.

    Attributes:
        step: Name of the `fake_quant.Step`.
        kind: Of the step.
        location, scores: Signal to quantization noise of the outputs in dB; location where products are.
    """

    step: str
    kind: str
    location: float
    scores: float

    @property
    def worst(self) -> float:
        """The lower of the two."""
        return min(self.location, self.scores)


def by_step(
    net: FakeQuantized,
    batches: Sequence[torch.Tensor],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Sensitivity, list[Sensitivity]]:
    """Round one step at a time and compare with the float network.

    Args:
        net: Calibrated or trained.
        batches: (B, 3, H, W) float32 in [-1, 1]; a handful of training photos.
        progress: Called with (passes done, passes in all).

    Returns:
        All steps rounded at once, under the name 'all'; and each alone, the most sensitive first.

    Raises:
        ShelfcountError: If there are no photos.
    """
    if not batches:
        raise ShelfcountError("sensitivity is measured on photos, got none")
    net.eval()
    float_outputs = _outputs(net, batches, ())
    names = {step.name: step.kind for step in net.steps if step.kind != "rows"}
    alone = []
    for done, (name, kind) in enumerate(names.items(), start=1):
        alone.append(
            Sensitivity(name, kind, *_ratios(float_outputs, _outputs(net, batches, {name})))
        )
        if progress:
            progress(done, len(names) + 1)
    everything = Sensitivity(
        "all",
        "",
        *_ratios(float_outputs, _outputs(net, batches, {net.input, *(s.name for s in net.steps)})),
    )
    if progress:
        progress(len(names) + 1, len(names) + 1)
    return everything, sorted(alone, key=lambda one: one.worst)


def kept_float(
    model: bytes, net: FakeQuantized, worst: Iterable[Sensitivity], most: int
) -> list[str]:
    """Tensors whose operators `convert.quantize` is to leave in float, so that the most sensitive steps round nothing.

    Args:
        model: From `convert.to_litert` of `net`.
        net: Gives the steps.
        worst: The most sensitive first.
        most: Steps to spare. What reads them stays float too, or it would round what it reads.
    """
    spared = {one.step for one, _ in zip(worst, range(most), strict=False)}
    readers = {step.name for step in net.steps if spared & set(step.inputs)}
    return [
        tensor for tensor, name in ranges.tensors(model, net).items() if name in spared | readers
    ]


@torch.no_grad()
def _outputs(
    net: FakeQuantized, batches: Sequence[torch.Tensor], rounding: Collection[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    with net.rounding(rounding):
        pairs = [net(batch) for batch in batches]
    location, logits = (torch.cat(part) for part in zip(*pairs, strict=True))
    return location, logits.sigmoid()


def _ratios(
    exact: tuple[torch.Tensor, torch.Tensor], rounded: tuple[torch.Tensor, torch.Tensor]
) -> tuple[float, float]:
    products = exact[1].amax(dim=2) >= LOW_SCORE
    if not products.any():
        products = torch.ones_like(products)
    return _decibels(exact[0][products], rounded[0][products]), _decibels(exact[1], rounded[1])


def _decibels(exact: torch.Tensor, rounded: torch.Tensor) -> float:
    noise = float((rounded - exact).double().square().sum())
    signal = float(exact.double().square().sum())
    return (
        min(FLAWLESS, 10 * float(torch.tensor(signal / noise, dtype=torch.float64).log10()))
        if noise > 0
        else FLAWLESS
    )
