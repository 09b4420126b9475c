"""HDF5 images, one slice a window: measured, ten times as fast as batched fancy indexing.

Reading 32 x 32 windows of a gzipped file gave 8,621 a second by slices, 837 by sorted index lists.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data.rasters.contract import (
    OpenedLate,
    channels_first,
    check_inside,
    check_squares,
    existing_file,
    to_float32,
)
from lis2_lightning.errors import DataError, did_you_mean
from lis2_lightning.tiling.grid import Tile

CHUNK_CACHE_BYTES = 64 * 2**20  # of decompressed chunks; HDF5's own default is 1 MB
CHUNK_SLOTS = 100_003  # a prime far above the number of chunks: two in one slot evict each other


class Hdf5Raster(OpenedLate[Any]):
    """A data set of an HDF5 file, ``(H, W)`` or ``(C, H, W)``.

    Args:
        path: The file.
        name: The data set in it.
        source: What to call it in an error.

    Raises:
        DataError: The data set is no image.
    """

    def __init__(self, path: Path, name: str, *, dataset: Any, source: str) -> None:
        self.source = source
        self.shape = channels_first(dataset.shape, dataset.dtype, source)
        self._leading = (0,) * (len(dataset.shape) - 3) if len(dataset.shape) > 3 else ()
        self._path, self._name = path.absolute(), name

    def open(self) -> Any:
        """Open the data set in this process; it keeps its file open."""
        return open_h5(self._path)[self._name]

    def release(self, handle: Any) -> None:
        """Close the data set's file."""
        handle.file.close()

    def read(self, tile: Tile) -> NDArray[np.float32]:
        """Read one rectangle, ``(C, height, width)``."""
        check_inside(self.shape, (tile.top, tile.left, tile.bottom, tile.right), self.source)
        return self._slice(tile.rows, tile.columns).reshape(-1, tile.height, tile.width)

    def read_many(
        self, tops: NDArray[np.int64], lefts: NDArray[np.int64], size: int
    ) -> NDArray[np.float32]:
        """Read N squares, ``(N, C, size, size)``, in the order of their rows."""
        check_squares(self.shape, tops, lefts, size, self.source)
        values = np.empty((len(tops), self.shape[0], size, size), dtype=np.float32)
        for index in np.lexsort((lefts, tops)):  # neighbours share chunks, which are cached
            top, left = int(tops[index]), int(lefts[index])
            values[index] = self._slice(slice(top, top + size), slice(left, left + size))
        return values

    def _slice(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        return to_float32(self.handle[(*self._leading, ..., rows, columns)])


def open_h5(path: Path, *, cache_bytes: int = CHUNK_CACHE_BYTES) -> Any:
    """Open an HDF5 file for reading, with a cache of chunks for each data set while it is open.

    Raises:
        DataError: It is missing, no HDF5 file, truncated or locked.
    """
    try:
        return h5py.File(existing_file(path), "r", rdcc_nbytes=cache_bytes, rdcc_nslots=CHUNK_SLOTS)
    except OSError as error:
        reason = "it is truncated" if "truncated" in str(error) else "it is not, or damaged"
        raise DataError(f"{path} cannot be read as an HDF5 file: {reason}") from error


def open_hdf5(path: Path, which: str | None) -> Hdf5Raster:
    """Open an image of an HDF5 file.

    Args:
        path: The file.
        which: The name of the data set, or None where the file holds a single one.

    Raises:
        DataError: The file cannot be read, or there is no such image in it.
    """
    with open_h5(path) as file:
        names: list[str] = []
        file.visititems(lambda name, item: _note(names, name, item))
        if which is None:
            if len(names) != 1:
                raise DataError(
                    f"{path} holds {len(names)} data sets ({', '.join(names)}): name one, as in "
                    f"{path}:/{names[0] if names else 'image'}"
                )
            which = names[0]
        which = which.strip("/")
        if which not in names:
            raise DataError(f"{path} has no data set {which!r}: {did_you_mean(which, names)}")
        return Hdf5Raster(path, which, dataset=file[which], source=f"{path}:/{which}")


def _note(names: list[str], name: str, item: Any) -> None:
    if isinstance(item, h5py.Dataset):
        names.append(name)
