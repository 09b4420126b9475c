"""Rasters stored in blocks (compressed FITS, tiled TIFF, Zarr) and read block by block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data.rasters.contract import (
    OpenedLate,
    channels_first,
    check_inside,
    check_squares,
)
from lis2_lightning.tiling.grid import Tile

File = TypeVar("File")
BlockReader = Callable[[int, int], NDArray[Any]]
CACHE_BYTES = 64 * 2**20  # per raster and process; enough for a band of blocks across a wide map
LEAST_SIDE = 256  # a block of one row, as FITS compresses by default, would be read pixel by pixel


class _Opened(Generic[File]):
    """A file and the blocks of it that were read last."""

    def __init__(self, file: File, read: BlockReader, num_cached: int) -> None:
        self.file = file
        self.block = lru_cache(maxsize=num_cached)(read)


class BlockRaster(OpenedLate["_Opened[File]"], Generic[File]):
    """An image that can only be read in whole blocks; the last ones read are kept.

    Args:
        shape: The stored shape; see :func:`channels_first`.
        dtype: The type of the numbers that :meth:`read_block` gives.
        block: Height and width of the stored blocks, in pixels; small ones are read together.
        source: What to call it in an error.

    Raises:
        DataError: The shape is no image's.
    """

    def __init__(
        self,
        *,
        shape: Sequence[int],
        dtype: np.dtype[Any],
        block: tuple[int, int],
        source: str,
    ) -> None:
        self.source = source
        self.shape = channels_first(shape, dtype, source)
        self._block = tuple(-(-LEAST_SIDE // side) * side for side in block)
        block_bytes = self.shape[0] * self._block[0] * self._block[1] * dtype.itemsize
        self._num_cached = max(4, CACHE_BYTES // block_bytes)

    def open_file(self) -> File:
        """Open the file in this process; each format says how."""
        raise NotImplementedError

    def close_file(self, file: File) -> None:
        """Close the file; a format whose files close themselves need not say how."""

    def read_block(self, file: File, rows: slice, columns: slice) -> NDArray[Any]:
        """Read whole blocks from the file, ``(C, h, w)``; each format says how."""
        raise NotImplementedError

    def open(self) -> _Opened[File]:
        """Open the file with an empty cache."""
        file = self.open_file()
        height, width = self._block

        def read(row: int, column: int) -> NDArray[Any]:
            rows = slice(row * height, min((row + 1) * height, self.shape[1]))
            columns = slice(column * width, min((column + 1) * width, self.shape[2]))
            return self.read_block(file, rows, columns)

        return _Opened(file, read, self._num_cached)

    def release(self, handle: _Opened[File]) -> None:
        """Close the file and forget the blocks."""
        self.close_file(handle.file)

    def read(self, tile: Tile) -> NDArray[np.float32]:
        """Read one rectangle, ``(C, height, width)``."""
        check_inside(self.shape, (tile.top, tile.left, tile.bottom, tile.right), self.source)
        values = np.empty((self.shape[0], tile.height, tile.width), dtype=np.float32)
        self._fill(values, tile.top, tile.left)
        return values

    def read_many(
        self, tops: NDArray[np.int64], lefts: NDArray[np.int64], size: int
    ) -> NDArray[np.float32]:
        """Read N squares, ``(N, C, size, size)``, in the order in which they are stored."""
        check_squares(self.shape, tops, lefts, size, self.source)
        values = np.empty((len(tops), self.shape[0], size, size), dtype=np.float32)
        height, width = self._block
        for index in np.lexsort((lefts // width, tops // height)):  # so that blocks are read once
            self._fill(values[index], int(tops[index]), int(lefts[index]))
        return values

    def _fill(self, values: NDArray[np.float32], top: int, left: int) -> None:
        """Fill ``(C, h, w)`` with the pixels from a corner on, block by block."""
        bottom, right = top + values.shape[1], left + values.shape[2]
        height, width = self._block
        block = self.handle.block
        for row in range(top // height, -(-bottom // height)):
            for column in range(left // width, -(-right // width)):
                y, x = row * height, column * width
                part = block(row, column)[
                    :, max(top - y, 0) : bottom - y, max(left - x, 0) : right - x
                ]
                into_y, into_x = max(y - top, 0), max(x - left, 0)
                into = values[:, into_y : into_y + part.shape[1], into_x : into_x + part.shape[2]]
                into[...] = part
