"""Order of the photos of an epoch, and batches of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.utils.data import Sampler

from shelfcount.training.augmentation import TrainingSample


class EpochSampler(Sampler[tuple[int, int]]):
    """Sampler of (epoch, index) keys in a random order, divided between processes.

    The order depends only on (seed, epoch).

    Args:
        size: Number of samples per epoch over all processes.
        seed: Seed of the order.
        epoch: Function that returns the current epoch.
        rank: Index of this process.
        world: Number of processes.
    """

    def __init__(
        self, size: int, seed: int, epoch: Callable[[], int], rank: int = 0, world: int = 1
    ) -> None:
        self.size, self.seed, self.epoch, self.rank, self.world = size, seed, epoch, rank, world

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch()
        order = np.random.default_rng((self.seed, epoch)).permutation(self.size)
        even = np.resize(order, -(-self.size // self.world) * self.world)
        yield from ((epoch, int(i)) for i in even[self.rank :: self.world])

    def __len__(self) -> int:
        return -(-self.size // self.world)


def collate(samples: list[TrainingSample]) -> tuple[torch.Tensor, list[TrainingSample]]:
    """Return the images of samples as one (B, 3, H, W) uint8 tensor, and their labels as a list."""
    return torch.stack([s["image"] for s in samples]), [
        {k: v for k, v in s.items() if k != "image"} for s in samples
    ]
