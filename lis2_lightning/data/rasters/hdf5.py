"""HDF5 images, read one slice per window.

Windows of 32 x 32 px of a gzipped file: 8,621 a second by slices, 837 by sorted lists of indices.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data.rasters.address import Address
from lis2_lightning.data.rasters.contract import SlicedRaster, existing_file
from lis2_lightning.data.rasters.packing import Packing
from lis2_lightning.errors import DataError, did_you_mean

CHUNK_CACHE_BYTES = 64 * 2**20  # of decompressed chunks; HDF5's own default is 1 MB
MOST_PARTS = 100  # of the path of a data set: links may lead in a circle
CHUNK_SLOTS = 100_003  # a prime far above the number of chunks: two in one slot evict each other


class Hdf5Raster(SlicedRaster):
    """A data set of an HDF5 file, ``(H, W)`` or ``(C, H, W)``."""

    def __init__(self, address: Address, name: str, *, dataset: Any) -> None:
        path, source = address.path, replace(address, which=name).source
        super().__init__(dataset.shape, dataset.dtype, source=source, plane=address.plane)
        self._path, self._name = path.absolute(), name
        self.attributes = plain_attributes(dataset.attrs)
        self._packing = Packing.of(self.attributes)

    def open(self) -> Any:
        """Open the data set in this process; it keeps its file open."""
        return own_dataset(open_h5(self._path), self._name)

    def release(self, handle: Any) -> None:
        """Close the data set's file."""
        handle.file.close()

    def fill(self, values: NDArray[np.float32], top: int, left: int) -> None:
        """Fill ``(C, h, w)`` with the pixels from a corner on."""
        rows, columns = slice(top, top + values.shape[1]), slice(left, left + values.shape[2])
        stored = self.handle[(*self.leading, ..., rows, columns)]
        values[...] = self._packing.unpack(stored)


def plain_attributes(attributes: Any) -> dict[str, Any]:
    """The attributes that are texts or numbers; others are references inside the file."""
    plain: dict[str, Any] = {}
    for name in attributes:
        value = attributes[name]
        if isinstance(value, str | int | float):
            plain[name] = value
        elif isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
            plain[name] = value.tolist()
    return plain


def open_h5(path: Path, *, cache_bytes: int = CHUNK_CACHE_BYTES) -> Any:
    """Open an HDF5 file for reading, with a chunk cache per data set."""
    import h5py  # noqa: PLC0415 - slow to import, and seldom needed

    try:
        return h5py.File(existing_file(path), "r", rdcc_nbytes=cache_bytes, rdcc_nslots=CHUNK_SLOTS)
    except OSError as error:
        reason = "is truncated" if "truncated" in str(error) else "is damaged or not an HDF5 file"
        raise DataError(f"{path} {reason}: copy it again, or check its path") from error


def own_dataset(file: Any, name: str, *, names: Iterable[str] = ()) -> Any:
    """A data set of an open file, whose values are all in the file itself.

    Otherwise a file from a stranger could have any file of this machine read.

    Raises:
        DataError: There is no such data set (among ``names``), it is empty, or a part of its path
            or its values are in another file.
    """
    import h5py  # noqa: PLC0415 - slow to import, and seldom needed

    source = f"{file.filename}:/{name}"
    node, parts = file, name.split("/")
    for _ in range(MOST_PARTS):
        if not parts or not isinstance(node, h5py.Group):
            break
        link = node.get(parts[0], getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise DataError(
                f"{source} is a link to another file ({link.filename}), which is not followed: "
                f"name that file itself"
            )
        if isinstance(link, h5py.SoftLink):
            node = file if link.path.startswith("/") else node
            parts = [*filter(None, link.path.split("/")), *parts[1:]]
        else:
            node, parts = None if link is None else node[parts[0]], parts[1:]
    if parts or not isinstance(node, h5py.Dataset):
        raise DataError(f"{file.filename} has no data set {name!r}: {did_you_mean(name, names)}")
    _check_values(node, source)
    return node


def _check_values(dataset: Any, source: str) -> None:
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
    for name in {part.dset_name.strip("/") for part in virtual}:
        own_dataset(dataset.file, name)


def open_hdf5(address: Address) -> Hdf5Raster:
    """Open a data set of an HDF5 file by its name, or None if the file holds only one."""
    import h5py  # noqa: PLC0415 - slow to import, and seldom needed

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
        return Hdf5Raster(address, which, dataset=own_dataset(file, which, names=names))
