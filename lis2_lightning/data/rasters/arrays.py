"""Rasters over arrays: in memory, or mapped from a file that stores plain numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data.rasters.contract import (
    OpenedLate,
    channels_first,
    check_inside,
    check_squares,
    existing_file,
    gather,
    to_float32,
)
from lis2_lightning.errors import DataError
from lis2_lightning.tiling.grid import Tile


class ArrayRaster:
    """An array in memory, ``(H, W)`` or ``(C, H, W)``; it is kept as it is, not copied.

    Args:
        array: The image.
        source: What to call it in an error.

    Raises:
        DataError: The array has the wrong dimensions or holds no numbers.
    """

    def __init__(self, array: NDArray[Any], *, source: str = "an array in memory") -> None:
        self.source = source
        self.shape = channels_first(array.shape, array.dtype, source)
        self._array = array.reshape(self.shape)

    def read(self, tile: Tile) -> NDArray[np.float32]:
        """Read one rectangle, ``(C, height, width)``."""
        check_inside(self.shape, (tile.top, tile.left, tile.bottom, tile.right), self.source)
        return to_float32(self._array[:, tile.rows, tile.columns])

    def read_many(
        self, tops: NDArray[np.int64], lefts: NDArray[np.int64], size: int
    ) -> NDArray[np.float32]:
        """Read N squares, ``(N, C, size, size)``."""
        check_squares(self.shape, tops, lefts, size, self.source)
        return to_float32(gather(self._array, tops, lefts, size))


class MappedRaster(OpenedLate[NDArray[Any]]):
    """Plain numbers at an offset of a file, read through a memory map.

    Args:
        path: The file.
        source: What to call it in an error.
        offset: Where the numbers begin, in bytes.
        dtype: Their type, with its byte order.
        shape: Their shape as stored; see :func:`channels_first`.
        order: `C` or `F`, as NumPy means it.
        channels: Whether the channels of a stored ``(C, H, W)`` or ``(H, W, C)`` come first.

    Raises:
        DataError: The shape is no image's, or the file ends before the last number.
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
        self._layout: tuple[Any, int, tuple[int, ...], Literal["C", "F"]]
        self._layout = (dtype, offset, shape, order)
        missing = offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        missing -= self._path.stat().st_size
        if missing > 0:
            raise DataError(f"{path} is truncated, {missing} bytes are missing: copy it again")

    def open(self) -> NDArray[Any]:
        """Map the file; nothing is read yet."""
        dtype, offset, shape, order = self._layout
        try:
            mapped = np.memmap(
                self._path, dtype=dtype, mode="r", offset=offset, shape=shape, order=order
            )
        except OSError as error:
            raise DataError(f"{self.source} cannot be opened: {error.strerror}") from error
        # a plain view: indexing np.memmap objects costs several microseconds each time
        array = np.asarray(mapped)
        return (array if self._channels == "first" else np.moveaxis(array, -1, 0)).reshape(
            self.shape
        )

    def scaled(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Turn stored numbers into float32 values."""
        return to_float32(stored)

    def read(self, tile: Tile) -> NDArray[np.float32]:
        """Read one rectangle, ``(C, height, width)``."""
        check_inside(self.shape, (tile.top, tile.left, tile.bottom, tile.right), self.source)
        return self.scaled(self.handle[:, tile.rows, tile.columns])

    def read_many(
        self, tops: NDArray[np.int64], lefts: NDArray[np.int64], size: int
    ) -> NDArray[np.float32]:
        """Read N squares, ``(N, C, size, size)``."""
        check_squares(self.shape, tops, lefts, size, self.source)
        return self.scaled(gather(self.handle, tops, lefts, size))


def open_npy(path: Path) -> MappedRaster:
    """Open a ``.npy`` file.

    Raises:
        DataError: It is missing, no NumPy file, truncated, or holds no image.
    """
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
            raise DataError(f"{path} is no NumPy file: write it with numpy.save") from error
        return MappedRaster(
            path,
            source=str(path),
            offset=file.tell(),
            dtype=dtype,
            shape=shape,
            order="F" if fortran else "C",
        )
