"""Shares of a data set for training, choosing and testing that have no shelf in common."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image, ImageOps
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from shelfcount.records import Dataset, ShelfcountError

# Of the 64 bits of the hash. Among the 244 drinks photos, three pairs differ in 8 bits or fewer, each of them one
# cooler; the next nine differ in 14, and eight of those are different coolers, so a wider net ties strangers together.
NEAR_BITS = 10


def split(dataset: Dataset, shares: Mapping[str, float], seed: int) -> dict[str, Dataset]:
    """Parts of a data set; photos of one group, and photos that look alike, stay in one part.

    The biggest group goes first, each to the part that lacks most of what is in it: rare classes count as
    much as frequent ones, so that each part gets near its share of every class.

    Args:
        dataset: The photos; their order doesn't matter.
        shares: Name of a part to its share, such as ``{"train": 0.75, "val": 0.1, "test": 0.15}``.
        seed: The same seed gives the same parts; it decides between groups of one size.

    Returns:
        Part by part, photos in the order they have in `dataset`. `dropped` is that of the whole.

    Raises:
        ShelfcountError: If the shares are not positive or don't sum to 1, or there are fewer groups than parts.
    """
    _check_shares(shares)
    labels = near_duplicate_groups(dataset)
    groups = labels.max(initial=-1) + 1
    if groups < len(shares):
        raise ShelfcountError(
            f"{len(shares)} parts need at least as many groups of photos, got {groups} of {len(dataset)} photos: "
            "photos of one store or bay, and near-duplicates, are never parted"
        )
    part = _assigned(
        _content(dataset, labels, groups),
        np.array(list(shares.values())),
        _order(dataset, labels, groups, seed),
    )
    parts = part[labels]
    return {
        name: dataclasses.replace(
            dataset.subset(np.flatnonzero(parts == i).tolist()), name=f"{dataset.name} ({name})"
        )
        for i, name in enumerate(shares)
    }


def shuffled(groups: np.ndarray, shares: Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
    """Photos dealt out by chance alone, a group at a time: what repeated shuffles want.

    `split` balances its parts, and so gives nearly the same ones for every seed: of the drinks photos, the test
    parts of two seeds share 56 %. Here they share what chance gives, and a rare class may miss a part.

    Args:
        groups: (photos,) int64 from `near_duplicate_groups`.
        shares: As for `split`, of the photos.
        seed: The same seed gives the same parts.

    Returns:
        Part by part, (n,) int64 indices of its photos, whole groups in random order: its first photos are a
        random choice of groups too.

    Raises:
        ShelfcountError: If the shares are not positive or don't sum to 1, or there are fewer groups than parts.
    """
    _check_shares(shares)
    order = np.random.default_rng(seed).permutation(groups.max(initial=-1) + 1)
    if len(order) < len(shares):
        raise ShelfcountError(
            f"{len(shares)} parts need at least as many groups of photos, got {len(order)} of {len(groups)} photos"
        )
    sizes = np.bincount(groups, minlength=len(order))[order]
    # A group goes where the middle of its photos falls; but no part goes without.
    middles = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
    ends = np.searchsorted(middles, np.cumsum(list(shares.values())))
    first = 0
    parts = {}
    for i, name in enumerate(shares):
        end = (
            int(np.clip(ends[i], first + 1, len(order) - (len(shares) - 1 - i)))
            if i < len(shares) - 1
            else len(order)
        )
        parts[name] = np.concatenate(
            [np.flatnonzero(groups == group) for group in order[first:end]]
        )
        first = end
    return parts


def near_duplicate_groups(dataset: Dataset, max_distance: int = NEAR_BITS) -> np.ndarray:
    """Which photos belong together: by their group, by near-equal pictures, and by any chain of these.

    The hash finds the same view taken again, resized, recoloured or compressed. A shelf seen from another
    place mostly looks different to it: such photos need a common `Photo.group`.

    Args:
        dataset: The photos; one with an empty group is alone in it.
        max_distance: Pictures whose 64-bit perceptual hashes differ in so many bits or fewer are near-equal.

    Returns:
        (photos,) int64, the same number for photos that belong together, from 0 without gaps.

    Raises:
        ShelfcountError: If a photo can't be read.
    """
    n = len(dataset)
    groups = {photo.group: i for i, photo in enumerate(dataset.photos) if photo.group}
    hashes = np.array([_hash(photo.path) for photo in dataset.photos], np.uint64)
    edges = [(i, groups[photo.group]) for i, photo in enumerate(dataset.photos) if photo.group]
    for i in range(n):
        near = np.flatnonzero(np.bitwise_count(hashes[i:] ^ hashes[i]) <= max_distance) + i
        edges += [(i, int(j)) for j in near]
    a, b = np.array(edges, np.int64).reshape(-1, 2).T
    _, labels = connected_components(
        coo_array((np.ones(len(a)), (a, b)), shape=(n, n)), directed=False
    )
    return labels.astype(np.int64)


def _check_shares(shares: Mapping[str, float]) -> None:
    if (
        not shares
        or any(not share > 0 for share in shares.values())
        or not math.isclose(sum(shares.values()), 1, abs_tol=1e-6)
    ):
        raise ShelfcountError(f"shares must be above 0 and sum to 1, got {dict(shares)}")


def _hash(path: Path) -> int:
    try:
        with Image.open(path) as image:
            # A JPEG is decoded at the least size that suffices; the hash looks at 32 x 32 pixels.
            image.draft("L", (128, 128))
            return int(str(imagehash.phash(ImageOps.exif_transpose(image))), 16)
    except (OSError, ValueError) as error:
        raise ShelfcountError(f"cannot read photo '{path}': {error}") from error


def _content(dataset: Dataset, labels: np.ndarray, groups: int) -> np.ndarray:
    """(groups, classes + 2): share of each class's boxes, of all boxes and of all photos that a group holds."""
    amounts = np.zeros((groups, len(dataset.classes) + 2))
    for label, photo in zip(labels, dataset.photos, strict=True):
        amounts[label, :-2] += np.bincount(photo.truth.classes, minlength=len(dataset.classes))
        amounts[label, -2:] += len(photo.truth), 1
    return amounts / np.maximum(amounts.sum(axis=0), 1)


def _order(dataset: Dataset, labels: np.ndarray, groups: int, seed: int) -> np.ndarray:
    """(groups,) indices of the groups, most boxes first, ties by seed and not by the order of the photos."""
    paths = [photo.path.as_posix() for photo in dataset.photos]
    boxes = np.bincount(labels, [len(photo.truth) for photo in dataset.photos], groups)
    by_name = list(dict.fromkeys(labels[sorted(range(len(paths)), key=paths.__getitem__)].tolist()))
    shuffled = np.random.default_rng(seed).permutation(by_name)
    return shuffled[np.argsort(-boxes[shuffled], kind="stable")]


def _assigned(content: np.ndarray, shares: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(groups,) index of the part each group goes to."""
    part = np.full(len(content), -1)
    held = np.zeros((len(shares), content.shape[1]))
    for done, group in enumerate(order):
        # The change of the squared distance to the wanted shares, without the term all parts have in common.
        cost = (held - shares[:, None]) @ content[group]
        empty = ~np.isin(np.arange(len(shares)), part)
        if empty.sum() >= len(order) - done:
            cost[~empty] = np.inf
        part[group] = cost.argmin()
        held[part[group]] += content[group]
    return part
