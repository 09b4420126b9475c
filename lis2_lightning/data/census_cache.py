"""Censuses of large images, kept in files, so that a run that starts again does not scan again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

import numpy as np

from lis2_lightning.base.files import atomic
from lis2_lightning.data.census import Census, count
from lis2_lightning.data.identity import identity
from lis2_lightning.data.open_raster import Raster
from lis2_lightning.data.rasters.address import file_of
from lis2_lightning.data.rasters.contract import readable
from lis2_lightning.data.truth import Truth
from lis2_lightning.errors import DataError
from lis2_lightning.tiling import Areas, Lattice

LEAST_PIXELS = 10_000_000  # smaller images are scanned in less than a second
MOST_RECENT = 16  # censuses in memory, of a few megabytes each
VERSION = 2  # of the files, and of what is counted how
_OURS = "lis2_lightning.data.rasters."
_folder: ContextVar[Path | None] = ContextVar("folder of censuses", default=None)
_recent: dict[str, Census] = {}  # training, validation and test sets are built one after the other


@contextmanager
def censuses_in(folder: Path) -> Iterator[None]:
    """Keep the censuses of large images in this folder, which is made when there is one."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def census_of(truth: Truth, areas: Areas, lattice: Lattice) -> Census:
    """Count the labelled pixels of an image, or take what was counted before.

    Kept is what was counted in files of the same paths, sizes and times, for the same tiles and
    areas. A file of a census that is damaged or of another kind is replaced.
    """
    height, width = areas.image_shape
    digest = _digest(truth, areas, lattice) if height * width >= LEAST_PIXELS else None
    if digest is None:
        return count(truth, areas, lattice)
    if digest not in _recent:
        if len(_recent) >= MOST_RECENT:
            del _recent[next(iter(_recent))]
        _recent[digest] = _from_file(digest, truth, areas, lattice)
    return _recent[digest]


def _from_file(digest: str, truth: Truth, areas: Areas, lattice: Lattice) -> Census:
    folder = _folder.get()
    if folder is None:
        return count(truth, areas, lattice)
    path = folder / f"{digest}.npz"
    expected = Census.empty(areas, lattice)
    with suppress(DataError), readable(path), path.open("rb") as opened, np.load(opened) as file:
        census = Census(file["bits"], file["areas"], int(file["without_data"]))
        if str(file["digest"]) == digest and census.is_like(expected):
            return census
    census = count(truth, areas, lattice)
    with suppress(OSError, ValueError), atomic(path) as file:  # else it only takes longer next time
        np.savez_compressed(
            file,
            digest=digest,
            bits=census.bits,
            areas=census.areas,
            without_data=census.without_data,
        )
    return census


def _digest(truth: Truth, areas: Areas, lattice: Lattice) -> str | None:
    """What a census depends on; None where a map is not a file."""
    states = [None if raster is None else _state(raster) for raster in truth.rasters]
    if any(state == () for state in states):
        return None
    hashed = hashlib.blake2b(repr((VERSION, states, truth.legend)).encode(), digest_size=16)
    for numbers in (areas.row_edges, areas.column_edges, lattice.tops, lattice.lefts):
        hashed.update(numbers.tobytes())
    hashed.update(str(lattice.size).encode())
    return hashed.hexdigest()


def _state(raster: Raster) -> tuple[object, ...]:
    """Which file a raster reads, and its size and time; nothing where it reads no file of ours."""
    is_ours = type(raster).__module__.startswith(_OURS)
    return tuple(identity(raster)) if is_ours and file_of(raster.source) is not None else ()
