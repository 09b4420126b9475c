"""Maps of plain numbers behind a header: FITS and NumPy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data.rasters.fits import BITPIX, quiet
from lis2_lightning.data.rasters.position_cards import of_two_axes
from lis2_lightning.inference.written import NewMap, Shape, Write

_BLOCK: Final = 2880  # bytes: a FITS file has whole blocks


@contextmanager
def write_npy(path: Path, new: NewMap) -> Iterator[Write]:
    """Write a NumPy file, which has no place for anything but numbers."""
    head = BytesIO()
    description = {"descr": new.dtype.str, "fortran_order": False, "shape": new.shape}
    np.lib.format.write_array_header_1_0(head, description)
    path.write_bytes(head.getvalue())
    with write_numbers(path, len(head.getvalue()), new.shape, new.dtype) as write:
        yield write


@contextmanager
def write_fits(path: Path, new: NewMap) -> Iterator[Write]:
    """Write a FITS image with the position of the source."""
    head = _fits_header(new)
    path.write_bytes(head)
    stored = new.dtype.newbyteorder(">")
    with write_numbers(path, len(head), new.shape, stored) as write:
        yield write
    end = len(head) + math.prod(new.shape) * stored.itemsize
    with path.open("r+b") as file:
        file.truncate(math.ceil(end / _BLOCK) * _BLOCK)  # with zeros


@contextmanager
def write_numbers(path: Path, start: int, shape: Shape, dtype: np.dtype[Any]) -> Iterator[Write]:
    """Write rows at their places in an existing file, where channels follow each other."""
    height, width = shape[-2:]
    with path.open("r+b") as file:

        def write(top: int, band: NDArray[Any]) -> None:
            for number, rows in enumerate(band.reshape(-1, *band.shape[-2:])):
                file.seek(start + (number * height + top) * width * dtype.itemsize)
                file.write(np.ascontiguousarray(rows, dtype=dtype).data)

        yield write


def _fits_header(new: NewMap) -> bytes:
    from astropy.io import fits

    bitpix = next(
        bits for bits, name in BITPIX.items() if np.dtype(name) == new.dtype.newbyteorder(">")
    )
    header = fits.Header([("SIMPLE", True), ("BITPIX", bitpix), ("NAXIS", len(new.shape))])
    for axis, side in enumerate(reversed(new.shape), start=1):
        header[f"NAXIS{axis}"] = side
    if new.gap is not None:
        header["BLANK"] = (new.gap, "no data")
    if new.packing.is_scaled:
        header["BSCALE"], header["BZERO"] = new.packing.scale, new.packing.offset
    cards = getattr(new.like, "cards", None) or {}
    with quiet():
        header.update(cards if len(new.shape) == 2 else of_two_axes(cards))
        header.update(new.facts)
        return str(header.tostring()).encode("ascii")
