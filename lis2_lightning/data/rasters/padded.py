"""Images that are smaller than a tile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data.rasters.contract import Raster, check_inside
from lis2_lightning.tiling.grid import Tile


@dataclass(frozen=True, slots=True, eq=False)
class PaddedRaster:
    """An image with as many rows and columns below and right of it as a tile needs: all NaN."""

    image: Raster
    shape: tuple[int, int, int]

    @property
    def source(self) -> str:
        """The name of the image."""
        return self.image.source

    def read(self, tile: Tile) -> NDArray[np.float32]:
        """Read one rectangle, ``(C, height, width)``."""
        check_inside(self, tile.top, tile.left, tile.height, tile.width)
        channels, bottom, right = self.image.shape
        values = np.full((channels, tile.height, tile.width), np.nan, dtype=np.float32)
        height, width = min(tile.bottom, bottom) - tile.top, min(tile.right, right) - tile.left
        if height > 0 and width > 0:
            inside = Tile(tile.top, tile.left, height, width)
            values[:, :height, :width] = self.image.read(inside)
        return values

    def read_many(
        self, tops: NDArray[np.int64], lefts: NDArray[np.int64], size: int
    ) -> NDArray[np.float32]:
        """Read N squares, ``(N, C, size, size)``."""
        tiles = [self.read(Tile(*at, size, size)) for at in zip(tops, lefts, strict=True)]
        return np.stack(tiles)


def padded(image: Raster, size: int) -> Raster:
    """The image, at least ``size`` px high and wide; itself if it is."""
    channels, height, width = image.shape
    if min(height, width) >= size:
        return image
    return PaddedRaster(image, (channels, max(height, size), max(width, size)))


def unpadded(image: Raster) -> Raster:
    """The image that :func:`padded` was given."""
    return image.image if isinstance(image, PaddedRaster) else image
