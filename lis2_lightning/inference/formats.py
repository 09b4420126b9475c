"""The file formats of maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.base.files import atomic
from lis2_lightning.data import Raster
from lis2_lightning.data.rasters.fits import write_fits
from lis2_lightning.errors import ConfigError

Shape = tuple[int, ...]
Write = Callable[[int, NDArray[Any]], None]


def check_format(path: Path, *, channels: int, like: Raster | None) -> None:  # noqa: ARG001
    """Refuse a format that cannot be written."""
    if path.suffix not in {".fits", ".npy"}:
        raise ConfigError(
            f"{path} has no known format of a map: its name must end in .fits or .npy"
        )


def num_bytes(path: Path, *, shape: Shape, dtype: np.dtype[Any]) -> int:  # noqa: ARG001
    """The room that a map needs."""
    return int(np.prod(shape, dtype=object)) * dtype.itemsize


@contextmanager
def new_map(
    path: Path,
    *,
    shape: Shape,
    dtype: np.dtype[Any],
    like: Raster | None,
    header: Mapping[str, Any],
) -> Iterator[Write]:
    """Write a map in bands."""
    if path.suffix == ".npy":
        values: NDArray[Any]
        temporary = path.with_name(f".{path.name}.tmp")
        values = np.lib.format.open_memmap(temporary, "w+", dtype, shape)
    else:
        values = np.empty(shape, dtype)

    def write(top: int, band: NDArray[Any]) -> None:
        values[..., top : top + band.shape[-2], :] = band

    yield write
    if path.suffix == ".npy":
        temporary.replace(path)
        return
    with atomic(path) as file:
        write_fits(file, values, {**(getattr(like, "cards", None) or {}), **header})
