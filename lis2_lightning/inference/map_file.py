"""The file of a map: checked before there is a map, written whole."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from lis2_lightning.base.files import atomic, shown
from lis2_lightning.data import AnyDataset, TileDataset, write_map
from lis2_lightning.data.rasters.address import parse_address
from lis2_lightning.errors import ConfigError
from lis2_lightning.inference.segmenter import Map

_FORMATS: Final = (".fits", ".npy")
_log = logging.getLogger("lis2_lightning")


def default_map_path(dataset: AnyDataset | None, folder: Path) -> Path:
    """The file of a run's own map: FITS where the image is FITS, else ``.npy``."""
    has_coordinates = getattr(getattr(dataset, "image", None), "cards", None) is not None
    return folder / ("prediction.fits" if has_coordinates else "prediction.npy")


def check_map_path(path: Path, dataset: AnyDataset, *, overwrite: bool) -> None:
    """Refuse a file that cannot or must not be written.

    Raises:
        ConfigError: Its format is unknown, its folder is not there or cannot be written, it is the
            image itself, or it exists and ``overwrite`` is false.
    """
    formats = _FORMATS if isinstance(dataset, TileDataset) else _FORMATS[1:]
    if path.suffix not in formats:
        raise ConfigError(
            f"{path} has no known format of a map: its name must end in {' or '.join(formats)}"
        )
    if not path.parent.is_dir():
        raise ConfigError(f"the folder of {path} does not exist: make it first")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder: name a file inside it")
    if path.exists():
        image = (
            parse_address(dataset.image.source).path if isinstance(dataset, TileDataset) else None
        )
        if image is not None and image.exists() and path.samefile(image):
            raise ConfigError(f"{path} is the image itself: choose another output")
        if not overwrite:
            raise ConfigError(
                f"{path} exists already: choose another output, or replace it with --overwrite "
                "(overwrite=True in Python)"
            )
    try:
        tempfile.TemporaryFile(dir=path.parent).close()  # it has no name: nothing is left behind
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def write_maps(maps: Sequence[Map], dataset: AnyDataset, path: Path) -> None:
    """Write the map of an image with its coordinates, or the maps of all samples as one array."""
    if not maps:
        return
    gaps = ""
    if isinstance(dataset, TileDataset):
        num_gaps = int(np.isnan(maps[0][0]).sum())
        gaps = f"; NaN at {num_gaps} pixels, where the image has no data" if num_gaps else ""
        write_map(path, maps[0][0] if len(maps[0]) == 1 else maps[0], like=dataset.image)
    else:
        with atomic(path) as file:
            np.save(file, np.stack(maps))
    _log.info("the map is in %s%s", shown(path), gaps)
