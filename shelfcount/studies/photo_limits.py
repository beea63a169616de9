"""Limits of the photo gate, from the F1 that a bundle loses over each measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shelfcount.records import ShelfcountError
from shelfcount.shelf.photo_gate import LOWER_LIMITS

# F1 that may be lost at the limit of a measure.
F1_LOST = 0.05
# Share of unchanged photos that one measure may refuse.
FALSE_ALARMS = 0.01
# Conditions that each measure must detect. `far` is a photo from a larger distance, on grey.
SEEN_BY = {
    "dark": ("dark",),
    "bright": ("bright",),
    "glare": ("glare",),
    "blur": ("defocus", "blurrier"),
    # Any blur changes this measure, and a photo must not be refused if it loses no F1.
    "motion": ("motion", "defocus"),
    "tilt": ("tilt",),
    "yaw": ("yaw",),
    "pitch": ("pitch",),
    "product_size": ("far",),
    "product_pixels": ("resolution", "coarser"),
}


@dataclass(frozen=True)
class GatedPhoto:
    """One photo under one condition.

    Attributes:
        photo: Number of the photo.
        condition: Name of the condition.
        severity: Severity, 0 for the unchanged photo.
        values: Measures of the photo gate by name.
        counts: Numbers of true positives, detections and labelled products.
    """

    photo: int
    condition: str
    severity: int
    values: Mapping[str, float | None]
    counts: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class LossCurve:
    """F1 lost over a measure, from good to bad photos.

    Attributes:
        places: (n,) values of the measure.
        lost: (n,) F1 lost.
        smooth: (n,) F1 lost, made monotone.
        limit: Value at which the monotone loss reaches its limit.
    """

    places: NDArray[np.float64]
    lost: NDArray[np.float64]
    smooth: NDArray[np.float64]
    limit: float


def gated_f1(samples: Sequence[GatedPhoto]) -> float:
    """Return F1 over all products of the photos."""
    right, found, labelled = np.sum([s.counts for s in samples], axis=0)
    return float(2 * right / max(found + labelled, 1))


def loss_curve(check: str, photos: Sequence[GatedPhoto]) -> LossCurve:
    """Return the F1 lost over one measure.

    Raises:
        ShelfcountError: If no severity of the conditions loses `F1_LOST`.
    """
    plain = {s.photo: s for s in photos if not s.severity}
    sign = -1 if check in LOWER_LIMITS else 1
    seen = sorted(
        (
            (sign * v, s)
            for s in photos
            if s.condition in ("unchanged", *SEEN_BY[check]) and (v := s.values[check]) is not None
        ),
        key=lambda pair: pair[0],
    )
    size = len(plain)
    windows = [seen[i : i + size] for i in range(len(seen) - size + 1)]
    places = np.array([np.median([value for value, _ in window]) for window in windows])
    lost = np.array(
        [
            gated_f1([plain[s.photo] for _, s in window]) - gated_f1([s for _, s in window])
            for window in windows
        ]
    )
    smooth = increasing(lost)
    if smooth[-1] < F1_LOST:
        raise ShelfcountError(
            f"the conditions of '{check}' lose at most {smooth[-1]:.3f} of F1, which is less than "
            f"{F1_LOST}. Make them stronger."
        )
    return LossCurve(
        sign * places, lost, smooth, float(sign * places[int(np.argmax(smooth >= F1_LOST))])
    )


def increasing(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the closest increasing sequence, by pooling adjacent violators."""
    blocks: list[list[float]] = []
    for value in values:
        blocks.append([value, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (last, n), (before, m) = blocks.pop(), blocks.pop()
            blocks.append([(last * n + before * m) / (n + m), n + m])
    return np.concatenate([np.full(int(n), value) for value, n in blocks])


def gate_limits(
    curves: Mapping[str, LossCurve], unchanged: Sequence[Mapping[str, float | None]]
) -> dict[str, dict[str, float]]:
    """Return the limit of each measure, rounded to accept more, and the values it comes from."""
    chosen = {}
    for check, found in curves.items():
        values = [v for photo in unchanged if (v := photo[check]) is not None]
        usual = float(
            np.quantile(values, FALSE_ALARMS if check in LOWER_LIMITS else 1 - FALSE_ALARMS)
        )
        limit = min(found.limit, usual) if check in LOWER_LIMITS else max(found.limit, usual)
        chosen[check] = {
            "limit": _two_digits(limit, up=check not in LOWER_LIMITS),
            "f1_lost_at": round(found.limit, 4),
            "usual": round(usual, 4),
        }
    return chosen


def _two_digits(value: float, up: bool) -> float:
    """Round up or down to two significant digits."""
    unit = 10.0 ** (np.floor(np.log10(value)) - 1)
    return float(np.round((np.ceil if up else np.floor)(np.round(value / unit, 6)) * unit, 6))


def exceeded_limits(values: Mapping[str, float | None], by: Mapping[str, float]) -> list[str]:
    """Return the measures that exceed their limits."""
    return [
        c
        for c, limit in by.items()
        if (v := values[c]) is not None and (v < limit if c in LOWER_LIMITS else v > limit)
    ]


def count_refused(
    photos: Sequence[Mapping[str, float | None]], source: str, by: Mapping[str, float]
) -> dict[str, Any]:
    """Count refused photos of a data set that chose no limit."""
    return {
        "name": Path(source).name,
        "photos": len(photos),
        "refused": sum(bool(exceeded_limits(values, by)) for values in photos),
    }


def refusals_by_condition(
    photos: Sequence[GatedPhoto], by: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """Yield refused photos, and the F1 of all, refused and accepted photos, by condition."""
    grades = dict.fromkeys((s.condition, s.severity) for s in photos)
    for condition, severity in grades:
        own = [s for s in photos if (s.condition, s.severity) == (condition, severity)]
        out = [s for s in own if exceeded_limits(s.values, by)]
        kept = [s for s in own if not exceeded_limits(s.values, by)]
        yield {
            "condition": condition,
            "severity": severity,
            "photos": len(own),
            "refused": len(out),
            "f1": round(gated_f1(own), 4),
            "f1_refused": round(gated_f1(out), 4) if out else None,
            "f1_kept": round(gated_f1(kept), 4) if kept else None,
        }
