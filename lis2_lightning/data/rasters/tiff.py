"""TIFF images: memory-mapped if the pixels are contiguous, else read tile by tile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data.rasters.arrays import MappedRaster
from lis2_lightning.data.rasters.blocks import BlockRaster
from lis2_lightning.data.rasters.contract import existing_file, optional_module
from lis2_lightning.errors import DataError, one_line


class TiffRaster(BlockRaster):
    """A tiled or compressed TIFF image; in tifffile's axes, `S` last means channels last."""

    def __init__(self, path: Path, page: int, *, array: Any, axes: str, source: str) -> None:
        self._last = axes.endswith("S")
        order = (-1, *range(array.ndim - 1)) if self._last else tuple(range(array.ndim))
        shape, chunks = (
            [int(sides[axis]) for axis in order] for sides in (array.shape, array.chunks)
        )
        block = (chunks[-2], chunks[-1])
        super().__init__(shape, np.dtype(array.dtype), block=block, source=source)
        self._path, self._page = path.absolute(), page

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
        try:
            if self._last:
                return np.moveaxis(np.asarray(pixels[..., rows, columns, :]), -1, 0)
            return np.asarray(pixels[..., rows, columns])
        except (ValueError, OSError) as error:
            raise DataError(f"{self.source} cannot be decompressed: {one_line(error)}") from error


def open_tiff(path: Path, which: str | None) -> MappedRaster | TiffRaster:
    """Open a series of equal pages of a TIFF file by its number, or the first."""
    source = f"{path}[{which}]" if which else str(path)
    page = int(which) if which is not None and which.isdecimal() else 0
    with _open(existing_file(path)) as file:
        if (which is not None and not which.isdecimal()) or page >= len(file.series):
            raise DataError(
                f"{path} has no image {which!r}: choose one of 0 to {len(file.series) - 1}"
            )
        series = file.series[page]
        if series.dataoffset is not None:
            return MappedRaster(
                path,
                source=source,
                offset=series.dataoffset,
                dtype=series.dtype.newbyteorder(file.byteorder),
                shape=series.shape,
                channels="last" if series.axes.endswith("S") else "first",
            )
        zarr = optional_module("zarr", path, "zarr")  # tifffile reads single tiles through it
        array = zarr.open(series.aszarr(level=0), mode="r")
        return TiffRaster(path, page, array=array, axes=series.axes, source=source)


def _open(path: Path) -> Any:
    tifffile = optional_module("tifffile", path, "geo")
    try:
        return tifffile.TiffFile(path)
    except (tifffile.TiffFileError, ValueError) as error:
        raise DataError(f"{path} is damaged or not a TIFF file: {one_line(error)}") from error
