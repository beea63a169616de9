"""Example photos of a robustness study: detections on a photo before and under a condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shelfcount.records import Detections
from shelfcount.studies.stress import StressStudy
from shelfcount.studies.stress_conditions import condition_generator
from shelfcount.vision.conditions import Condition
from shelfcount.vision.images import read_photo

# Maximum number of conditions with an example.
MAX_EXAMPLES = 6


@dataclass(frozen=True, eq=False)
class StressExample:
    """A photo unchanged and under a condition, with the detections of the first detector.

    Attributes:
        condition: The condition.
        severity: Its severity.
        image: (h, w, 3) uint8 RGB, the unchanged photo.
        changed: (h, w, 3) uint8 RGB, the photo under the condition.
        detections: Detections on the unchanged photo.
        expected: The same products, in pixels of the changed photo, without those out of view.
        still_found: (n,) bool; whether each product of `expected` is still detected with box and
            class.
    """

    condition: Condition
    severity: int
    image: NDArray[np.uint8]
    changed: NDArray[np.uint8]
    detections: Detections
    expected: Detections
    still_found: NDArray[np.bool_]


def choose_examples(study: StressStudy) -> list[StressExample]:
    """Choose a typical photo for each condition with a large F1 loss, at the middle severity.

    It is the photo with the median share of products that are still detected.

    Args:
        study: Robustness study. The chosen photos are read and changed again, since a study does
            not keep all photos under all conditions.

    Returns:
        At most `MAX_EXAMPLES` examples, the condition of the largest F1 loss first.

    Raises:
        ShelfcountError: If a photo cannot be read.
    """
    return [_example(study, condition) for condition in study.ranked()[:MAX_EXAMPLES]]


def _example(study: StressStudy, condition: Condition) -> StressExample:
    steps: Sequence[int] = study.severities
    severity = steps[len(steps) // 2]
    cell = study.cells[condition.name, severity]
    kept = [float(found.mean()) if len(found) else 1.0 for found in cell.still_found[0]]
    index = int(np.argsort(kept, kind="stable")[len(kept) // 2])
    image = read_photo(study.dataset.photos[index].path)
    rng = condition_generator(study.seed, condition.name, index)
    before = cell.clean[0][index]
    return StressExample(
        condition,
        severity,
        image,
        condition.apply(image, severity, rng).image,
        study.detections[0][index],
        before[~before.ignore],
        cell.still_found[0][index],
    )
