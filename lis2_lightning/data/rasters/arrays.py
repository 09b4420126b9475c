"""Rasters over arrays: in memory, or memory-mapped from a file of plain numbers."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from lis2_lightning.data.rasters.address import Address
from lis2_lightning.data.rasters.contract import (
    LazyArray,
    OpenedLate,
    check_inside,
    existing_file,
    readable,
    select_image,
    to_float32,
)
from lis2_lightning.data.rasters.packing import Packing
from lis2_lightning.errors import DataError
from lis2_lightning.tiling.grid import Tile


class ArrayRaster(LazyArray):
    """An array in memory, ``(H, W)`` or ``(C, H, W)``; it is not copied."""

    def __init__(self, array: NDArray[Any], *, source: str = "an array in memory") -> None:
        self.source = source
        self.shape, _ = select_image(array.shape, array.dtype, source)
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
        plane: tuple[int, ...] = (),
        packing: Packing | None = None,
    ) -> None:
        self.source = source
        self._packing = packing or Packing()
        self._channels = channels
        planes = shape if channels == "first" else (shape[-1], *shape[:-1])
        self.shape, self._leading = select_image(planes, dtype, source, plane)
        shape = tuple(int(side) for side in shape)
        self._path = path.absolute()
        self._dtype, self._offset, self._stored, self._order = dtype, offset, shape, order
        end = offset + math.prod(shape) * dtype.itemsize
        missing = end - self._path.stat().st_size
        if missing > 0:
            raise DataError(f"{path} is truncated, {missing} bytes are missing: copy it again")

    def scaled(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Copy stored numbers as float32 values, NaN where there is no value."""
        return self._packing.unpack(stored)

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
        return planes[self._leading].reshape(self.shape)


class ArchivedRaster(OpenedLate, ArrayRaster):
    """An array of an ``.npz`` archive; each process that reads it holds it whole."""

    def __init__(self, address: Address, name: str) -> None:
        self._path, self._name = address.path.absolute(), name
        self.source = Address(address.path, name, address.plane).source
        with zipfile.ZipFile(self._path) as archive, archive.open(f"{name}.npy") as file:
            shape, _, dtype = read_npy_header(file)
            size = archive.getinfo(f"{name}.npy").file_size
            self.shape, self._leading = select_image(shape, dtype, self.source, address.plane)
            if math.prod(shape) * dtype.itemsize > size:
                raise DataError(f"{self.source} is truncated: write the archive again")

    def open(self) -> NDArray[Any]:
        """Load the array."""
        with readable(self.source), np.load(self._path) as archive:
            stored: NDArray[Any] = archive[self._name]
            return stored[self._leading].reshape(self.shape)


def open_npz(address: Address) -> ArchivedRaster:
    """Open an array of an ``.npz`` archive by its name, or the only one."""
    with zipfile.ZipFile(existing_file(address.path)) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    name = (address.which or "").strip("/") or (names[0] if len(names) == 1 else "")
    if name not in names:
        asked = f"no array {name!r}" if name else f"{len(names)} arrays: name one"
        raise DataError(
            f"{address.path} has {asked}, as in {address.path}:{names[0] if names else 'image'}; "
            f"valid are {', '.join(names)}"
        )
    return ArchivedRaster(address, name)


def open_npy(address: Address) -> MappedRaster:
    """Open a ``.npy`` file, which holds a single array."""
    with existing_file(address.path).open("rb") as file:
        try:
            shape, fortran, dtype = read_npy_header(file)
        except ValueError as error:
            raise DataError(
                f"{address.path} is not a NumPy file: write it with numpy.save"
            ) from error
        return MappedRaster(
            address.path,
            source=address.source,
            offset=file.tell(),
            dtype=dtype,
            shape=shape,
            order="F" if fortran else "C",
            plane=address.plane,
        )


def read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """The shape, whether the order is Fortran's, and the type of a ``.npy`` file."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)
