"""Splits of a data set for training, validation and testing that keep groups of photos together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from shelfcount.records import Dataset, ShelfcountError
from shelfcount.words import plural

# Maximum number of differing bits, of the 64 bits of the perceptual hash, for near-duplicates.
# Among the 244 drinks photos, three pairs differ in at most 8 bits, and each of them shows one
# cooler. The next nine pairs differ in 14 bits, and eight of these show two coolers.
NEAR_BITS = 10


def split(dataset: Dataset, shares: Mapping[str, float], seed: int) -> dict[str, Dataset]:
    """Split a data set into parts with a balanced share of every class.

    Photos of one group, and near-duplicates, are in the same part. Groups are assigned in order of
    size, largest first, each to the part that is furthest below its share of the group's content.
    Rare classes count as much as frequent ones.

    Args:
        dataset: Labelled photos. Their order does not change which part a photo is in.
        shares: Name of each part to its share, such as ``{"train": 0.75, "val": 0.1, "test":
            0.15}``.
        seed: Seed of the order of groups of equal size. The same seed gives the same parts.

    Returns:
        Name of each part to its data set, with photos in the order of `dataset`. Each part has the
        `dropped` entries of the whole data set.

    Raises:
        ShelfcountError: If the shares are not positive or do not sum to 1, if there are fewer
            groups than parts, or if a photo cannot be read.
    """
    _check_shares(shares)
    labels = near_duplicate_groups(dataset)
    groups = labels.max(initial=-1) + 1
    if groups < len(shares):
        raise ShelfcountError(
            f"cannot split {plural(groups, 'group')} of {plural(len(dataset), 'photo')} into "
            f"{plural(len(shares), 'part')}. Photos of one store or bay, and near-duplicates, stay "
            "in one part: add photos of other shelves."
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


def shuffled(
    groups: NDArray[np.int64], shares: Mapping[str, float], seed: int
) -> dict[str, NDArray[np.int64]]:
    """Return a random split of groups of photos, for repeated hold-out.

    `split` balances its parts and therefore gives similar parts for every seed: on the drinks
    photos, the test parts of two seeds have 56 % of their photos in common. Parts of this function
    overlap only by chance, and a rare class may be absent from a part.

    Args:
        groups: (photos,) int64, group numbers from `near_duplicate_groups`.
        shares: Name of each part to its share of the photos, as for `split`.
        seed: Seed of the split. The same seed gives the same parts.

    Returns:
        Name of each part to its (n,) int64 photo indices. The groups are in random order, so the
        first photos of a part are a random choice of groups too.

    Raises:
        ShelfcountError: If the shares are not positive or do not sum to 1, or if there are fewer
            groups than parts.
    """
    _check_shares(shares)
    order = np.random.default_rng(seed).permutation(groups.max(initial=-1) + 1)
    if len(order) < len(shares):
        raise ShelfcountError(
            f"cannot split {plural(len(order), 'group')} of {plural(len(groups), 'photo')} into "
            f"{plural(len(shares), 'part')}. Each part needs at least one group."
        )
    sizes = np.bincount(groups, minlength=len(order))[order]
    # The middle photo of a group determines its part, but each part gets at least one group.
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


def near_duplicate_groups(dataset: Dataset, max_distance: int = NEAR_BITS) -> NDArray[np.int64]:
    """Group photos that must be in the same split.

    Photos belong together if they have the same `Photo.group`, if they are near-duplicates, or if a
    chain of such photos connects them. The perceptual hash recognizes the same view if it was taken
    again, resized, recoloured or compressed. It usually does not recognize the same shelf from
    another position: such photos need the same `Photo.group`.

    Args:
        dataset: Labelled photos. An empty group does not connect photos.
        max_distance: Maximum number of differing bits between the 64-bit perceptual hashes of
            near-duplicates.

    Returns:
        (photos,) int64, group number of each photo, from 0 without gaps.

    Raises:
        ShelfcountError: If a photo cannot be read.
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
    return np.asarray(labels, np.int64)


def _check_shares(shares: Mapping[str, float]) -> None:
    """Raise ShelfcountError if the shares are not positive or do not sum to 1."""
    if (
        not shares
        or any(not share > 0 for share in shares.values())
        or not math.isclose(sum(shares.values()), 1, abs_tol=1e-6)
    ):
        raise ShelfcountError(f"shares must be above 0 and sum to 1, got {dict(shares)}")


def _hash(path: Path) -> int:
    """Return the 64-bit perceptual hash of the upright photo."""
    try:
        with Image.open(path) as image:
            # A JPEG is decoded at the smallest sufficient size; the hash uses 32 x 32 pixels.
            image.draft("L", (128, 128))
            return int(str(imagehash.phash(ImageOps.exif_transpose(image))), 16)
    except (OSError, ValueError) as error:
        raise ShelfcountError(f"cannot read photo '{path}': {error}") from error


def _content(dataset: Dataset, labels: NDArray[np.int64], groups: int) -> NDArray[np.float64]:
    """Return the content of each group, as shares of the whole data set.

    Args:
        dataset: Labelled photos.
        labels: (photos,) int64, group numbers.
        groups: Number of groups.

    Returns:
        (groups, classes + 2) float64, shares of the boxes of each class, of all boxes and of all
        photos.
    """
    amounts = np.zeros((groups, len(dataset.classes) + 2))
    for label, photo in zip(labels, dataset.photos, strict=True):
        amounts[label, :-2] += np.bincount(photo.truth.classes, minlength=len(dataset.classes))
        amounts[label, -2:] += len(photo.truth), 1
    return np.asarray(amounts / np.maximum(amounts.sum(axis=0), 1))


def _order(
    dataset: Dataset, labels: NDArray[np.int64], groups: int, seed: int
) -> NDArray[np.int64]:
    """Return the (groups,) group numbers in order of their boxes, most first.

    The order of groups with equally many boxes depends on the seed, not on the order of the photos.
    """
    paths = [photo.path.as_posix() for photo in dataset.photos]
    boxes = np.bincount(labels, [len(photo.truth) for photo in dataset.photos], groups)
    by_name = list(dict.fromkeys(labels[sorted(range(len(paths)), key=paths.__getitem__)].tolist()))
    shuffled = np.random.default_rng(seed).permutation(by_name)
    return shuffled[np.argsort(-boxes[shuffled], kind="stable")]


def _assigned(
    content: NDArray[np.float64], shares: NDArray[np.float64], order: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the (groups,) int64 index of the part of each group.

    Args:
        content: (groups, classes + 2) float64 from `_content`.
        shares: (parts,) float64, share of each part.
        order: (groups,) int64, group numbers in the order of assignment.
    """
    part = np.full(len(content), -1)
    filled = np.zeros((len(shares), content.shape[1]))
    for done, group in enumerate(order):
        # Change of the squared distance to the target shares, without the term that all parts have
        # in common.
        cost = (filled - shares[:, None]) @ content[group]
        empty = ~np.isin(np.arange(len(shares)), part)
        if empty.sum() >= len(order) - done:
            cost[~empty] = np.inf
        part[group] = cost.argmin()
        filled[part[group]] += content[group]
    return part
