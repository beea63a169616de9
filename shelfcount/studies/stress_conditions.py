"""Choice of conditions for a robustness study, their random numbers, and training with them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from shelfcount.config import Config
from shelfcount.records import ShelfcountError
from shelfcount.vision.conditions import CONDITIONS, SEVERITIES, Condition


def choose_conditions(names: str, severities: str) -> tuple[tuple[Condition, ...], tuple[int, ...]]:
    """Parse the conditions and severities of options of the command line.

    Args:
        names: Names of conditions, separated by commas. Empty: all.
        severities: Severities, separated by commas. Empty: all.

    Returns:
        The conditions in the given order, and the severities in ascending order, each without
        duplicates.

    Raises:
        ShelfcountError: If a condition or severity does not exist.
    """
    selected = [name.strip() for name in names.split(",") if name.strip()] or list(CONDITIONS)
    if unknown := [name for name in selected if name not in CONDITIONS]:
        raise ShelfcountError(
            f"unknown condition '{unknown[0]}'. Allowed conditions: {', '.join(CONDITIONS)}."
        )
    levels = [level.strip() for level in severities.split(",") if level.strip()] or [
        str(s) for s in SEVERITIES
    ]
    if unknown := [level for level in levels if level not in map(str, SEVERITIES)]:
        allowed = ", ".join(map(str, SEVERITIES))
        raise ShelfcountError(f"unknown severity '{unknown[0]}'. Allowed severities: {allowed}.")
    conditions = tuple(CONDITIONS[name] for name in dict.fromkeys(selected))
    return conditions, tuple(sorted({int(level) for level in levels}))


def condition_generator(seed: int, condition: str, photo: int) -> np.random.Generator:
    """Create the random generator of a condition on a photo, which is the same for every severity.

    Args:
        seed: Seed of the study.
        condition: Name of the condition.
        photo: Index of the photo.

    Returns:
        The random generator.
    """
    return np.random.default_rng((seed, zlib.crc32(condition.encode()), photo))


def add_conditions(base: Config, conditions: Sequence[Condition]) -> Config:
    """Add conditions to the augmentation of a training configuration.

    Args:
        base: Configuration of a training run.
        conditions: Conditions to add.

    Returns:
        A copy of the configuration with its own conditions and the added ones.
    """
    names = tuple(
        dict.fromkeys([*base.augment.conditions, *(condition.name for condition in conditions)])
    )
    return base.model_copy(
        update={"augment": base.augment.model_copy(update={"conditions": names})}
    )
