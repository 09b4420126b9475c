"""Where an image has no value: another image says so."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data.rasters.arrays import ArrayRaster
from lis2_lightning.data.rasters.contract import LazyArray, Raster
from lis2_lightning.tiling.grid import Tile


class MaskedRaster(LazyArray):
    """An image that is NaN where a mask, of one channel or as many as the image, is 0."""

    def __init__(self, image: Raster, mask: Raster) -> None:
        self.image, self.mask = image, mask
        self.source, self.shape = image.source, image.shape

    def read(self, tile: Tile) -> NDArray[np.float32]:
        """Read one rectangle, ``(C, height, width)``."""
        return _hidden(self.image.read(tile), self.mask.read(tile))

    def read_many(
        self, tops: NDArray[np.int64], lefts: NDArray[np.int64], size: int
    ) -> NDArray[np.float32]:
        """Read N squares, ``(N, C, size, size)``."""
        values = self.image.read_many(tops, lefts, size)
        return _hidden(values, self.mask.read_many(tops, lefts, size))


def _hidden(values: NDArray[np.float32], mask: NDArray[np.float32]) -> NDArray[np.float32]:
    values[np.broadcast_to(mask == 0, values.shape)] = np.nan
    return values


def open_masked_array(array: np.ma.MaskedArray[tuple[int, ...], np.dtype[np.generic]]) -> Raster:
    """An array with the mask that NumPy keeps beside it, true where there is no value."""
    pixels = ArrayRaster(np.ma.getdata(array))
    if array.mask is np.ma.nomask:
        return pixels
    return MaskedRaster(pixels, ArrayRaster(~np.ma.getmaskarray(array)))
