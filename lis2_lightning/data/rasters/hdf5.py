"""HDF5 images, read one slice per window.

Windows of 32 x 32 px of a gzipped file: 8,621 a second by slices, 837 by sorted lists of indices.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data.rasters.address import Address
from lis2_lightning.data.rasters.contract import SlicedRaster, existing_file
from lis2_lightning.errors import DataError, did_you_mean

CHUNK_CACHE_BYTES = 64 * 2**20  # of decompressed chunks; HDF5's own default is 1 MB
CHUNK_SLOTS = 100_003  # a prime far above the number of chunks: two in one slot evict each other


class Hdf5Raster(SlicedRaster):
    """A data set of an HDF5 file, ``(H, W)`` or ``(C, H, W)``."""

    def __init__(self, address: Address, name: str, *, dataset: Any) -> None:
        path, source = address.path, replace(address, which=name).source
        check_self_contained(dataset, source)
        super().__init__(dataset.shape, dataset.dtype, source=source, plane=address.plane)
        self._path, self._name = path.absolute(), name

    def open(self) -> Any:
        """Open the data set in this process; it keeps its file open."""
        return open_h5(self._path)[self._name]

    def release(self, handle: Any) -> None:
        """Close the data set's file."""
        handle.file.close()

    def fill(self, values: NDArray[np.float32], top: int, left: int) -> None:
        """Fill ``(C, h, w)`` with the pixels from a corner on."""
        rows, columns = slice(top, top + values.shape[1]), slice(left, left + values.shape[2])
        values[...] = self.handle[(*self.leading, ..., rows, columns)]


def open_h5(path: Path, *, cache_bytes: int = CHUNK_CACHE_BYTES) -> Any:
    """Open an HDF5 file for reading, with a chunk cache per data set."""
    try:
        return h5py.File(existing_file(path), "r", rdcc_nbytes=cache_bytes, rdcc_nslots=CHUNK_SLOTS)
    except OSError as error:
        reason = "is truncated" if "truncated" in str(error) else "is damaged or not an HDF5 file"
        raise DataError(f"{path} {reason}: copy it again, or check its path") from error


def check_self_contained(dataset: Any, source: str) -> None:
    """Refuse a data set without values, or whose values are in other files.

    Otherwise a file from a stranger could have any file of this machine read.
    """
    if dataset.shape is None:
        raise DataError(f"{source} is an empty data set: an image needs at least one pixel")
    virtual = dataset.virtual_sources() if dataset.is_virtual else []
    others = {name for name, *_ in dataset.external or []}
    others |= {part.file_name for part in virtual} - {"."}
    if others:
        raise DataError(
            f"{source} is stored in other files ({', '.join(sorted(others))}), which are not read: "
            f"copy the values into the file itself, as with h5repack"
        )


def open_hdf5(address: Address) -> Hdf5Raster:
    """Open a data set of an HDF5 file by its name, or None if the file holds only one."""
    path, which = address.path, address.which
    with open_h5(path) as file:
        entries: list[str] = []
        file.visit(entries.append)
        names = [entry for entry in entries if isinstance(file[entry], h5py.Dataset)]
        if which is None:
            if len(names) != 1:
                raise DataError(
                    f"{path} holds {len(names)} data sets ({', '.join(names)}): name one, as in "
                    f"{path}:/{names[0] if names else 'image'}"
                )
            which = names[0]
        which = which.strip("/")
        if which not in names:
            _refuse_external_links(file, which, path)
            raise DataError(f"{path} has no data set {which!r}: {did_you_mean(which, names)}")
        return Hdf5Raster(address, which, dataset=file[which])


def _refuse_external_links(file: Any, name: str, path: Path) -> None:
    """Say that a part of a name leads to another file; nothing is opened for it."""
    group = file
    for part in name.split("/"):
        link = group.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise DataError(
                f"{path}:/{name} is a link to another file ({link.filename}), which is not "
                f"followed: name that file itself"
            )
        group = group[part] if isinstance(link, h5py.HardLink) else None
        if not isinstance(group, h5py.Group):
            return
