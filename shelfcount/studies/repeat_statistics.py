"""Statistics of repeats: spread of a figure, repeats needed, and learning curves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shelfcount.metrics.confusions import LearningCurve
from shelfcount.studies.repeats import Repeat
from shelfcount.words import plural

_RESAMPLES = 2000
CONFIDENCE = 0.95
# Minimum number of repeats: the interval of the median of fewer values may be narrow by chance.
_MIN_REPEATS = 10
# Default target width of the interval of the median: one point of F1.
INTERVAL_WIDTH = 0.01


@dataclass(frozen=True)
class Spread:
    """Distribution of one metric over repeats.

    Attributes:
        repeats: Number of repeats n.
        median: Median of the values.
        sd: Standard deviation with n - 1 in the denominator. None for a single value.
        quartiles: First and third quartile.
        interval: 95 % confidence interval of the median over random splits of the same photos, by
            percentile bootstrap. It does not describe the variation over other photos.
    """

    repeats: int
    median: float
    sd: float | None
    quartiles: tuple[float, float]
    interval: tuple[float, float]

    @property
    def width(self) -> float:
        """Width of the confidence interval."""
        return self.interval[1] - self.interval[0]

    def to_json(self) -> dict[str, Any]:
        """Return the distribution as a JSON object."""
        return dataclasses.asdict(self) | {"confidence": CONFIDENCE}


def summarize_spread(values: Sequence[float], rng: np.random.Generator) -> Spread:
    """Summarize one metric over repeats.

    The unit of this bootstrap is a repeat, that of `metrics.uncertainty` is a photo.

    Args:
        values: Value of the metric in each repeat.
        rng: Random generator of the bootstrap.

    Returns:
        The distribution of the metric.

    Raises:
        ValueError: If `values` is empty.
    """
    x = np.asarray(values, np.float64)
    if not len(x):
        raise ValueError("values must contain at least one value, got none")
    medians = np.median(x[rng.integers(len(x), size=(_RESAMPLES, len(x)))], axis=1)
    low, high = np.quantile(medians, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    first, third = np.quantile(x, [0.25, 0.75])
    sd = float(x.std(ddof=1)) if len(x) > 1 else None
    return Spread(
        len(x), float(np.median(x)), sd, (float(first), float(third)), (float(low), float(high))
    )


def running_spread(values: Sequence[float], rng: np.random.Generator) -> list[Spread]:
    """Return the distribution after each number of repeats, from the first one to all.

    Args:
        values: Value of the metric in each repeat.
        rng: Random generator of the bootstrap.

    Returns:
        One distribution per repeat; entry i is that of the first i + 1 repeats.
    """
    return [summarize_spread(values[:n], rng) for n in range(1, len(values) + 1)]


@dataclass(frozen=True)
class RepeatsNeeded:
    """Number of repeats that is sufficient for a target width of the confidence interval.

    Attributes:
        width: Target width of the confidence interval of the median.
        repeats: Smallest number of repeats from which on the interval stays narrower than `width`.
            None if it is not reached.
        expected: Estimated number of repeats that reach `width`, as the interval shrinks with the
            square root of their number; equals `repeats` once reached.
    """

    width: float
    repeats: int | None
    expected: int


def repeats_needed(steps: Sequence[Spread], width: float) -> RepeatsNeeded:
    """Determine how many repeats are sufficient for a target width of the confidence interval.

    Args:
        steps: Distributions from `running_spread`, at least one.
        width: Target width of the confidence interval of the median.

    Returns:
        The number of repeats, reached or estimated.

    Raises:
        ValueError: If `width` is not above 0, or `steps` is empty.
    """
    if not width > 0:
        raise ValueError(f"width must be above 0, got {width}")
    if not steps:
        raise ValueError("steps must contain at least one repeat, got none")
    wide = [step.repeats for step in steps if step.width >= width or step.repeats < _MIN_REPEATS]
    reached = max(wide, default=0) + 1
    if reached <= len(steps):
        return RepeatsNeeded(width, reached, reached)
    return RepeatsNeeded(
        width, None, max(reached, math.ceil(len(steps) * (steps[-1].width / width) ** 2))
    )


def interval_is_narrow(values: Sequence[float], width: float, rng: np.random.Generator) -> bool:
    """Check whether enough repeats were run for a target width of the confidence interval.

    Args:
        values: Value of the metric in each repeat.
        width: Target width of the confidence interval of the median.
        rng: Random generator of the bootstrap.

    Returns:
        True if there are at least `_MIN_REPEATS` values and the interval is narrower than `width`.
    """
    return len(values) >= _MIN_REPEATS and summarize_spread(values, rng).width < width


@dataclass(frozen=True)
class StoppingRule:
    """Rule that ends a study once the median F1 is known well enough.

    Attributes:
        width: Target width of the confidence interval of the median F1 over the repeats with the
            largest share of the training photos.
    """

    width: float

    def is_met(self, repeats: Sequence[Repeat]) -> bool:
        """Check whether no more repeats are needed.

        Args:
            repeats: Finished repeats, in the order of their tasks.
        """
        f1 = [repeat.f1 for repeat in largest_share(repeats)]
        return interval_is_narrow(f1, self.width, np.random.default_rng(0))


def largest_share(repeats: Sequence[Repeat]) -> list[Repeat]:
    """Return the repeats with the largest share of the training photos."""
    share = max((r.task.share for r in repeats), default=1.0)
    return [r for r in repeats if r.task.share == share]


def summarize_repeats(repeats: Sequence[Repeat], width: float, seed: int = 0) -> dict[str, Any]:
    """Summarize a study: distributions of F1 and count error, and the sufficient number of repeats.

    Args:
        repeats: The repeats in the order of their seeds, at least one.
        width: Target width of the confidence interval of the median F1.
        seed: Seed of the bootstrap.

    Returns:
        A JSON object with the distributions of the metrics, their change with the number of
        repeats, and F1 by share of the training photos.
    """
    whole = largest_share(repeats)
    metrics = {
        "f1": [r.f1 for r in whole],
        "f1_class_ignored": [r.f1_class_ignored for r in whole],
        "count_error": [r.count_error for r in whole if r.count_error is not None],
    }
    steps = {
        name: running_spread(values, np.random.default_rng(seed))
        for name, values in metrics.items()
        if values
    }
    return {
        "repeats": len(whole),
        **{name: spreads[-1].to_json() for name, spreads in steps.items()},
        "repeats_needed": dataclasses.asdict(repeats_needed(steps["f1"], width)),
        "settling": {
            name: [{"median": s.median, "interval": s.interval} for s in spreads]
            for name, spreads in steps.items()
        },
        "by_share": [
            {"share": share, **_of_share(same_share, seed)}
            for share, same_share in _on_common_seeds(repeats).items()
            if same_share
        ],
        "seconds_per_repeat": round(float(np.mean([r.seconds for r in whole])), 1),
        "commits": sorted({r.commit for r in repeats}),
    }


def _of_share(repeats: Sequence[Repeat], seed: int) -> dict[str, Any]:
    photos = float(np.mean([r.photos["train"] for r in repeats]))
    return {
        "photos": round(photos, 1),
        "f1": summarize_spread([r.f1 for r in repeats], np.random.default_rng(seed)).to_json(),
    }


def _on_common_seeds(repeats: Sequence[Repeat]) -> dict[float, list[Repeat]]:
    """Group repeats by share, smallest first.

    Only seeds with a repeat at every share are used, so that all shares are compared on the same
    splits.
    """
    shares = sorted({r.task.share for r in repeats})
    by_task = {(r.task.seed, r.task.share): r for r in repeats}
    seeds = [
        seed
        for seed in sorted({r.task.seed for r in repeats})
        if all((seed, share) in by_task for share in shares)
    ]
    return {share: [by_task[seed, share] for seed in seeds] for share in shares}


def learning_curves(repeats: Sequence[Repeat]) -> dict[str, LearningCurve]:
    """Compute the learning curve of each class for `confusions.needs`.

    A curve has one point for each share of the training photos: mean number of training examples
    over the repeats, and share of the labelled products on their test photos that were missed.

    Args:
        repeats: Repeats at several shares. Seeds without a repeat at every share are left out, so
            that all points are computed on the same splits.

    Returns:
        The curves by class name. A class without products on the test photos has no curve.
    """
    by_share = _on_common_seeds(repeats)
    if not all(by_share.values()):
        return {}
    curves: dict[str, LearningCurve] = {}
    for c, row in enumerate(next(iter(by_share.values()))[0].per_class):
        points = []
        for same_share in by_share.values():
            rows = [r.per_class[c] for r in same_share]
            products = sum(r.truth for r in rows)
            if products:
                examples = float(np.mean([r.trained for r in rows]))
                points.append((examples, 1 - sum(r.tp for r in rows) / products))
        if points:
            curves[row.name] = points
    return curves


def depth_agreement(
    fast: Mapping[int, float], full: Mapping[int, float], rng: np.random.Generator
) -> dict[str, Any]:
    """Compare the fast and the full depth on the splits that both were run on.

    Args:
        fast, full: Value of a metric by seed.
        rng: Random generator of the bootstrap.

    Returns:
        A JSON object with the pairs, the distribution of full - fast, the standard deviation of
        each depth, and the correlations of Pearson and Spearman. Values that need more common
        splits are None; the correlations need three.
    """
    from scipy.stats import pearsonr, spearmanr

    seeds = sorted(set(fast) & set(full))
    a, b = (np.array([values[seed] for seed in seeds], np.float64) for values in (fast, full))
    difference = b - a
    several = len(seeds) > 2 and a.std() > 0 and b.std() > 0
    return {
        "splits": len(seeds),
        "pairs": [
            {"seed": seed, "fast": x, "full": y}
            for seed, x, y in zip(seeds, a.tolist(), b.tolist(), strict=True)
        ],
        "full_minus_fast": (
            summarize_spread(difference.tolist(), rng).to_json()
            | {"mean": float(difference.mean())}
            if seeds
            else None
        ),
        "sd": {"fast": float(a.std(ddof=1)), "full": float(b.std(ddof=1))}
        if len(seeds) > 1
        else None,
        "pearson": float(pearsonr(a, b)[0]) if several else None,
        "spearman": float(spearmanr(a, b)[0]) if several else None,
    }


def repeats_needed_text(enough: Mapping[str, Any]) -> str:
    """Return a sentence on how many repeats are needed, without its full stop.

    Args:
        enough: Entry ``enough`` of a summary: target ``width`` of the interval, number of
            ``repeats`` that reached it or None, and ``expected`` number of repeats.
    """
    interval = "95 % confidence interval of the median"
    if enough["repeats"] is not None:
        repeats = plural(enough["repeats"], "repeat")
        return f"{repeats} are enough for a {interval} narrower than {enough['width']:g}"
    repeats = plural(enough["expected"], "repeat")
    return f"about {repeats} are needed for a {interval} narrower than {enough['width']:g}"


def repeats_facts(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the provenance of the repeats for the report.

    Args:
        summary: Summary of the repeats with ``plan``, ``stamp`` and ``warning``.
    """
    plan, stamp = summary["plan"], summary["stamp"]
    return {
        "trained": "neck and heads on cached features of the frozen backbone"
        if plan["depth"] == "fast"
        else "the whole network",
        "photos": plan["photos"],
        "fingerprint": plan["data"],
        "epochs": plan["epochs"],
        "initial weights": plan["config"]["model"]["weights"],
        "trained on these photos before": summary["warning"]
        or "no, the initial weights are not those of a detector",
        "CPU time per repeat": f"{summary['seconds_per_repeat']:g} s",
        "commits": ", ".join(summary["commits"]),
        "device": stamp["device"],
    }
