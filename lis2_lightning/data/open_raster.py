"""Opening an image of any supported format as a raster.

====================  ========================================================================
source                what is read
====================  ========================================================================
``map.fits``          the first image; ``map.fits[2]`` or ``map.fits[NAME]`` selects another
``map.npy``           through a memory map
``map.npz:name``      the array ``name``, held in memory; ``map.npz`` if it holds only one
``map.h5:/a/b``       the data set ``/a/b``; ``map.h5`` if it holds only one
``map.tif``           the first page, or all pages if they have the same shape
``map.zarr``          an array, or the full resolution of an OME-Zarr image; ``map.zarr:/a/b`` or
                      ``map.zarr/a/b`` selects an array of a group
``map.png``           a PNG or JPEG image, held in memory
an array              as it is; NaN where a masked array of NumPy is masked
====================  ========================================================================

Each of them may end in a plane of a cube: ``cube.fits[SCI][3]``, ``stack.zarr:/0/0[2, 1]``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse.typing import register_type
from numpy.typing import NDArray

from lis2_lightning.data.rasters.address import Address, file_of, parse_address
from lis2_lightning.data.rasters.arrays import ArrayRaster, open_npy, open_npz
from lis2_lightning.data.rasters.contract import Raster, readable
from lis2_lightning.data.rasters.fits import open_fits
from lis2_lightning.data.rasters.hdf5 import open_hdf5
from lis2_lightning.data.rasters.nodata import MaskedRaster, open_masked_array
from lis2_lightning.data.rasters.pillow import open_picture
from lis2_lightning.data.rasters.tiff import open_tiff
from lis2_lightning.data.rasters.zarr import open_zarr
from lis2_lightning.errors import ConfigError, DataError

__all__ = ["ArrayRaster", "Raster", "Source", "open_raster"]


# arrays first: jsonargparse uses the first type that fits, and anything fits a string
Source = np.ndarray | Raster | str | os.PathLike[str]
"""An image: a path that :func:`open_raster` accepts, an array or a raster."""

OPENERS: dict[str, Callable[[Address], Raster]] = {
    **dict.fromkeys((".fits", ".fit", ".fts", ".fz"), open_fits),
    ".npy": open_npy,
    ".npz": open_npz,
    **dict.fromkeys((".h5", ".hdf5", ".hdf"), open_hdf5),
    **dict.fromkeys((".tif", ".tiff"), open_tiff),
    ".zarr": open_zarr,
    **dict.fromkeys((".png", ".jpg", ".jpeg"), open_picture),
}


def open_raster(source: Source) -> Raster:
    """Open an image lazily; the table above lists the sources.

    Args:
        source: A path, with the part inside the file if needed; an array ``(H, W)`` or
            ``(C, H, W)``; or a raster, which is returned.

    Returns:
        A raster that can be pickled and shared by worker processes.

    Raises:
        DataError: The file is missing, damaged, of an unknown format or not an image.
        ConfigError: Several images are named.

    >>> open_raster(np.zeros((4, 6))).shape
    (1, 4, 6)
    """
    if isinstance(source, np.ma.MaskedArray):
        return open_masked_array(source)
    if isinstance(source, np.ndarray):
        return ArrayRaster(source)
    if isinstance(source, (str, os.PathLike)):
        with readable(os.fspath(source)):
            address = parse_address(os.fspath(source))
            return _opener(address.path)(address)
    if isinstance(source, Raster):
        return source
    raise _no_image(source)


def _no_image(source: object) -> ConfigError | DataError:
    kind = type(source).__name__
    if isinstance(source, list | tuple) and not isinstance(
        next(iter(source), []), list | float | int
    ):
        return _several(f"a {kind} of {len(source)}")
    return DataError(f"an image must be a path, an array or a raster, not {kind}")


def _several(got: str) -> ConfigError:
    return ConfigError(
        f"image must be a single one here, got {got}: name one; a TileDataset takes a list of "
        "images with a list of targets"
    )


def _opener(path: Path) -> Callable[[Address], Raster]:
    suffix = path.suffix.lower()
    if path.name.lower().endswith(".zarr.zip"):
        raise DataError(f"{path} is a packed Zarr store: unpack it first (unzip)")
    if suffix in {".gz", ".bz2"}:
        raise DataError(f"{path} is compressed as a whole: unpack it first (gunzip or bunzip2)")
    if suffix not in OPENERS and str(path).startswith("["):  # as jsonargparse writes a list
        raise _several(f"the list {path}")
    if suffix not in OPENERS:
        raise DataError(
            f"{path} has no known image format: its name must end in {', '.join(OPENERS)}"
        )
    return OPENERS[suffix]


def same_image(first: Raster, second: Raster) -> bool:
    """Whether two rasters read the same file, or equal arrays in memory.

    >>> same_image(open_raster(np.eye(3)), open_raster(np.eye(3)))
    True
    """
    first, second = map(_unmasked, (first, second))
    if first is second:
        return True
    if first.shape != second.shape:
        return False
    if Path(first.source).resolve() != Path(second.source).resolve():
        return False
    if type(first) is type(second) is ArrayRaster:  # those of files are read through a map
        return np.array_equal(first.handle, second.handle, equal_nan=True)
    return True


def same_place(first: Raster, second: Raster) -> bool:
    """Whether two rasters are one image, or show the same places: planes of one cube do."""
    if same_image(first, second):
        return True
    if first.shape[1:] != second.shape[1:]:
        return False
    first, second = map(_unmasked, (first, second))
    cube = _cube(first)
    return cube is not None and cube == _cube(second)


def _unmasked(raster: Raster) -> Raster:
    return raster.image if isinstance(raster, MaskedRaster) else raster


def _cube(raster: Raster) -> str | None:
    """The file, through links, and the image inside it, without a plane; None if it is no file."""
    address = file_of(raster.source)
    if address is None:
        return None
    which = getattr(raster, "hdu", address.which)  # the number of an HDU, however it is named
    return Address(address.path.resolve(), which, plane=(0,)).image


def _refuse(value: object) -> NDArray[Any]:
    """Nothing in a configuration file is an array."""
    raise ValueError(f"{value!r} is not an array")


# otherwise jsonargparse would try to build arrays as components, and list all subclasses of
# np.ndarray in its help
register_type(
    np.ndarray,
    lambda array: f"an array of {' x '.join(map(str, array.shape))} in memory",
    _refuse,
    type_check=isinstance,  # accepts memory maps too
    fail_already_registered=False,
)
