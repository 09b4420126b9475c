"""The pictures that a run writes: ``curves.png`` and ``prediction.png``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from lis2_lightning.base.files import shown
from lis2_lightning.data import AnyDataset, is_one_image, tile_parts
from lis2_lightning.inference import Map
from lis2_lightning.report.pictures import draw_curves, draw_prediction
from lis2_lightning.trackers.csv_rows import read_rows

# larger images are mapped by `lis2 predict` only
DRAWN_PIXELS: Final = 4_000_000
_log = logging.getLogger("lis2_lightning")


def draw_log(folder: Path) -> None:
    """Draw the epochs of a run's ``logs_train.csv`` as ``curves.png`` beside it."""
    draw_curves(_numbers(folder / "logs_train.csv"), folder / "curves.png")


def draw_map(dataset: AnyDataset | None, maps: Sequence[Map], folder: Path) -> None:
    """Draw image, truth and probability of a tiled image as ``prediction.png``."""
    if not is_one_image(dataset) or not maps:
        return
    image, target, labelled = (channels[0] for channels in dataset.read_maps())
    draw_prediction(image, target, labelled, maps[0][0], folder / "prediction.png")


def is_drawn(dataset: AnyDataset | None) -> bool:
    """Whether the image is small enough to be mapped for its picture."""
    return is_one_image(dataset) and int(np.prod(dataset.image_shape)) <= DRAWN_PIXELS


def say_how_to_map(dataset: AnyDataset | None, folder: Path) -> None:
    """Tell that a large image, or several, have no map and no picture yet, and how to map them."""
    if is_one_image(dataset) and not is_drawn(dataset):
        _log.info(
            "no map or picture of an image above 4 million pixels: lis2 predict --ckpt_path %s "
            "maps it",
            shown(folder),
        )
    elif not is_one_image(dataset) and any(tile_parts(dataset)):
        _log.info(
            "no map or picture of several images: lis2 predict --ckpt_path %s maps them",
            shown(folder),
        )


def _numbers(path: Path) -> list[dict[str, float | None]]:
    _, rows = read_rows(path)
    return [{key: float(v) if v else None for key, v in row.items()} for row in rows]
