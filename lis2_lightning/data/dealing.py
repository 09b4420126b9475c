"""How samples are distributed over the processes in each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from lis2_lightning.data.balanced import Pools
from lis2_lightning.data.sampling import KeyedPermutation, random_keys

Key = tuple[int, int]
BLOCK = 4096  # indices computed at a time
FILLERS = 2  # samples: batch normalisation needs more than one


class KeyedSampler(Sampler[Key]):
    """Yields ``(epoch, index)`` for one process, in an order that follows from seed and epoch.

    Shuffled samples are distributed in turn, so that step k of P processes with batches of B uses
    exactly the samples of step k of one process with batches of P B. Ordered samples are
    distributed in whole batches, so that the batches are those of a single process.

    Each sample comes once. A process with one batch less than others gets a filler, ``(epoch, -1 -
    index)``: samples of another process, without labels. So all processes have the same number of
    batches, and none waits for one that has finished.

    The order is computed, not stored: memory does not grow with the number of samples. Shuffled
    samples may be drawn from pools, in place of each once.
    """

    def __init__(
        self,
        num_samples: int,
        *,
        batch_size: int,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world_size: int = 1,
        pools: Pools | None = None,
    ) -> None:
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        self.pools = pools
        self.epoch = 0
        self._begun = -1, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each."""
        self.epoch = epoch

    def skip(self, epoch: int, num_done: int) -> None:
        """Skip the batches of an interrupted epoch that this process has finished."""
        self._begun = epoch, num_done

    @property
    def num_batches(self) -> int:
        """The number of batches of all processes together, without fillers, if not shuffled."""
        return -(-self.num_samples // self.batch_size)

    def __len__(self) -> int:
        return self._num_mine + self._num_fillers

    @property
    def _num_mine(self) -> int:
        if self.shuffle:
            return len(range(self.rank, self.num_samples, self.world_size))
        whole = len(range(self.rank, self.num_batches, self.world_size)) * self.batch_size
        has_last = self.num_batches % self.world_size == (self.rank + 1) % self.world_size
        return whole - (self.num_batches * self.batch_size - self.num_samples) * has_last

    @property
    def _num_fillers(self) -> int:
        most = -(-self.num_samples // self.world_size)  # samples of the first process
        batches = -(-(most if self.shuffle else self.num_samples) // self.batch_size)
        rounds = batches if self.shuffle else -(-batches // self.world_size)
        is_short = -(-self._num_mine // self.batch_size) < rounds
        return min(FILLERS, self.batch_size) * is_short

    def _positions(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions of this process's samples in the order of all samples."""
        if self.shuffle:
            return places * self.world_size + self.rank
        batches, within = np.divmod(places, self.batch_size)
        return (batches * self.world_size + self.rank) * self.batch_size + within

    def __iter__(self) -> Iterator[Key]:
        key = int(random_keys(self.seed, self.epoch, np.zeros(1, np.int64))[0])
        order = KeyedPermutation(self.num_samples, key)
        epoch, num_done = self._begun
        mine = self._num_mine
        for begin in range(num_done * self.batch_size if epoch == self.epoch else 0, mine, BLOCK):
            places = np.arange(begin, min(begin + BLOCK, mine), dtype=np.int64)
            indices = self._positions(places)
            indices = order(indices) if self.shuffle else indices
            if self.pools is not None:
                indices = self.pools.draw(indices, self.seed, self.epoch)
            yield from ((self.epoch, index) for index in indices.tolist())
        for place in range(self._num_fillers):
            yield self.epoch, -1 - place % self.num_samples


def batch_number(loader: DataLoader[Any], batch_idx: int) -> int | None:
    """The index of an ordered loader's batch among those of all processes; None for a filler."""
    # for prediction Lightning wraps the batch sampler and hides ours
    sampler = cast("KeyedSampler", cast("Any", loader.batch_sampler).sampler)
    number = batch_idx * sampler.world_size + sampler.rank
    return number if number < sampler.num_batches else None
