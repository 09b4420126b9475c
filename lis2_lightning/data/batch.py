"""What data sets of this package yield: batches, whose augmentations follow from random keys."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lis2_lightning.data.sampling import random_keys
from lis2_lightning.errors import DataError

if TYPE_CHECKING:
    AnyDataset = Dataset[Any]
else:
    # jsonargparse builds nothing for a class with type arguments; in a module that uses the name
    # it would read the other branch, so others import it from here
    AnyDataset = Dataset

Sample = dict[str, Tensor]
"""One sample: `patch`, `target`, `labelled` and more, `(C, H, W)` each."""


class Batch(Sequence[Sample]):
    """Samples stored as stacked tensors.

    A PyTorch loader sees the list of samples that it expects from ``__getitems__``; our collate
    function takes :attr:`tensors` as they are, so that nothing is stacked twice.

    Attributes:
        tensors: By name, each with the samples along its first axis, `(B, ...)`.

    Raises:
        DataError: There is no tensor, or they hold different numbers of samples.

    >>> import torch
    >>> batch = Batch({"patch": torch.zeros(3, 1, 4, 4), "corner": torch.zeros(3, 2)})
    >>> len(batch), batch[0]["patch"].shape
    (3, torch.Size([1, 4, 4]))
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        lengths = {name: len(tensor) for name, tensor in tensors.items()}
        if len(set(lengths.values())) != 1:
            raise DataError(
                f"the tensors of a batch must hold the same number of samples, got {lengths}"
            )
        self.tensors = dict(tensors)
        self._length = next(iter(lengths.values()))

    def __len__(self) -> int:
        """The number of samples."""
        return self._length

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]  # no slices
        """One sample; views of the tensors."""
        return {name: tensor[index] for name, tensor in self.tensors.items()}


class KeyedDataset(Dataset[Sample], ABC):
    """A map-style data set that takes a random key for each sample.

    Plain indexing uses the keys of seed 0 and epoch 0.
    """

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples."""

    @abstractmethod
    def fetch(self, indices: NDArray[np.int64], keys: NDArray[np.uint64]) -> Batch:
        """Read B samples from 0 to the length; each has a random key that decides its augmentation.

        Each sample is the same whatever else is in the batch.
        """

    def __getitem__(self, index: int) -> Sample:
        """Read one sample."""
        length = len(self)
        if not -length <= index < length:
            raise IndexError(f"index {index} is out of range for {length} samples")
        return self.__getitems__([index % length])[0]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Read many samples at once."""
        array = np.asarray(indices, dtype=np.int64)
        return self.fetch(array, random_keys(0, 0, array))
