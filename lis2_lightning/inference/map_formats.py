"""The file formats of maps, which are written band by band."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

from lis2_lightning.base.files import atomic_path
from lis2_lightning.data import Raster
from lis2_lightning.errors import ConfigError
from lis2_lightning.inference.write_chunks import write_hdf5, write_zarr
from lis2_lightning.inference.write_plain import write_fits, write_npy
from lis2_lightning.inference.write_tiff import (
    georeference,
    may_be_georeferenced,
    write_geotiff,
    write_tiff,
)
from lis2_lightning.inference.written import NewMap, Shape, Write

_HEADER_BYTES: Final = 2**18  # more than any header
_MOST_BANDS: Final = 65_535  # of a TIFF file
_WRITERS: Final = {
    ".fits": write_fits,
    ".npy": write_npy,
    ".tif": write_tiff,
    ".tiff": write_tiff,
    ".zarr": write_zarr,
    ".h5": write_hdf5,
    ".hdf5": write_hdf5,
}
_NEEDS: Final = {
    ".tif": (("tifffile", "rasterio", "zarr"), "geo"),
    ".tiff": (("tifffile", "rasterio", "zarr"), "geo"),
    ".zarr": (("zarr",), "zarr"),
}
_CARRIES_GEOREFERENCE: Final = {".tif", ".tiff", ".zarr", ".h5", ".hdf5"}


def check_format(path: Path, *, channels: int, like: Raster | None) -> None:
    """Refuse a format that cannot be written.

    Raises:
        ConfigError: The name ends in no known suffix, a package is missing, the format cannot hold
            so many channels, or a folder is no Zarr map that could be replaced.
    """
    suffix = path.suffix.lower()
    if suffix not in _WRITERS:
        raise ConfigError(
            f"{path} has no known format of a map: its name must end in {' or '.join(_WRITERS)}"
        )
    for package, extra in _needed_packages(suffix, like):
        if find_spec(package) is None:
            raise ConfigError(
                f'writing {path} needs {package}: pip install "lis2-lightning[{extra}]"'
            )
    if suffix in {".tif", ".tiff"} and channels > _MOST_BANDS:
        raise ConfigError(
            f"{path} would have {channels} bands, a TIFF file has at most {_MOST_BANDS}: choose "
            "another format, such as .zarr"
        )
    if suffix == ".zarr" and path.exists():
        _check_replaceable(path)


def _needed_packages(suffix: str, like: Raster | None) -> Iterator[tuple[str, str]]:
    """The packages that write a format, each with its extra."""
    packages, extra = _NEEDS.get(suffix, ((), ""))
    yield from ((package, extra) for package in packages)
    if suffix in _CARRIES_GEOREFERENCE and may_be_georeferenced(like):
        yield "rasterio", "geo"


def _check_replaceable(path: Path) -> None:
    if not path.is_dir():
        raise ConfigError(f"{path} is a file, a Zarr map is a folder: choose another output")
    if not any((path / name).exists() for name in ("zarr.json", ".zarray", ".zgroup")):
        raise ConfigError(f"{path} is a folder that holds no Zarr map: choose another output")


def num_bytes(path: Path, *, shape: Shape, dtype: np.dtype[Any]) -> int:
    """The most bytes that a map can take.

    >>> num_bytes(Path("map.npy"), shape=(1000, 1000), dtype=np.dtype("f4"))
    4262144
    """
    sides = list(shape)
    if path.suffix.lower() not in {".fits", ".npy"}:  # stored in whole chunks
        sides[-2:] = (-(-shape[-2] // 256) * 256, -(-shape[-1] // 1024) * 1024)
    stored = math.prod(sides) * dtype.itemsize
    # what cannot be compressed grows a little, and each chunk has its place in an index
    return stored + _HEADER_BYTES + (0 if sides == list(shape) else stored // 100)


@contextmanager
def new_map(path: Path, new: NewMap) -> Iterator[Write]:
    """Write a map into a file or folder, which it replaces when it is whole.

    Yields:
        Writes rows, ``(..., rows, W)``, from a row on, from top to bottom; `BAND` at once are
        the quickest.
    """
    writer = _WRITERS[path.suffix.lower()]
    if writer is write_tiff and georeference(new.like):
        writer = write_geotiff
    with atomic_path(path) as temporary, writer(temporary, new) as write:
        yield write
