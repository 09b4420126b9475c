"""Rasters stored in blocks (compressed FITS, tiled TIFF, Zarr), read through a cache of blocks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data.rasters.contract import SlicedRaster

File = TypeVar("File")
CACHE_BYTES = 64 * 2**20  # per raster and process: a band of blocks across a wide map
LEAST_SIDE = 256  # a block of one row, FITS's default, would be read almost pixel by pixel


class _Opened(Generic[File]):
    """A file, and a cache of the blocks read from it."""

    def __init__(
        self, file: File, read: Callable[[int, int], NDArray[Any]], num_cached: int
    ) -> None:
        self.file = file
        self.block = lru_cache(maxsize=num_cached)(read)


class BlockRaster(SlicedRaster["_Opened[File]"], Generic[File]):
    """An image that can only be read in whole blocks.

    Args:
        shape: The stored shape; see :func:`channels_first`.
        dtype: The type of the numbers that :meth:`read_block` returns.
        block: Height and width of the stored blocks, px; small blocks are read together.
        source: Its name in error messages.

    Raises:
        DataError: The shape is not an image's.
    """

    def __init__(
        self, shape: Sequence[int], dtype: np.dtype[Any], *, block: tuple[int, int], source: str
    ) -> None:
        height, width = (-(-LEAST_SIDE // side) * side for side in block)
        super().__init__(shape, dtype, source=source, block=(height, width))
        block_bytes = self.shape[0] * height * width * dtype.itemsize
        self._num_cached = max(4, CACHE_BYTES // block_bytes)

    @abstractmethod
    def open_file(self) -> File:
        """Open the file in this process."""

    def close_file(self, file: File) -> None:
        """Close the file; the default leaves that to the file itself."""

    @abstractmethod
    def read_block(self, file: File, rows: slice, columns: slice) -> NDArray[Any]:
        """Read whole blocks from the file, ``(..., C, h, w)``."""

    def open(self) -> _Opened[File]:
        """Open the file with an empty cache."""
        file = self.open_file()
        height, width = self.block

        def read(row: int, column: int) -> NDArray[Any]:
            rows = slice(row * height, min((row + 1) * height, self.shape[1]))
            columns = slice(column * width, min((column + 1) * width, self.shape[2]))
            values = self.read_block(file, rows, columns)
            return values.reshape(self.shape[0], *values.shape[-2:])

        return _Opened(file, read, self._num_cached)

    def release(self, handle: _Opened[File]) -> None:
        """Close the file and drop the cache."""
        self.close_file(handle.file)

    def fill(self, values: NDArray[np.float32], top: int, left: int) -> None:
        """Fill ``(C, h, w)`` with the pixels from a corner on, block by block."""
        bottom, right = top + values.shape[1], left + values.shape[2]
        height, width = self.block
        for row in range(top // height, -(-bottom // height)):
            for column in range(left // width, -(-right // width)):
                y, x = row * height, column * width
                inside = slice(max(top - y, 0), bottom - y), slice(max(left - x, 0), right - x)
                part = self.handle.block(row, column)[:, *inside]
                into_y, into_x = max(y - top, 0), max(x - left, 0)
                into = values[:, into_y : into_y + part.shape[1], into_x : into_x + part.shape[2]]
                into[...] = part
