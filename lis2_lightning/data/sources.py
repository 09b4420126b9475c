"""What a data set takes as an image, in Python and in a configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse.typing import register_type
from numpy.typing import NDArray

from lis2_lightning.data.open_raster import ArrayRaster, Raster, open_raster
from lis2_lightning.tiling import Tile

# arrays come first: jsonargparse takes the first type that fits, and makes a string of anything
Source = np.ndarray | Raster | str | os.PathLike[str]
"""An image: a path that :func:`~lis2_lightning.data.open_raster` accepts, or an array."""

BAND = 1 << 20
"""How many pixels of two images are compared at a time."""


def open_optional(source: Source | None) -> Raster | None:
    """Open an image where there is one."""
    return None if source is None else open_raster(source)


def same_image(first: Raster, second: Raster) -> bool:
    """Say whether two rasters read the same image.

    A file is told by its path, an array in memory by its pixels.

    >>> image = np.eye(3)
    >>> same_image(open_raster(image), open_raster(image.copy()))
    True
    >>> same_image(open_raster(image), open_raster(image + 1))
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
    """Compare two images of one shape, band by band."""
    _, height, width = first.shape
    rows = max(1, BAND // width)
    bands = (Tile(top, 0, min(rows, height - top), width) for top in range(0, height, rows))
    return all(
        np.array_equal(first.read(band), second.read(band), equal_nan=True) for band in bands
    )


def _describe(array: NDArray[Any]) -> str:
    """Say in a saved configuration that something was no file."""
    return f"an array of {' x '.join(map(str, array.shape))} in memory"


def _refuse(value: object) -> NDArray[Any]:
    """Arrays are handed over as they are: nothing in a configuration file is one."""
    raise ValueError(f"{value!r} is no array")


# without this jsonargparse takes an array for a component to be built, and lists in its help the
# dozens of subclasses that astropy and NumPy have
register_type(
    np.ndarray,
    _describe,
    _refuse,
    type_check=isinstance,  # so that a memory map is one too
    fail_already_registered=False,
)
