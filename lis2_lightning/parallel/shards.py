"""Tensors of which each process holds a part, as FSDP makes them."""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds, sharing its memory; all of a plain one.

    >>> import torch
    >>> local(torch.zeros(2))
    tensor([0., 0.])
    """
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
