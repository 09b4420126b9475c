"""Maps in compressed chunks: Zarr and HDF5, with attributes of the CF conventions."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.inference.write_tiff import georeference
from lis2_lightning.inference.written import BAND, NewMap, Write

_CHUNK: Final = (1, BAND, 1024)
_OF_VALUES: Final = {
    "_FillValue", "missing_value", "scale_factor", "add_offset", "valid_min", "valid_max",
    "valid_range", "units", "long_name", "standard_name", "_ARRAY_DIMENSIONS",
}  # fmt: skip


@contextmanager
def write_hdf5(path: Path, new: NewMap) -> Iterator[Write]:
    """Write an HDF5 file with the data set ``map``."""
    import h5py  # noqa: PLC0415 - slow to import, and seldom needed

    with h5py.File(path, "w") as file:
        # lzf takes half the time, but few programs besides h5py read it
        pixels = file.create_dataset(
            "map", new.shape, new.dtype, chunks=_chunk(new), shuffle=True, compression="gzip",
            compression_opts=1,
        )  # fmt: skip
        for name, value in _attributes(new).items():
            _set_attribute(pixels, name, value)
        if new.gap is not None:  # CF: of the very type of the numbers
            pixels.attrs["_FillValue"] = new.dtype.type(new.gap)
        yield _writer(pixels)


@contextmanager
def write_zarr(path: Path, new: NewMap) -> Iterator[Write]:
    """Write a folder that is a Zarr array of format 3."""
    import zarr

    pixels = zarr.create_array(
        str(path), shape=new.shape, dtype=new.dtype, chunks=_chunk(new), zarr_format=3,
        fill_value=math.nan if new.dtype.kind == "f" else new.gap or 0,
        dimension_names=("class", "y", "x")[-len(new.shape):], attributes=_attributes(new),
    )  # fmt: skip
    yield _writer(pixels)


def _set_attribute(pixels: Any, name: str, value: Any) -> None:
    """Set an attribute, as JSON text where HDF5 cannot hold it: Zarr's may be nested or large."""
    if not name:  # HDF5 has no such attribute
        return
    try:
        pixels.attrs[name] = value
    except (TypeError, ValueError, OSError):
        pixels.attrs[name] = json.dumps(value)


def _writer(pixels: Any) -> Write:
    def write(top: int, band: NDArray[Any]) -> None:
        pixels[..., top : top + band.shape[-2], :] = np.asarray(band).reshape(
            *pixels.shape[:-2], *band.shape[-2:]
        )

    return write


def _chunk(new: NewMap) -> tuple[int, ...]:
    pairs = zip(_CHUNK[-len(new.shape) :], new.shape, strict=True)
    return tuple(min(most, side) for most, side in pairs)


def _attributes(new: NewMap) -> dict[str, Any]:
    """What the numbers mean, by the CF conventions, facts, and the position of the source."""
    attributes = _position(new) | new.values
    if new.gap is not None:
        attributes["_FillValue"] = new.gap
    if new.packing.is_scaled:
        attributes["scale_factor"] = new.packing.scale
        attributes["add_offset"] = new.packing.offset
    return attributes


def _position(new: NewMap) -> dict[str, Any]:
    """The source's own attributes, its FITS keywords as text, or its CRS and transform."""
    cards = getattr(new.like, "cards", None)
    if cards:
        from astropy.io import fits

        return {
            "fits_header": fits.Header([(k, *card) for k, card in cards.items()]).tostring("\n")
        }
    position = georeference(new.like)
    attributes: dict[str, Any] = {
        key: value
        for key, value in getattr(new.like, "attributes", {}).items()
        if key not in _OF_VALUES
    }
    if position.get("crs"):
        attributes["crs_wkt"] = position["crs"].to_wkt()
    if position.get("transform"):
        attributes["GeoTransform"] = " ".join(map(repr, position["transform"].to_gdal()))
    return attributes
