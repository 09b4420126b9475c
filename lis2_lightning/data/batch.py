"""A batch that a data set has already put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import overload

from torch import Tensor

from lis2_lightning.errors import DataError

Sample = dict[str, Tensor]
"""What a data set gives for one tile: `patch`, `target`, `labelled` and more, `(C, H, W)` each."""


class Batch(Sequence[Sample]):
    """Samples stored as stacked tensors.

    A PyTorch loader sees a list of samples, as it expects from ``__getitems__``; a collate function
    that knows this class takes its :attr:`tensors` as they are, so that nothing is stacked twice.

    Args:
        tensors: By name, each with the samples along its first axis, `(B, ...)`.

    Attributes:
        tensors: As given.

    Raises:
        DataError: There is no tensor, or they differ in how many samples they hold.

    >>> import torch
    >>> batch = Batch({"patch": torch.zeros(3, 1, 4, 4), "corner": torch.zeros(3, 2)})
    >>> len(batch), batch[0]["patch"].shape
    (3, torch.Size([1, 4, 4]))
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        lengths = {name: len(tensor) for name, tensor in tensors.items()}
        if len(set(lengths.values())) != 1:
            raise DataError(f"the tensors of a batch must hold equally many samples, got {lengths}")
        self.tensors = dict(tensors)
        self._length = next(iter(lengths.values()))

    def __len__(self) -> int:
        """How many samples there are."""
        return self._length

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Batch: ...

    def __getitem__(self, index: int | slice) -> Sample | Batch:
        """Give one sample, or a batch of some; views of the tensors."""
        if isinstance(index, slice):
            return Batch({name: tensor[index] for name, tensor in self.tensors.items()})
        if not -self._length <= index < self._length:
            raise IndexError(f"a batch of {self._length} samples has none at {index}")
        return {name: tensor[index] for name, tensor in self.tensors.items()}

    def __iter__(self) -> Iterator[Sample]:
        """Go through the samples."""
        return (self[index] for index in range(self._length))
