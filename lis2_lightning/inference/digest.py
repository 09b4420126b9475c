"""What a map follows from, as a short text: a stopped prediction goes on only where it is equal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def digest_of(options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """The digest of plain values and of weights, in hexadecimal.

    >>> digest_of({"stride": 1}, {}) == digest_of({"stride": 2}, {})
    False
    """
    digest = hashlib.sha256(json.dumps(options, sort_keys=True, default=_exact).encode())
    for name, weight in weights.items():
        values = weight.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _exact(value: object) -> object:
    """All digits of a tensor, of which its text shows four."""
    return value.tolist() if isinstance(value, Tensor) else str(value)
