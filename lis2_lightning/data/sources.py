"""The types that a data set accepts as an image, in Python and in a configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse.typing import register_type
from numpy.typing import NDArray

from lis2_lightning.data.open_raster import ArrayRaster, Raster
from lis2_lightning.tiling import Tile

# arrays first: jsonargparse uses the first type that fits, and anything fits a string
Source = np.ndarray | Raster | str | os.PathLike[str]
"""An image: a path that :func:`~lis2_lightning.data.open_raster` accepts, or an array."""

BAND = 1 << 20
"""Pixels of two images that are compared at a time."""


def same_image(first: Raster, second: Raster) -> bool:
    """Whether two rasters read the same file, or equal arrays in memory.

    >>> same_image(ArrayRaster(np.eye(3)), ArrayRaster(np.eye(3)))
    True
    >>> same_image(ArrayRaster(np.eye(3)), ArrayRaster(np.ones((3, 3))))
    False
    """
    if first is second:
        return True
    if first.shape != second.shape:
        return False
    if Path(first.source).resolve() != Path(second.source).resolve():
        return False
    if isinstance(first, ArrayRaster) and isinstance(second, ArrayRaster):
        return _equal(first, second)
    return True


def _equal(first: Raster, second: Raster) -> bool:
    _, height, width = first.shape
    rows = max(1, BAND // width)
    bands = (Tile(top, 0, min(rows, height - top), width) for top in range(0, height, rows))
    return all(
        np.array_equal(first.read(band), second.read(band), equal_nan=True) for band in bands
    )


def _describe(array: NDArray[Any]) -> str:
    """How an array appears in a saved configuration."""
    return f"an array of {' x '.join(map(str, array.shape))} in memory"


def _refuse(value: object) -> NDArray[Any]:
    """Nothing in a configuration file is an array."""
    raise ValueError(f"{value!r} is not an array")


# otherwise jsonargparse would try to build arrays as components, and list all subclasses of
# np.ndarray in its help
register_type(
    np.ndarray,
    _describe,
    _refuse,
    type_check=isinstance,  # accepts memory maps too
    fail_already_registered=False,
)
