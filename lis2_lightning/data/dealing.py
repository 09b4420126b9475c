"""How the samples are dealt out to the processes, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from lis2_lightning.data.sampling import KeyedPermutation, random_keys

Key = tuple[int, int]
_FILLERS: Final = 2  # samples: batch normalisation needs more than one


class KeyedSampler(Sampler[Key]):
    """Yields ``(epoch, index)`` for one process, in an order that follows from seed and epoch.

    Shuffled samples are dealt out in turn, so that step k of P processes with batches of B takes
    the very samples of step k of one process with batches of P B. Those in order are dealt out in
    whole batches, so that each batch is one that a single process would have, too.

    Each sample comes once. A process that would have a batch less than another gets a filler:
    ``(epoch, -1 - index)``, a batch of samples which belong to another process and of which no
    pixel counts. All processes have equally many batches then, and none waits for one that is done.

    The order is computed and not stored: its memory does not grow with the number of samples.

    Args:
        num_samples: How many samples there are.
        batch_size: How many make a batch of one process.
        seed: Decides the orders of all epochs.
        shuffle: Whether the order is random.
        rank: This process.
        world_size: How many processes share the samples.
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
    ) -> None:
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self._begun = -1, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each."""
        self.epoch = epoch

    def go_on(self, epoch: int, num_done: int) -> None:
        """Leave out what this process has had of an epoch that was interrupted.

        Args:
            epoch: The epoch.
            num_done: How many batches of this process are done.
        """
        self._begun = epoch, num_done

    @property
    def num_batches(self) -> int:
        """How many batches there are in all, fillers not counted, where they are in order."""
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
        most = -(-self.num_samples // self.world_size)  # of the first process
        batches = -(-(most if self.shuffle else self.num_samples) // self.batch_size)
        rounds = batches if self.shuffle else -(-batches // self.world_size)
        is_short = -(-self._num_mine // self.batch_size) < rounds
        return min(_FILLERS, self.batch_size) * is_short

    def _positions(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in the order of all samples those of this process stand."""
        if self.shuffle:
            return places * self.world_size + self.rank
        batches, within = np.divmod(places, self.batch_size)
        return (batches * self.world_size + self.rank) * self.batch_size + within

    def __iter__(self) -> Iterator[Key]:
        block = 4096  # a few at a time: the vectorised order costs nothing and no memory
        key = int(random_keys(self.seed, self.epoch, np.zeros(1, np.int64))[0])
        order = KeyedPermutation(self.num_samples, key)
        epoch, num_done = self._begun
        mine = self._num_mine
        for begin in range(num_done * self.batch_size if epoch == self.epoch else 0, mine, block):
            places = np.arange(begin, min(begin + block, mine), dtype=np.int64)
            indices = self._positions(places)
            indices = order(indices) if self.shuffle else indices
            yield from ((self.epoch, index) for index in indices.tolist())
        for place in range(self._num_fillers):
            yield self.epoch, -1 - place % self.num_samples


def batch_number(loader: DataLoader[Any], batch_idx: int) -> int | None:
    """Which batch it is among those of all processes, counted from 0; None for a filler.

    Args:
        loader: A loader in order, of :meth:`SegmentationData.loader`.
        batch_idx: Which batch of this process it is.
    """
    # to predict, Lightning wraps the sampler of batches, and no longer shows ours as the loader's
    sampler = cast("KeyedSampler", cast("Any", loader.batch_sampler).sampler)
    number = batch_idx * sampler.world_size + sampler.rank
    return number if number < sampler.num_batches else None
