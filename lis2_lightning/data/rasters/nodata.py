"""Where an image has no value: another image or its attributes say so."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data.rasters.arrays import ArrayRaster
from lis2_lightning.data.rasters.contract import LazyArray, Raster, to_float32
from lis2_lightning.tiling.grid import Tile


@dataclass(frozen=True, slots=True)
class Packing:
    """How stored numbers become values: ``scale * stored + offset``, NaN where they are a gap."""

    gaps: tuple[float, ...] = ()
    scale: float = 1.0
    offset: float = 0.0

    @property
    def is_scaled(self) -> bool:
        """Whether a stored number is not the value itself."""
        return (self.scale, self.offset) != (1.0, 0.0)

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> Self:
        """The packing that the attributes of an array describe by the CF conventions.

        >>> Packing.of({"_FillValue": 255, "scale_factor": 0.5})
        Packing(gaps=(255.0,), scale=0.5, offset=0.0)
        """
        gaps = (*_numbers(attributes, "_FillValue"), *_numbers(attributes, "missing_value"))
        scale, offset = _numbers(attributes, "scale_factor"), _numbers(attributes, "add_offset")
        return cls(gaps, scale[0] if scale else 1.0, offset[0] if offset else 0.0)

    def unpack(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Copy stored numbers as float32 values."""
        exact = stored
        if self.is_scaled:
            exact = stored * np.float64(self.scale) + self.offset
        values = to_float32(exact)
        # a gap may be written with fewer digits than the pixels have: compare in their type
        kind = stored.dtype.type if stored.dtype.kind == "f" else float
        for gap in self.gaps:
            with np.errstate(over="ignore"):
                values[stored == kind(gap)] = np.nan
        return values


def _numbers(attributes: Mapping[str, Any], name: str) -> tuple[float, ...]:
    """The numbers of an attribute; none if it is missing or a text."""
    value = attributes.get(name)
    if isinstance(value, str):
        return _packed_number(value)
    values = np.ravel([] if value is None else value)
    return tuple(map(float, values)) if values.dtype.kind in "biuf" else ()


def _packed_number(text: str) -> tuple[float, ...]:
    """A float as xarray writes it to Zarr: eight bytes in base 64."""
    try:
        return struct.unpack("<d", base64.b64decode(text, validate=True))
    except (ValueError, struct.error):
        return ()


class MaskedRaster(LazyArray):
    """An image that is NaN where a mask, of one channel or as many as the image, is 0."""

    def __init__(self, image: Raster, mask: Raster) -> None:
        self.image, self.mask = image, mask
        self.source, self.shape = image.source, image.shape

    def read(self, tile: Tile) -> NDArray[np.float32]:
        """Read one rectangle, ``(C, height, width)``."""
        return _hidden(self.image.read(tile), self.mask.read(tile))

    def read_many(
        self, tops: NDArray[np.int64], lefts: NDArray[np.int64], size: int
    ) -> NDArray[np.float32]:
        """Read N squares, ``(N, C, size, size)``."""
        values = self.image.read_many(tops, lefts, size)
        return _hidden(values, self.mask.read_many(tops, lefts, size))


def _hidden(values: NDArray[np.float32], mask: NDArray[np.float32]) -> NDArray[np.float32]:
    values[np.broadcast_to(mask == 0, values.shape)] = np.nan
    return values


def open_masked_array(array: np.ma.MaskedArray[tuple[int, ...], np.dtype[np.generic]]) -> Raster:
    """An array with the mask that NumPy keeps beside it, true where there is no value."""
    pixels = ArrayRaster(np.ma.getdata(array))
    if array.mask is np.ma.nomask:
        return pixels
    return MaskedRaster(pixels, ArrayRaster(~np.ma.getmaskarray(array)))
