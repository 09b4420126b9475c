"""The files of a map: refused before there is a map, written from its finished rows."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.base.files import size_text, sweep
from lis2_lightning.data import Raster
from lis2_lightning.data.open_raster import Source
from lis2_lightning.data.rasters.address import file_of
from lis2_lightning.data.rasters.packing import Packing
from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.inference.map_formats import check_format, new_map, num_bytes
from lis2_lightning.inference.scratch import Rows, RowsOnDisk, Shape
from lis2_lightning.inference.written import BAND, NewMap
from lis2_lightning.parallel import is_main

_NO_DATA: Final = 255  # in a file of bytes
_SCALE: Final = 254  # the byte of probability 1


@dataclass(frozen=True, kw_only=True)
class MapRequest:
    """What is asked of a prediction.

    Raises:
        ConfigError: A value is out of range, or two of them contradict each other.
    """

    image: Source | None = None
    """Another image than that of the run."""
    output: Path | None = None
    """The file of the probabilities."""
    mask: Path | None = None
    """The file of the mask: 1 where the probability is at least the threshold, else 0."""
    spread: Path | None = None
    """The file of the standard deviation over the networks of an ensemble."""
    threshold: float | Literal["auto"] = "auto"
    """Where the mask is cut, in [0, 1]; or the best one on the run's validation pixels."""
    stride: int | None = None
    """Step from one tile to the next, px; that of the run by default."""
    dtype: Literal["float32", "uint8"] = "float32"
    """What ``output`` holds: probabilities, or bytes."""
    overwrite: bool = False
    """Whether files that exist are replaced."""

    def __post_init__(self) -> None:
        if self.dtype not in {"float32", "uint8"}:
            raise ConfigError(f"dtype must be float32 or uint8, not {self.dtype!r}")
        is_number = isinstance(self.threshold, int | float) and not isinstance(self.threshold, bool)
        if self.threshold != "auto" and not (is_number and 0 <= float(self.threshold) <= 1):
            raise ConfigError(f"threshold must be auto or in [0, 1], not {self.threshold!r}")
        if self.threshold != "auto" and self.mask is None:
            raise ConfigError("threshold is where a mask is cut: name its file with mask")
        if self.dtype != "float32" and self.output is None:
            raise ConfigError(f"dtype {self.dtype} is that of a file: name it with output")
        if self.dtype != "float32" and str(self.output).lower().endswith(".npy"):
            raise ConfigError(
                f"dtype {self.dtype} needs a file with a place for its scale, which {self.output} "
                "is not: choose .fits, .tif, .zarr or .h5, or dtype float32"
            )
        self._check_paths()
        if self.stride is not None and self.stride < 1:
            raise ConfigError(f"stride must be at least 1 px, not {self.stride}")

    def _check_paths(self) -> None:
        files = {"output": self.output, "mask": self.mask, "spread": self.spread}
        for (name, path), (other, second) in combinations(files.items(), 2):
            if path is not None and path == second:
                raise ConfigError(f"{name} and {other} are both {path}: name two files")
        if self.spread is not None and self.output is None:
            raise ConfigError("spread goes with the map itself: name its file with output")

    @classmethod
    def of(
        cls,
        *,
        output: str | os.PathLike[str] | None,
        mask: str | os.PathLike[str] | None,
        spread: str | os.PathLike[str] | None = None,
        **others: Any,
    ) -> Self:
        """The request of a caller, whose paths may be text and begin with a tilde."""
        paths = [
            None if path is None else Path(path).expanduser() for path in (output, mask, spread)
        ]
        return cls(output=paths[0], mask=paths[1], spread=paths[2], **others)

    @property
    def paths(self) -> list[Path]:
        """The files that are written."""
        return [path for path in (self.output, self.mask, self.spread) if path is not None]

    def check_new(self) -> None:
        """Refuse files that exist, unless they are to be replaced.

        Raises:
            ConfigError: One exists.
        """
        existing = [path for path in self.paths if path.exists()]
        if existing and not self.overwrite:
            raise ConfigError(
                f"{existing[0]} exists already: choose another output, or replace it with "
                "--overwrite (overwrite=True in Python)"
            )


class MapFiles:
    """Writes the files of a map.

    Args:
        request: Which they are.
        shape: That of the rows, ``(C, H, W)``; those of a spread follow those of the map.
        like: The image, or null.

    Raises:
        ConfigError: A format is unknown, a folder is not there or cannot be written, a file is the
            image itself or exists, or there is too little space.
    """

    def __init__(self, request: MapRequest, shape: Shape, like: Raster | None) -> None:
        self.request = request
        self.shape = shape
        self.like = like
        self.rows = None if request.output is None else RowsOnDisk(request.output, shape)
        self.num_channels = shape[0] if request.spread is None else shape[0] // 2
        for path in request.paths:
            check_path(path, like, channels=self.num_channels)
        if is_main():
            self._tidy()
        # a prediction that was stopped at its very end may have written some of its files
        if self.rows is None or not self.rows.is_begun():
            request.check_new()
        self._check_space()

    def _tidy(self) -> None:
        """Remove what killed predictions left half written of these very files."""
        for path in self.request.paths:
            sweep(path.parent, path.name)
        if self.rows is not None:
            self.rows.tidy()

    def write(self, rows: Rows, threshold: float | None, snapshot: str | None = None) -> int:
        """Write all files, and return the number of pixels without data.

        Args:
            rows: All of the map.
            threshold: Where the mask is cut; null if there is none.
            snapshot: The file name of the network's weights, for the headers.

        Raises:
            DataError: A file cannot be written.
        """
        num_gaps = 0
        try:
            with ExitStack() as stack:
                outputs = [
                    (stack.enter_context(new_map(path, new)), convert)
                    for path, new, convert in self._plan(threshold, snapshot)
                ]
                for top in range(0, self.shape[1], BAND):
                    band = rows.read(top, min(top + BAND, self.shape[1]))
                    num_gaps += int(np.isnan(band[0]).sum())
                    for write, convert in outputs:
                        converted = convert(band)
                        write(top, converted[0] if len(converted) == 1 else converted)
        except OSError as error:
            names = " and ".join(map(str, self.request.paths))
            raise DataError(f"{names} cannot be written: {error.strerror or error}") from error
        return num_gaps

    def _plan(
        self, threshold: float | None, snapshot: str | None
    ) -> Iterator[tuple[Path, NewMap, Callable[[NDArray[np.float32]], NDArray[Any]]]]:
        """Path, description and conversion of each file."""
        output, mask, spread = self.request.output, self.request.mask, self.request.spread
        num = self.num_channels
        shape = self.shape[1:] if num == 1 else (num, *self.shape[1:])
        # FITS and TIFF have no other letters than those of ASCII
        facts = {} if snapshot is None else {"SNAPSHOT": (ascii(snapshot)[1:-1], "weights")}
        floats = NewMap(shape, np.dtype(np.float32), self.like, facts=facts)
        byte = np.dtype(np.uint8)
        if mask is not None and threshold is not None:
            cut = facts | {"THRESH": (threshold, "1 where the probability is at least")}
            packing = Packing((_NO_DATA,))
            new = NewMap(shape, byte, self.like, packing, cut)
            yield mask, new, lambda band: as_mask(threshold, band[:num])
        if spread is not None:
            yield spread, floats, lambda band: band[num:]
        if output is not None and self.request.dtype == "uint8":
            packing = Packing((_NO_DATA,), scale=1 / _SCALE)
            yield output, replace(floats, dtype=byte, packing=packing), lambda b: as_bytes(b[:num])
        elif output is not None:
            yield output, floats, lambda band: band[:num]

    def _check_space(self) -> None:
        """Refuse to begin what would not fit, as long as nothing else is written."""
        needed: dict[int, int] = {}
        folders: dict[int, Path] = {}
        for path, new, _ in self._plan(0.5, None):
            device = path.parent.stat().st_dev
            folders[device] = path.parent
            size = num_bytes(path, shape=new.shape, dtype=new.dtype)
            needed[device] = needed.get(device, 0) + size
        if self.rows is not None:
            needed[self.rows.path.parent.stat().st_dev] += self.rows.num_missing_bytes
        for device, size in needed.items():
            free = shutil.disk_usage(folders[device]).free
            if size > free:
                raise ConfigError(
                    f"the map needs {size_text(size)} in {folders[device]}, where "
                    f"{size_text(free)} are free: choose another folder, or dtype uint8"
                )


def check_path(path: Path, like: Raster | None, *, channels: int) -> None:
    """Refuse a file that cannot be written, or that is the image itself.

    Raises:
        ConfigError: Its format is unknown, its folder is not there or cannot be written.
    """
    check_format(path, channels=channels, like=like)
    if not path.parent.is_dir():
        raise ConfigError(f"the folder of {path} does not exist: make it first")
    if path.is_dir() and path.suffix != ".zarr":
        raise ConfigError(f"{path} is a folder: name a file inside it")
    image = None if like is None else file_of(like.source)
    if image is not None and path.exists() and path.samefile(image.path):
        raise ConfigError(f"{path} is the image itself: choose another output")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()  # it has no name: nothing is left behind
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def as_mask(threshold: float, band: NDArray[np.float32]) -> NDArray[np.uint8]:
    """1 where a probability is at least the threshold, 0 below it, 255 without data.

    >>> as_mask(0.4, np.array([0.2, 0.4, np.nan], np.float32)).tolist()
    [0, 1, 255]
    """
    mask = (band >= np.float32(threshold)).astype(np.uint8)
    mask[np.isnan(band)] = _NO_DATA
    return mask


def as_bytes(band: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Probabilities as whole numbers from 0 to 254, 255 without data.

    >>> as_bytes(np.array([0, 0.5, 1, np.nan], np.float32)).tolist()
    [0, 127, 254, 255]
    """
    scaled = np.rint(band * np.float32(_SCALE))
    return np.where(np.isnan(scaled), np.float32(_NO_DATA), scaled).astype(np.uint8)
