"""What the rasters of all formats share.

A raster knows its shape when it is built. Its file is opened at the first read in each process, so
that it can be pickled and used by forked or spawned workers without sharing a handle.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.base.display import Displayed
from lis2_lightning.data.rasters.address import NUMBERED
from lis2_lightning.errors import DataError, Lis2Error, one_line
from lis2_lightning.tiling.grid import Tile


@runtime_checkable
class Raster(Protocol):
    """A lazily read image of shape ``(C, H, W)``; an image of two dimensions has one channel.

    Values are physical, as float32: scaled as the file says, and NaN where the file says that there
    is no value (FITS ``BLANK``, the nodata value of a GeoTIFF). Such a pixel of a target is not
    labelled. At most the requested pixels (or a few stored blocks) are held in memory; PNG, JPEG
    and ``.npz`` images are held whole.
    """

    @property
    def source(self) -> str:
        """The name for error messages: a path, with the part inside the file if there is one."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width: ``(C, H, W)``."""
        ...

    def read(self, tile: Tile) -> NDArray[np.float32]:
        """Read one rectangle, ``(C, height, width)``, writable.

        Raises:
            DataError: The tile does not lie inside the image.
        """
        ...

    def read_many(
        self, tops: NDArray[np.int64], lefts: NDArray[np.int64], size: int
    ) -> NDArray[np.float32]:
        """Read N squares of ``size`` pixels at these corners, ``(N, C, size, size)``, writable.

        Raises:
            DataError: A square does not lie inside the image.
        """
        ...


class LazyArray(Displayed):
    """What a raster is to NumPy: an index reads what it selects, ``np.asarray`` reads all of it.

    An index has a number or a slice for each axis, as ``[0]``, ``[:, 5:9, ::2]`` or ``[..., 7]``;
    values are float32.
    """

    shape: tuple[int, int, int]

    def facts(self) -> dict[str, Any]:
        """Where it is, and its size; no pixel is read."""
        channels, height, width = self.shape
        size = f"{height:,} x {width:,} px"
        return {
            "source": cast("Raster", self).source,
            "size": size if channels == 1 else f"{channels} channels of {size}",
        }

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        axes: list[Any] = list(index) if isinstance(index, tuple) else [index]
        if (gap := next((at for at, axis in enumerate(axes) if axis is ...), None)) is not None:
            axes[gap : gap + 1] = [slice(None)] * (4 - len(axes))
        if len(axes) > 3:
            raise IndexError("a raster has three axes: channels, rows and columns")
        channels, *sides = axes + [slice(None)] * (3 - len(axes))
        _, height, width = self.shape
        rows, columns = np.arange(height)[sides[0]], np.arange(width)[sides[1]]
        (top, num_rows), (left, num_columns) = _extent(rows), _extent(columns)
        tile = Tile(top, left, num_rows, num_columns)
        values = cast("Raster", self).read(tile)[channels]
        return values[..., rows - top, :][..., columns - left]

    def __array__(
        self,
        dtype: np.dtype[Any] | None = None,
        copy: bool | None = None,  # noqa: FBT001 - NumPy's
    ) -> NDArray[Any]:
        if copy is False:
            raise ValueError("a raster is read from its file, which is always a copy")
        whole = cast("Raster", self).read(Tile(0, 0, *self.shape[1:]))
        return whole.astype(dtype or np.float32, copy=False)


def _extent(places: NDArray[np.int64]) -> tuple[int, int]:
    """The first of some rows or columns, and how many lie up to the last; 1 if there are none."""
    first = int(places.min()) if places.size else 0
    return first, int(places.max()) - first + 1 if places.size else 1


class OpenedLate(ABC):
    """Holds a handle that is opened at the first use in each process and never pickled."""

    _handle: Any = None
    _process = -1

    @abstractmethod
    def open(self) -> Any:
        """Open the file."""

    def release(self, handle: Any) -> None:  # noqa: B027 - not every handle needs it
        """Close a handle; the default leaves that to the handle itself."""

    @property
    def handle(self) -> Any:
        """The handle of this process; a handle inherited through a fork is closed, not used."""
        if self._handle is None or self._process != os.getpid():
            self.close()  # the parent's goes first: HDF5 would return the same file again
            self._handle = self.open()
            self._process = os.getpid()
        return self._handle

    def close(self) -> None:
        """Close the file if it is open; the next read opens it again."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self.release(handle)

    def __del__(self) -> None:
        if not sys.is_finalizing():  # by then the libraries are partly gone
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}


class SlicedRaster(OpenedLate, LazyArray):
    """A raster whose file is read slice by slice; each format fills an array from a corner on."""

    block = (1, 1)
    """Height and width of the pixels that are read together, px."""

    def __init__(
        self,
        shape: Sequence[int],
        dtype: np.dtype[Any],
        *,
        source: str,
        plane: tuple[int, ...] = (),
    ) -> None:
        self.source = source
        self.shape, self.leading = select_image(shape, dtype, source, plane)

    @abstractmethod
    def fill(self, values: NDArray[np.float32], top: int, left: int) -> None:
        """Fill ``(C, h, w)`` with the pixels from a corner on."""

    def read(self, tile: Tile) -> NDArray[np.float32]:
        """Read one rectangle, ``(C, height, width)``."""
        check_inside(self, tile.top, tile.left, tile.height, tile.width)
        values = np.empty((self.shape[0], tile.height, tile.width), dtype=np.float32)
        with np.errstate(over="ignore"), readable(self.source):
            self.fill(values, tile.top, tile.left)
        return values

    def read_many(
        self, tops: NDArray[np.int64], lefts: NDArray[np.int64], size: int
    ) -> NDArray[np.float32]:
        """Read N squares, ``(N, C, size, size)``, in the order in which they are stored."""
        check_inside(self, tops, lefts, size, size)
        values = np.empty((len(tops), self.shape[0], size, size), dtype=np.float32)
        height, width = self.block
        with np.errstate(over="ignore"), readable(self.source):
            for index in np.lexsort((lefts // width, tops // height)):  # each block is read once
                self.fill(values[index], int(tops[index]), int(lefts[index]))
        return values


def select_image(
    shape: Sequence[int], dtype: np.dtype[Any], source: str, plane: tuple[int, ...] = ()
) -> tuple[tuple[int, int, int], tuple[int | slice, ...]]:
    """The ``(C, H, W)`` of an image in a stored array, and the index of its leading axes.

    A plane gives the indices of the first axes. Of more than three axes that remain, those of
    length 1 are dropped: radio maps are often ``(1, 1, H, W)`` or ``(2, 1, H, W)``.

    >>> select_image((2, 1, 5, 7), np.dtype("f4"), "map.fits")
    ((2, 5, 7), (slice(None, None, None), 0))
    >>> select_image((40, 5, 7), np.dtype("f4"), "map.fits[0][3]", (3,))
    ((1, 5, 7), (3,))
    """
    if dtype.kind not in "biuf":
        advice = "take its real part or modulus" if dtype.kind == "c" else "convert it to float32"
        raise DataError(
            f"{source} holds values of type {dtype}, an image needs integers or floats: {advice}"
        )
    sides = tuple(int(side) for side in shape)
    shown = str(sides) if len(sides) <= 8 else f"{str(sides[:8])[:-1]}, ...)"
    if sides and min(sides) < 1:
        raise DataError(f"{source} has shape {shown}: an image needs at least one pixel")
    leading = sides[: max(len(sides) - 2, 0)]
    if len(plane) > len(leading) or any(i >= n for i, n in zip(plane, leading, strict=False)):
        raise DataError(
            f"{source} has no such plane: the shape is {shown}, and the axes before the "
            f"height and width are indexed from 0"
        )
    index: list[int | slice] = list(plane)
    rest = leading[len(plane) :]
    index += [0 if side == 1 and len(rest) > 1 else slice(None) for side in rest]
    channels = [side for side in rest if side > 1 or len(rest) == 1]
    if len(sides) < 2 or len(sides) > 32 or len(channels) > 1:
        example = f"{plane_stem(source)}[{', '.join('0' * len(leading))}]"
        raise DataError(
            f"{source} has shape {shown}, an image is (height, width) or (channels, height, width)"
            + (f": select one plane of it, as in {example}" if channels else "")
        )
    if sides[-1] <= 4 and channels and min(channels[0], sides[-2]) >= 16:
        raise DataError(
            f"{source} has shape {shown}, which looks like (height, width, channels): store the "
            f"channels first, as by numpy.moveaxis(image, -1, 0)"
        )
    return (channels[0] if channels else 1, sides[-2], sides[-1]), tuple(index)


def plane_stem(source: str) -> str:
    """The text that a plane is added to: in FITS and TIFF files the image comes first."""
    return f"{source}[0]" if Path(source).suffix.lower() in NUMBERED else source


@contextmanager
def readable(source: object) -> Iterator[None]:
    """Turn whatever a library raises for a file that it cannot read into a :class:`DataError`."""
    try:
        yield
    except Lis2Error:
        raise
    except Exception as error:  # damaged bytes can make a library raise anything
        reason = one_line(error) or type(error).__name__
        if "imagecodecs" in reason:
            raise DataError(
                f'reading {source} needs imagecodecs: pip install "lis2-lightning[geo]"'
            ) from error
        raise DataError(
            f"{source} cannot be read ({reason}): it is damaged or of a kind that is not supported"
        ) from error


def check_inside(
    raster: Raster,
    tops: int | NDArray[np.int64],
    lefts: int | NDArray[np.int64],
    height: int,
    width: int,
) -> None:
    """Check that rectangles lie inside an image: a negative index would read the other side."""
    if not np.size(tops):
        return
    top, left, bottom, right = np.min(tops), np.min(lefts), np.max(tops), np.max(lefts)
    bottom, right = bottom + height, right + width
    if top < 0 or left < 0 or bottom > raster.shape[1] or right > raster.shape[2]:
        raise DataError(
            f"{raster.source} is an image of {raster.shape[1]} x {raster.shape[2]} px: rows {top} "
            f"to {bottom} and columns {left} to {right} are not inside it"
        )


def to_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """Copy as native float32 in C order; numbers beyond 3.4e38 become infinite.

    Always a copy, even of float32, because the caller normalises it in place.
    """
    with np.errstate(over="ignore"):
        return values.astype(np.float32, order="C")


def existing_file(path: Path) -> Path:
    """Return the path if it is a file, else raise a :class:`DataError`."""
    if path.is_dir():
        raise DataError(f"{path} is a folder, an image file is needed: name the file inside it")
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is a pipe or a device, an image must be a regular file")
    if not path.is_file():
        raise DataError(f"{path} does not exist: check the path of the image")
    return path


def optional_module(name: str, path: Path, extra: str) -> Any:
    """Import the library that a format needs, or say how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise DataError(
            f'reading {path} needs {name}: pip install "lis2-lightning[{extra}]"'
        ) from error
