"""Rasters over arrays: in memory, or memory-mapped from a file of plain numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from lis2_lightning.data.rasters.contract import (
    OpenedLate,
    channels_first,
    check_inside,
    existing_file,
    to_float32,
)
from lis2_lightning.errors import DataError
from lis2_lightning.tiling.grid import Tile


class ArrayRaster:
    """An array in memory, ``(H, W)`` or ``(C, H, W)``; it is not copied."""

    def __init__(self, array: NDArray[Any], *, source: str = "an array in memory") -> None:
        self.source = source
        self.shape = channels_first(array.shape, array.dtype, source)
        self._array = array.reshape(self.shape)

    @property
    def handle(self) -> NDArray[Any]:
        """The stored pixels, ``(C, H, W)``."""
        return self._array

    def scaled(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Copy stored numbers as float32 values."""
        return to_float32(stored)

    def read(self, tile: Tile) -> NDArray[np.float32]:
        """Read one rectangle, ``(C, height, width)``."""
        check_inside(self, tile.top, tile.left, tile.height, tile.width)
        return self.scaled(self.handle[:, tile.rows, tile.columns])

    def read_many(
        self, tops: NDArray[np.int64], lefts: NDArray[np.int64], size: int
    ) -> NDArray[np.float32]:
        """Read N squares, ``(N, C, size, size)``."""
        check_inside(self, tops, lefts, size, size)
        # one indexing step, several times as fast as a loop over slices
        windows = sliding_window_view(self.handle, (size, size), axis=(1, 2))
        return self.scaled(np.moveaxis(windows[:, tops, lefts], 0, 1))


class MappedRaster(OpenedLate, ArrayRaster):
    """Plain numbers at an offset of a file, read through a memory map.

    The shape and order are those in the file; channels are stored first, or last as in RGB images.
    """

    def __init__(
        self,
        path: Path,
        *,
        source: str,
        offset: int,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        order: Literal["C", "F"] = "C",
        channels: Literal["first", "last"] = "first",
    ) -> None:
        self.source = source
        self._channels = channels
        planes = shape if channels == "first" else (shape[-1], *shape[:-1])
        self.shape = channels_first(planes, dtype, source)
        self._path = path.absolute()
        self._dtype, self._offset, self._stored, self._order = dtype, offset, shape, order
        end = offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        missing = end - self._path.stat().st_size
        if missing > 0:
            raise DataError(f"{path} is truncated, {missing} bytes are missing: copy it again")

    def open(self) -> NDArray[Any]:
        """Map the file; nothing is read yet."""
        try:
            mapped = np.memmap(
                self._path, self._dtype, "r", self._offset, self._stored, order=self._order
            )
        except OSError as error:
            raise DataError(f"{self.source} cannot be opened: {error.strerror}") from error
        array = np.asarray(mapped)  # indexing np.memmap itself costs microseconds each time
        planes = array if self._channels == "first" else np.moveaxis(array, -1, 0)
        return planes.reshape(self.shape)


def open_npy(path: Path, which: str | None) -> MappedRaster:
    """Open a ``.npy`` file, which holds a single array."""
    if which is not None:
        raise DataError(f"{path} holds a single array: remove {which!r}")
    with existing_file(path).open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read_header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = read_header(file)
        except ValueError as error:
            raise DataError(f"{path} is not a NumPy file: write it with numpy.save") from error
        return MappedRaster(
            path,
            source=str(path),
            offset=file.tell(),
            dtype=dtype,
            shape=shape,
            order="F" if fortran else "C",
        )
