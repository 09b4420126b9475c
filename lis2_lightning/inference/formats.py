"""The file formats of maps, which are written band by band."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.base.files import atomic
from lis2_lightning.data import Raster
from lis2_lightning.data.rasters.fits import BITPIX, quiet
from lis2_lightning.errors import ConfigError

Shape = tuple[int, ...]
Write = Callable[[int, NDArray[Any]], None]
_BLOCK: Final = 2880  # bytes: a FITS file has whole blocks


def check_format(path: Path, *, channels: int, like: Raster | None) -> None:  # noqa: ARG001
    """Refuse a format that cannot be written.

    Raises:
        ConfigError: The name ends in no known suffix.
    """
    if path.suffix not in _HEADS:
        raise ConfigError(
            f"{path} has no known format of a map: its name must end in {' or '.join(_HEADS)}"
        )


def num_bytes(path: Path, *, shape: Shape, dtype: np.dtype[Any]) -> int:  # noqa: ARG001
    """The room that a map needs, but for its header."""
    return math.prod(shape) * dtype.itemsize


@contextmanager
def new_map(
    path: Path,
    *,
    shape: Shape,
    dtype: np.dtype[Any],
    like: Raster | None,
    header: Mapping[str, Any],
) -> Iterator[Write]:
    """Write a map, which gets its name when it is whole.

    Args:
        path: The file, which is replaced.
        shape: ``(H, W)`` or ``(C, H, W)``.
        dtype: Type of the values: float32 or uint8.
        like: What the map was made from: celestial and beam keywords of FITS are copied.
        header: More keywords for FITS; other formats have no place for them.

    Yields:
        Writes rows, ``(..., rows, W)``, from a row on.
    """
    cards = {**(getattr(like, "cards", None) or {}), **header}
    head, stored = _HEADS[path.suffix](shape, dtype, cards)
    height, width = shape[-2:]
    with atomic(path) as file:
        file.write(head)

        def write(top: int, band: NDArray[Any]) -> None:
            for number, rows in enumerate(band.reshape(-1, *band.shape[-2:])):
                file.seek(len(head) + (number * height + top) * width * stored.itemsize)
                file.write(np.ascontiguousarray(rows, dtype=stored).data)

        yield write
        if path.suffix == ".fits":
            end = len(head) + math.prod(shape) * stored.itemsize
            file.truncate(math.ceil(end / _BLOCK) * _BLOCK)  # with zeros


def _npy_head(
    shape: Shape,
    dtype: np.dtype[Any],
    cards: Mapping[str, Any],  # noqa: ARG001
) -> tuple[bytes, np.dtype[Any]]:
    head = BytesIO()
    description = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, description)
    return head.getvalue(), dtype


def _fits_head(
    shape: Shape, dtype: np.dtype[Any], cards: Mapping[str, Any]
) -> tuple[bytes, np.dtype[Any]]:
    from astropy.io import fits

    stored = dtype.newbyteorder(">")
    bitpix = next(bits for bits, name in BITPIX.items() if np.dtype(name) == stored)
    header = fits.Header([("SIMPLE", True), ("BITPIX", bitpix), ("NAXIS", len(shape))])
    for axis, side in enumerate(reversed(shape), start=1):
        header[f"NAXIS{axis}"] = side
    with quiet():
        header.update(cards)
        return header.tostring().encode("ascii"), stored


_HEADS: Final = {".fits": _fits_head, ".npy": _npy_head}
