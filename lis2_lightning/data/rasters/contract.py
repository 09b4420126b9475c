"""What a raster is, and what the rasters of all formats share.

A raster knows its shape from the moment it is built; its file is opened at the first read in each
process, so that it can be pickled and used by forked or spawned workers without sharing a handle.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from lis2_lightning.errors import DataError
from lis2_lightning.tiling.grid import Tile

Handle = TypeVar("Handle")


@runtime_checkable
class Raster(Protocol):
    """A lazily read image of shape ``(C, H, W)``; an image of two dimensions has one channel.

    Values are the physical ones, as float32: scaled as the file says, NaN where the file says that
    there is no value. Nothing larger than what is asked for (or one stored block) is ever held.
    """

    @property
    def source(self) -> str:
        """The name to use in an error: a path, with the part inside the file where there is one."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width: ``(C, H, W)``."""
        ...

    def read(self, tile: Tile) -> NDArray[np.float32]:
        """Read one rectangle, ``(C, height, width)``, as an array that may be written to.

        Raises:
            DataError: The tile does not lie inside the image.
        """
        ...

    def read_many(
        self, tops: NDArray[np.int64], lefts: NDArray[np.int64], size: int
    ) -> NDArray[np.float32]:
        """Read N squares of ``size`` pixels whose corners are given, ``(N, C, size, size)``.

        The array may be written to.

        Raises:
            DataError: One of the squares does not lie inside the image.
        """
        ...


class OpenedLate(Generic[Handle]):
    """Holds a handle that is opened at the first use in each process and never pickled."""

    _handle: Handle | None = None
    _process = -1

    def open(self) -> Handle:
        """Open the file anew; each format says how."""
        raise NotImplementedError

    def release(self, handle: Handle) -> None:
        """Close a handle; a format whose handles close themselves need not say how."""

    @property
    def handle(self) -> Handle:
        """The handle of this process; one inherited through a fork is closed, not used."""
        if self._handle is None or self._process != os.getpid():
            self.close()  # the parent's goes first: HDF5 would hand out the same file again
            self._handle = self.open()
            self._process = os.getpid()
        return self._handle

    def close(self) -> None:
        """Close the file, if it is open; the next read opens it again."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self.release(handle)

    def __del__(self) -> None:
        if not sys.is_finalizing():  # at the end of Python the libraries are half gone already
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}


def channels_first(shape: Sequence[int], dtype: np.dtype[Any], source: str) -> tuple[int, int, int]:
    """Give the ``(C, H, W)`` of a stored array; leading axes of length one are no axes.

    Radio maps are often stored with degenerate axes: ``(1, 1, H, W)`` is an image of one channel.

    Raises:
        DataError: The array has too few or too many dimensions, no pixel, or no numbers.

    >>> channels_first((1, 1, 5, 7), np.dtype("f4"), "map.fits")
    (1, 5, 7)
    """
    if dtype.kind not in "biuf":
        raise DataError(
            f"{source} holds values of type {dtype}, where an image needs integers or floats: "
            f"convert it to float32"
        )
    sides = tuple(int(side) for side in shape)
    while len(sides) > 3 and sides[0] == 1:
        sides = sides[1:]
    if len(sides) == 2:
        sides = (1, *sides)
    if len(sides) != 3:
        raise DataError(
            f"{source} has the shape {tuple(shape)}, where an image is (height, width) or "
            f"(channels, height, width): pick one plane of it"
        )
    if 0 in sides:
        raise DataError(f"{source} has the shape {tuple(shape)}: an image needs at least one pixel")
    return sides[0], sides[1], sides[2]


def check_inside(
    shape: tuple[int, int, int], corners: tuple[int, int, int, int], source: str
) -> None:
    """Check that pixels ``top, left, bottom, right`` (half-open) lie inside the image.

    Raises:
        DataError: They do not. A negative index would silently read from the other side.
    """
    top, left, bottom, right = corners
    if top < 0 or left < 0 or bottom > shape[1] or right > shape[2]:
        raise DataError(
            f"{source} is an image of {shape[1]} x {shape[2]} px: rows {top} to {bottom} and "
            f"columns {left} to {right} do not lie inside it"
        )


def check_squares(
    shape: tuple[int, int, int],
    tops: NDArray[np.int64],
    lefts: NDArray[np.int64],
    size: int,
    source: str,
) -> None:
    """Check that all squares lie inside the image, as :func:`check_inside` does for one."""
    if len(tops):
        bounds = (int(tops.min()), int(lefts.min()), int(tops.max()), int(lefts.max()))
        check_inside(shape, (*bounds[:2], bounds[2] + size, bounds[3] + size), source)


def to_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """Copy as native float32 in C order; a number beyond 3.4e38 becomes infinite.

    Always a copy, also of float32: what is read is normalised in place.
    """
    with np.errstate(over="ignore"):
        return values.astype(np.float32, order="C")


def gather(
    array_chw: NDArray[Any], tops: NDArray[np.int64], lefts: NDArray[np.int64], size: int
) -> NDArray[Any]:
    """Copy N squares out of an array ``(C, H, W)`` in one indexing step: ``(N, C, size, size)``.

    Several times as fast as a Python loop over slices, for a memory map of any byte order too.

    >>> gather(np.arange(12).reshape(1, 3, 4), np.array([0, 1]), np.array([2, 0]), 2).tolist()
    [[[[2, 3], [6, 7]]], [[[4, 5], [8, 9]]]]
    """
    windows = sliding_window_view(array_chw, (size, size), axis=(1, 2))
    picked: NDArray[Any] = windows[:, tops, lefts]
    return np.moveaxis(picked, 0, 1)


def existing_file(path: Path) -> Path:
    """Give the path back if a file is there.

    Raises:
        DataError: There is none, or it is a folder.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder, where an image file is needed: name the file in it")
    if not path.is_file():
        raise DataError(f"{path} does not exist: check the path of the image")
    return path


def one_line(error: Exception) -> str:
    """Give an error of another library as a part of one sentence."""
    return " ".join(str(error).split())
