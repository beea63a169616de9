"""What repeated shuffles say together: the spread of a figure, how it settles, how many are enough, learning curves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shelfcount.evaluation.confusions import Curve
from shelfcount.evaluation.repeats import Repeat

RESAMPLES = 2000
CONFIDENCE = 0.95
# The interval of a median of fewer is that of its few values, and may be narrow by chance.
FEWEST = 10
# One point of F1: what is read off a table.
WIDTH = 0.01


@dataclass(frozen=True)
class Spread:
    """One figure over repeats.

    Attributes:
        repeats: n.
        median: Of them.
        sd: With n - 1 in the denominator; None of a single one.
        quartiles: 25 % and 75 %.
        interval: In which the median of ever more repeats on the same photos lies, by percentile bootstrap. How the figure
            would be on other photos it does not say: all repeats share these.
    """

    repeats: int
    median: float
    sd: float | None
    quartiles: tuple[float, float]
    interval: tuple[float, float]

    @property
    def width(self) -> float:
        """Of the interval."""
        return self.interval[1] - self.interval[0]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"confidence": CONFIDENCE}


def spread(values: Sequence[float], rng: np.random.Generator) -> Spread:
    """Summary of one figure.

    Args:
        values: One of each repeat.
        rng: Of the bootstrap.

    Raises:
        ValueError: If there is none.
    """
    x = np.asarray(values, np.float64)
    if not len(x):
        raise ValueError("a spread needs at least one value, got none")
    medians = np.median(x[rng.integers(len(x), size=(RESAMPLES, len(x)))], axis=1)
    low, high = np.quantile(medians, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    first, third = np.quantile(x, [0.25, 0.75])
    sd = float(x.std(ddof=1)) if len(x) > 1 else None
    return Spread(
        len(x), float(np.median(x)), sd, (float(first), float(third)), (float(low), float(high))
    )


def settling(values: Sequence[float], rng: np.random.Generator) -> list[Spread]:
    """The spread after one repeat, after two, and so on to all."""
    return [spread(values[:n], rng) for n in range(1, len(values) + 1)]


@dataclass(frozen=True)
class Enough:
    """The answer to how many repeats are enough.

    Attributes:
        width: That the interval of the median was to be narrower than.
        repeats: From how many on it was, up to the last; None where it is not yet.
        expected: By how wide it is now, as a median's interval shrinks with the root of their number; equals `repeats` where reached.
    """

    width: float
    repeats: int | None
    expected: int


def enough(steps: Sequence[Spread], width: float) -> Enough:
    """How many repeats it takes.

    Args:
        steps: From `settling`, at least one.
        width: Of the interval of the median.

    Raises:
        ValueError: If the width is not above 0 or there is no step.
    """
    if not width > 0 or not steps:
        raise ValueError(
            f"the width must be above 0 and there must be a repeat, got {width} and {len(steps)} repeats"
        )
    wide = [step.repeats for step in steps if step.width >= width or step.repeats < FEWEST]
    reached = max(wide, default=0) + 1
    if reached <= len(steps):
        return Enough(width, reached, reached)
    return Enough(width, None, max(reached, math.ceil(len(steps) * (steps[-1].width / width) ** 2)))


def is_enough(values: Sequence[float], width: float, rng: np.random.Generator) -> bool:
    """Whether the interval of their median is narrower than `width`, so that repeats may stop."""
    return len(values) >= FEWEST and spread(values, rng).width < width


def largest_share(repeats: Sequence[Repeat]) -> list[Repeat]:
    """Those on the largest share of the training part: the ones that say how good a training on these photos is."""
    share = max((r.task.share for r in repeats), default=1.0)
    return [r for r in repeats if r.task.share == share]


def summary(repeats: Sequence[Repeat], width: float, seed: int = 0) -> dict[str, Any]:
    """Spread of F1 and count error, how they settle, and how many are enough, as plain data.

    Args:
        repeats: In the order of their seeds, at least one.
        width: For `enough`, of F1.
        seed: Of the bootstrap.
    """
    whole = largest_share(repeats)
    figures = {
        "f1": [r.f1 for r in whole],
        "f1_class_ignored": [r.f1_class_ignored for r in whole],
        "count_error": [r.count_error for r in whole if r.count_error is not None],
    }
    steps = {
        name: settling(values, np.random.default_rng(seed))
        for name, values in figures.items()
        if values
    }
    return {
        "repeats": len(whole),
        **{name: of[-1].to_json() for name, of in steps.items()},
        "enough": dataclasses.asdict(enough(steps["f1"], width)),
        "settling": {
            name: [{"median": s.median, "interval": s.interval} for s in of]
            for name, of in steps.items()
        },
        "by_share": [
            {"share": share, **_of_share(of, seed)}
            for share, of in _on_common_seeds(repeats).items()
            if of
        ],
        "seconds_per_repeat": round(float(np.mean([r.seconds for r in whole])), 1),
        "commits": sorted({r.commit for r in repeats}),
    }


def _of_share(repeats: Sequence[Repeat], seed: int) -> dict[str, Any]:
    photos = float(np.mean([r.photos["train"] for r in repeats]))
    return {
        "photos": round(photos, 1),
        "f1": spread([r.f1 for r in repeats], np.random.default_rng(seed)).to_json(),
    }


def _on_common_seeds(repeats: Sequence[Repeat]) -> dict[float, list[Repeat]]:
    """Repeats by share, smallest first, of those seeds that have every share: so all shares are of the same splits."""
    shares = sorted({r.task.share for r in repeats})
    by_task = {(r.task.seed, r.task.share): r for r in repeats}
    seeds = [
        seed
        for seed in sorted({r.task.seed for r in repeats})
        if all((seed, share) in by_task for share in shares)
    ]
    return {share: [by_task[seed, share] for seed in seeds] for share in shares}


def learning_curves(repeats: Sequence[Repeat]) -> dict[str, Curve]:
    """Of each class, what is lost against how many examples it had: what `confusions.needs` takes.

    One point for each share of the training part: examples on average over the repeats, and products missed
    of all that stood on their test photos. A class that stood on none has no curve.

    Args:
        repeats: At several shares; seeds that lack a share are left out, so that all points are of the same splits.
    """
    by_share = _on_common_seeds(repeats)
    if not all(by_share.values()):
        return {}
    curves: dict[str, Curve] = {}
    for c, row in enumerate(next(iter(by_share.values()))[0].per_class):
        points = []
        for of in by_share.values():
            rows = [r.per_class[c] for r in of]
            stood = sum(r.truth for r in rows)
            if stood:
                points.append(
                    (float(np.mean([r.trained for r in rows])), 1 - sum(r.tp for r in rows) / stood)
                )
        if points:
            curves[row.name] = points
    return curves


def agreement(
    fast: Mapping[int, float], full: Mapping[int, float], rng: np.random.Generator
) -> dict[str, Any]:
    """How two depths agree on the splits they have in common.

    Args:
        fast, full: Seed to figure.
        rng: Of the bootstrap.

    Returns:
        The pairs; mean and SD of full - fast: what the fast depth is off by, and how steadily; the SD of each over these splits;
        Pearson's and Spearman's correlation, None below three splits.
    """
    from scipy.stats import pearsonr, spearmanr

    seeds = sorted(set(fast) & set(full))
    a, b = (np.array([of[seed] for seed in seeds], np.float64) for of in (fast, full))
    far = b - a
    several = len(seeds) > 2 and a.std() > 0 and b.std() > 0
    return {
        "splits": len(seeds),
        "pairs": [
            {"seed": seed, "fast": x, "full": y}
            for seed, x, y in zip(seeds, a.tolist(), b.tolist(), strict=True)
        ],
        "full_minus_fast": spread(far.tolist(), rng).to_json() | {"mean": float(far.mean())}
        if seeds
        else None,
        "sd": {"fast": float(a.std(ddof=1)), "full": float(b.std(ddof=1))}
        if len(seeds) > 1
        else None,
        "pearson": float(pearsonr(a, b)[0]) if several else None,
        "spearman": float(spearmanr(a, b)[0]) if several else None,
    }
