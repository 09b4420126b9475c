"""TIFF images: memory-mapped if the pixels are contiguous, else read tile by tile."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data.rasters.address import Address
from lis2_lightning.data.rasters.arrays import MappedRaster
from lis2_lightning.data.rasters.blocks import BlockRaster
from lis2_lightning.data.rasters.contract import (
    Raster,
    existing_file,
    optional_module,
)
from lis2_lightning.data.rasters.nodata import MaskedRaster
from lis2_lightning.data.rasters.packing import Packing
from lis2_lightning.errors import DataError, one_line

# what is wrong with a file is said once, by us; without a handler Python prints each line
ITEM = re.compile(r'<Item name="(\w+)" sample="\d+" role="(scale|offset)">([^<]*)<')
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class TiffRaster(BlockRaster):
    """A tiled or compressed TIFF image; in tifffile's axes, `S` last means channels last."""

    def __init__(
        self, address: Address, page: int, *, array: Any, axes: str, packing: Packing
    ) -> None:
        self._packing = packing
        self._last = axes.endswith("S")
        order = (-1, *range(array.ndim - 1)) if self._last else tuple(range(array.ndim))
        shape, chunks = (
            [int(sides[axis]) for axis in order] for sides in (array.shape, array.chunks)
        )
        super().__init__(
            shape,
            np.dtype(array.dtype),
            block=(1, *chunks),
            source=address.source,
            plane=address.plane,
        )
        self._path, self._page = address.path.absolute(), page

    def open(self) -> tuple[Any, Any]:
        """Open the file and its pixels in this process."""
        file = _open(self._path)
        return file, optional_module("zarr", self._path, "zarr").open(
            file.series[self._page].aszarr(level=0), mode="r"
        )

    def release(self, handle: tuple[Any, Any]) -> None:
        """Close the file."""
        handle[0].close()

    def read_block(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Decompress whole tiles."""
        _, pixels = self.handle
        if self._last:
            stored = np.moveaxis(np.asarray(pixels[..., rows, columns, :]), -1, 0)
            stored = stored[self.leading]
        else:
            stored = np.asarray(pixels[(*self.leading, ..., rows, columns)])
        return self._packing.unpack(stored)


def open_tiff(address: Address) -> Raster:
    """Open a series of equal pages of a TIFF file by its number, or the first, with its mask."""
    path, which = address.path, address.which
    page = int(which) if which is not None and which.isdecimal() else 0
    with _open(existing_file(path)) as file:
        if (which is not None and not which.isdecimal()) or page >= len(file.series):
            raise DataError(
                f"{path} has no image {which!r}: choose one of 0 to {len(file.series) - 1}"
            )
        image, mask = _series(file, address, page), _mask_of(file.series, page)
        if mask is None:
            return image
        plane = address.plane if file.series[mask].ndim > 2 else ()
        return MaskedRaster(image, _series(file, replace(address, plane=plane), mask))


def _series(file: Any, address: Address, page: int) -> MappedRaster | TiffRaster:
    series = file.series[page]
    packing = _packing(series.keyframe, address.path)
    if series.dataoffset is not None:
        return MappedRaster(
            address.path,
            source=address.source,
            offset=series.dataoffset,
            dtype=series.dtype.newbyteorder(file.byteorder),
            shape=series.shape,
            channels="last" if series.axes.endswith("S") else "first",
            plane=address.plane,
            packing=packing,
        )
    zarr = optional_module("zarr", address.path, "zarr")  # tifffile reads single tiles through it
    array = zarr.open(series.aszarr(level=0), mode="r")
    return TiffRaster(address, page, array=array, axes=series.axes, packing=packing)


def _mask_of(all_series: Sequence[Any], page: int) -> int | None:
    """The number of the transparency mask (NewSubfileType 4) that follows an image in its file."""
    image = all_series[page].keyframe
    sides = image.imagelength, image.imagewidth
    for number in range(page + 1, len(all_series) * (not image.is_mask)):
        mask = all_series[number].keyframe
        if mask.is_mask and (mask.imagelength, mask.imagewidth) == sides:
            return number
    return None


def _packing(page: Any, path: Path) -> Packing:
    """The nodata value, scale and offset of a GeoTIFF (GDAL_NODATA and GDAL_METADATA)."""
    gaps = _float(page.tags.valueof(42113))
    items: list[tuple[str, str, str]] = ITEM.findall(str(page.tags.valueof(42112) or ""))
    scales, offsets = (
        {number for _, role, value in items if role == kind and (number := _float(value))}
        for kind in ("scale", "offset")
    )
    if len(scales) > 1 or len(offsets) > 1:
        raise DataError(
            f"the bands of {path} have scales of their own, an image needs a common one: write "
            f"it as float32, as with gdal_translate -unscale -ot Float32"
        )
    return Packing(
        () if gaps is None else (gaps,),
        max(scales, default=1.0),
        max(offsets, default=0.0),
    )


def _float(text: object) -> float | None:
    """A number in a tag, or null; GDAL ignores a text that is none, too."""
    try:
        return None if text is None else float(str(text).strip(" \0"))
    except ValueError:
        return None


def _open(path: Path) -> Any:
    tifffile = optional_module("tifffile", path, "geo")
    try:
        return tifffile.TiffFile(path)
    except (tifffile.TiffFileError, ValueError) as error:
        raise DataError(f"{path} is damaged or not a TIFF file: {one_line(error)}") from error
