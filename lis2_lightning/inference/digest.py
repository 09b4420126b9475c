"""What a map follows from, as a short text: a stopped prediction goes on only where it is equal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import chain
from typing import Any, Final

import torch
from torch import Tensor

from lis2_lightning.base.files import stats
from lis2_lightning.data import Raster
from lis2_lightning.data.rasters.address import parse_address
from lis2_lightning.tiling import Tile

_STRIP: Final = 256  # rows read at once


def digest_of(options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """The digest of plain values and of weights, in hexadecimal.

    >>> digest_of({"stride": 1}, {}) == digest_of({"stride": 2}, {})
    False
    """
    digest = hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode())
    for name, weight in weights.items():
        values = weight.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def identity(image: Raster) -> list[Any]:
    """What tells an image from another: of a file name, size and time, else all its pixels."""
    path = parse_address(image.source).path
    if path.exists():
        stamps = (
            (str(name.absolute()), stat.st_size, stat.st_mtime_ns) for name, stat in stats(path)
        )
        return [image.source, *image.shape, *chain.from_iterable(stamps)]
    digest = hashlib.sha256()
    _, height, width = image.shape
    for top in range(0, height, _STRIP):
        digest.update(image.read(Tile(top, 0, min(_STRIP, height - top), width)).data)
    return [image.source, *image.shape, digest.hexdigest()]
