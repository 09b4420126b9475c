"""Data loaders whose order and random draws follow from (seed, epoch, index) alone."""

from __future__ import annotations

import os
import random
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any, Literal, NamedTuple, cast

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, default_collate

from lis2_lightning.base.labelled import as_mask
from lis2_lightning.base.position import batches_done, epochs_done, goes_on_inside_epoch
from lis2_lightning.base.signals import leave_to_main_process
from lis2_lightning.data.balanced import BalancedSampler
from lis2_lightning.data.batch import AnyDataset, Batch, KeyedDataset
from lis2_lightning.data.dealing import Key, KeyedSampler
from lis2_lightning.data.sampling import random_keys
from lis2_lightning.data.tiles import TileDataset
from lis2_lightning.errors import DataError


class Keyed(Dataset[Any]):
    """A data set indexed by ``(epoch, index)``, whose draws follow from (seed, epoch, index).

    A :class:`KeyedDataset` gets the random keys. For any other data set the global generators of
    Python, NumPy and torch are seeded for each sample and restored afterwards.
    """

    def __init__(self, dataset: AnyDataset, *, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __getitems__(self, keys: Sequence[Key]) -> Any:
        if keys[0][1] < 0:  # a filler
            return _unlabelled(self.__getitems__([(epoch, -1 - index) for epoch, index in keys]))
        epochs, indices = zip(*keys, strict=True)
        random = random_keys(self.seed, epochs[0], np.asarray(indices, np.int64))
        length = len(self)  # beyond it are samples that a sampler has drawn again
        leaves, within = zip(
            *(_leaf(self.dataset, index % length) for index in indices), strict=True
        )
        if all(leaf is leaves[0] for leaf in leaves):
            return _read(leaves[0], within, random)
        parts = zip(leaves, within, random[:, None], strict=True)
        return [_read(leaf, [index], key)[0] for leaf, index, key in parts]

    def __len__(self) -> int:
        return len(cast("Sized", self.dataset))


def _leaf(dataset: Dataset[Any], index: int) -> tuple[Any, int]:
    """The data set that holds a sample, inside Subset and ConcatDataset, and its index there."""
    if type(dataset) is Subset:
        return _leaf(dataset.dataset, dataset.indices[index])
    if type(dataset) is ConcatDataset:
        part = bisect_right(dataset.cumulative_sizes, index)
        before = dataset.cumulative_sizes[part - 1] if part else 0
        return _leaf(dataset.datasets[part], index - before)
    return dataset, index


def _read(dataset: Any, indices: Sequence[int], keys: NDArray[np.uint64]) -> Any:
    if isinstance(dataset, KeyedDataset):
        return dataset.fetch(np.asarray(indices, np.int64), keys)
    with isolate_rng(include_cuda=False):  # dropout must not depend on the data
        if hasattr(dataset, "__getitems__"):
            _seed_all(int(keys[0]))
            return dataset.__getitems__(list(indices))
        samples = []
        for index, key in zip(indices, keys.tolist(), strict=True):
            _seed_all(key)
            samples.append(dataset[index])
        return samples


def _unlabelled(samples: Any) -> Any:
    """The same samples without a labelled pixel."""
    if isinstance(samples, Batch):
        nothing = torch.zeros_like(samples.tensors["target"], dtype=torch.bool)
        return Batch({**samples.tensors, "labelled": nothing})
    return [
        {**sample, "labelled": torch.zeros(np.shape(sample["target"]), dtype=torch.bool)}
        for sample in samples
    ]


def _seed_all(key: int) -> None:
    random.seed(key)
    np.random.seed(key & 0xFFFF_FFFF)  # noqa: NPY002 - other data sets use the global generator
    torch.manual_seed(key)


class Deal(NamedTuple):
    """What a process is to map: tiles by batches, and the part that is done already, in [0, 1]."""

    batches: Sequence[range]
    done: float


class TileBatches(Dataset[dict[str, Tensor]]):
    """Whole batches of the tiles of an image, without truth; an index is a range of tiles."""

    def __init__(self, tiles: TileDataset, *, done: float) -> None:
        self.tiles = tiles
        self.done = done

    def __getitem__(self, indices: range) -> dict[str, Tensor]:
        return self.tiles.fetch_unlabelled(np.asarray(indices, np.int64))

    def __len__(self) -> int:
        return len(self.tiles)


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Stack samples to a batch; a :class:`Batch` is stacked already. ``labelled`` becomes bool."""
    batch = samples.tensors if isinstance(samples, Batch) else _stacked(samples)
    return batch if "labelled" not in batch else {**batch, "labelled": as_mask(batch["labelled"])}


def _stacked(samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    first = samples[0]
    if not isinstance(first, Mapping) or not {"patch", "target"} <= set(first):
        got = sorted(first) if isinstance(first, Mapping) else type(first).__name__
        raise DataError(
            f"a data set must yield mappings with 'patch' and 'target', got {got}: "
            "return {'patch': image, 'target': truth} from __getitem__"
        )
    batch: dict[str, Tensor] = default_collate(_with_equal_keys(samples))
    return batch


def _with_equal_keys(samples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Samples of joined data sets: all pixels count where one says nothing of it.

    What only some samples have besides is left out.
    """
    shared = set(samples[0]).intersection(*samples)
    missing = {"labelled", "weight"} & set().union(*samples) - shared
    if not missing and all(len(sample) == len(shared) for sample in samples):
        return list(samples)
    whole = [
        {**{key: np.ones(np.shape(sample["target"]), np.float32) for key in missing}, **sample}
        for sample in samples
    ]
    return [{key: _as_tensor(sample[key]) for key in shared | missing} for sample in whole]


def _as_tensor(value: Any) -> Any:
    return torch.as_tensor(value) if isinstance(value, np.ndarray) else value


def first_batch(dataset: AnyDataset) -> dict[str, Tensor]:
    """A data set's first sample as a batch of one, as its loader would give it."""
    if not isinstance(dataset, Sized) or len(dataset) == 0:
        raise DataError(
            f"{type(dataset).__name__} must be a map-style data set with at least one sample: "
            "give it __len__ and __getitem__"
        )
    return collate(Keyed(dataset, seed=0).__getitems__([(0, 0)]))


def usable_cores() -> int:
    """How many cores this process may use; 1 where the system does not say it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def usual_workers(num_devices: int = 1) -> int:
    """The worker processes of a loader for ``auto``: they do not pay off on few cores.

    The processes of this machine's devices share its cores, unless each is bound to its own.
    """
    cores = usable_cores()
    if cores == os.cpu_count():
        cores //= num_devices
    return 0 if cores <= 2 else min(cores - 1, 8)


class SegmentationData(pl.LightningDataModule):
    """The data sets of a run, and their loaders.

    Args:
        train: Training data.
        val: Validation data, or null.
        test: Test data, or null for ``val``.
        predict: Data to predict, or null for ``test``, ``val`` or ``train``.
        batch_size: Samples per batch and process.
        num_workers: Worker processes per loader, or ``auto`` for one less than the cores.
        seed: Decides order and augmentation.
        sampler: How training samples are drawn; each once an epoch where it is null.
    """

    def __init__(
        self,
        *,
        train: AnyDataset,
        val: AnyDataset | None = None,
        test: AnyDataset | None = None,
        predict: AnyDataset | None = None,
        batch_size: int = 256,
        num_workers: int | Literal["auto"] = "auto",
        seed: int = 0,
        sampler: BalancedSampler | None = None,
    ) -> None:
        super().__init__()
        self._pools = None if sampler is None else sampler.pools(train)
        self.train = train
        self.val = val
        self.test = test if test is not None else val
        self.predict = predict
        self.batches_to_map: Callable[[], Deal] | None = None
        """Deals the tiles of ``predict`` to this process; null for all samples, with truth."""
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed

    def setup(self, stage: str) -> None:  # noqa: ARG002 - the same for all stages
        """Use the main process's seed, because all processes share one order."""
        if self.trainer is not None and self.trainer.world_size > 1:
            self.seed = self.trainer.strategy.broadcast(self.seed)

    def train_dataloader(self) -> DataLoader[Any]:
        """Training batches, reshuffled in each epoch."""
        loader = self.loader(self.train, shuffle=True)
        if self.trainer is not None:
            # Lightning creates the first iterator before it sets the sampler's epoch
            sampler, epoch = cast("KeyedSampler", loader.sampler), epochs_done(self.trainer)
            sampler.set_epoch(epoch)
            if goes_on_inside_epoch(self.trainer):
                sampler.skip(epoch, batches_done(self.trainer))
        return loader

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Every validation sample once, in order; no loader without a data set."""
        return [] if self.val is None else self.loader(self.val)

    def test_dataloader(self) -> DataLoader[Any]:
        """Every test sample once, in order."""
        if self.test is None:
            raise DataError("there is no data set to test on: set test_dataset or val_dataset")
        return self.loader(self.test)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Every sample to predict once, in order; or the batches of tiles that are to be mapped."""
        dataset = self.predict if self.predict is not None else self.test or self.train
        if self.batches_to_map is None:
            return self.loader(dataset)
        batches, done = self.batches_to_map()
        workers = self._workers(len(batches) * self.batch_size)
        return DataLoader(
            TileBatches(cast("TileDataset", dataset), done=done),
            batch_size=None,  # what the sampler yields is a batch
            sampler=batches,
            num_workers=workers,
            pin_memory=self._feeds_gpu,
            worker_init_fn=leave_to_main_process,
            generator=torch.Generator().manual_seed(self.seed),
        )

    def loader(self, dataset: AnyDataset, *, shuffle: bool = False) -> DataLoader[Any]:
        """A loader of this process's share of a data set."""
        sampler = KeyedSampler(
            len(cast("Sized", dataset)),
            batch_size=self.batch_size,
            seed=self.seed,
            shuffle=shuffle,
            rank=self.trainer.global_rank if self.trainer is not None else 0,
            world_size=self.trainer.world_size if self.trainer is not None else 1,
            pools=self._pools if shuffle else None,
        )
        workers = self._workers(len(sampler))
        return DataLoader(
            Keyed(dataset, seed=self.seed),
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=collate,
            num_workers=workers,
            pin_memory=self._feeds_gpu,
            persistent_workers=workers > 0,
            worker_init_fn=leave_to_main_process,
            # the loader's own generator: a draw from the global one would shift dropout
            generator=torch.Generator().manual_seed(self.seed),
        )

    @property
    def _feeds_gpu(self) -> bool:
        """Whether batches go to a GPU, to which they are copied in the background if pinned."""
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _workers(self, num_samples: int) -> int:
        if self.num_workers != "auto":
            return self.num_workers
        # nor do they pay off for a handful of batches
        if num_samples <= 4 * self.batch_size:
            return 0
        return usual_workers(1 if self.trainer is None else self.trainer.num_devices)
