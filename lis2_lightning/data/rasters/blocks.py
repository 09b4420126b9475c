"""Rasters stored in blocks (compressed FITS, tiled TIFF, Zarr), read through a cache of blocks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data.rasters.contract import SlicedRaster
from lis2_lightning.errors import DataError

CACHE_BYTES = 64 * 2**20  # per raster and process: a band of blocks across a wide map
MOST_BYTES = 4 * 2**30  # of one block: more is a damaged header or would not fit
LEAST_SIDE = 256  # a block of one row, FITS's default, would be read almost pixel by pixel


class BlockRaster(SlicedRaster):
    """An image that can only be read in whole blocks; small blocks are read together."""

    _cached: Callable[[int, int], NDArray[Any]] | None = None

    def __init__(
        self,
        shape: Sequence[int],
        dtype: np.dtype[Any],
        *,
        block: tuple[int, ...],
        source: str,
        plane: tuple[int, ...] = (),
    ) -> None:
        super().__init__(shape, dtype, source=source, plane=plane)
        height, width = (-(-LEAST_SIDE // side) * side for side in block[-2:])
        self.block = height, width
        # blocks are kept as they are given: float32
        block_bytes = self.shape[0] * min(height, self.shape[1]) * min(width, self.shape[2]) * 4
        if block_bytes > MOST_BYTES:
            raise DataError(
                f"{source} is stored in blocks of {block_bytes / 2**30:.1f} GiB, which are read "
                f"whole: store it in smaller blocks, such as 512 x 512 px"
            )
        self._num_cached = max(4, CACHE_BYTES // block_bytes)

    @abstractmethod
    def read_block(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Read whole blocks from the file, ``(..., C, h, w)``."""

    def _block(self, row: int, column: int) -> NDArray[Any]:
        height, width = self.block
        rows = slice(row * height, min((row + 1) * height, self.shape[1]))
        columns = slice(column * width, min((column + 1) * width, self.shape[2]))
        values = self.read_block(rows, columns)
        return values.reshape(self.shape[0], *values.shape[-2:])

    def fill(self, values: NDArray[np.float32], top: int, left: int) -> None:
        """Fill ``(C, h, w)`` with the pixels from a corner on, block by block."""
        if self._cached is None:
            self._cached = lru_cache(maxsize=self._num_cached)(self._block)
        bottom, right = top + values.shape[1], left + values.shape[2]
        height, width = self.block
        for row in range(top // height, -(-bottom // height)):
            for column in range(left // width, -(-right // width)):
                y, x = row * height, column * width
                inside = slice(max(top - y, 0), bottom - y), slice(max(left - x, 0), right - x)
                part = self._cached(row, column)[:, *inside]
                into_y, into_x = max(y - top, 0), max(x - left, 0)
                into = values[:, into_y : into_y + part.shape[1], into_x : into_x + part.shape[2]]
                into[...] = part

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_cached": None}
