"""What a run draws at its end: ``curves.png``, ``prediction.png`` and ``report.html``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from lis2_lightning.assembly.assemble import Assembly
from lis2_lightning.assembly.settings import Settings
from lis2_lightning.data import AnyDataset, ImageTiles, is_one_image, tile_parts
from lis2_lightning.errors import Lis2Error
from lis2_lightning.inference import Map
from lis2_lightning.report.map_view import view_of
from lis2_lightning.report.page import write_page
from lis2_lightning.report.pictures import draw_curves, draw_prediction
from lis2_lightning.report.run_record import LOG, log_rows

# larger images are mapped by `lis2 predict` only
DRAWN_PIXELS: Final = 4_000_000
_log = logging.getLogger("lis2_lightning")


def draw_run(settings: Settings, built: Assembly, map_image: Callable[[], Sequence[Map]]) -> str:
    """Draw what a run that is over leaves, and write its page unless ``report`` is false.

    Returns why images of the run are not mapped; nothing where they are, or there are none.

    Args:
        settings: Those of the run.
        built: What they became.
        map_image: Maps the image with the best snapshot; every process must call it.
    """
    folder, data, is_main = settings.run_dir, built.data, built.lightning.is_global_zero
    if is_main:
        draw_curves(log_rows(folder / LOG), folder / "curves.png")
    if is_drawn(data.predict):
        maps = map_image()
        if is_main:
            _draw_map(data.predict, maps, folder)
    else:
        _keep(built, folder, None)
    if settings.report and is_main:
        try:
            write_page([folder])
        except Lis2Error as error:  # the run is over, and whole without its page
            _log.warning("no report of the run: %s", error)
    return _unmapped(data.predict)


def keep_map(built: Assembly, folder: Path, maps: Sequence[Map]) -> None:
    """Keep what a page shows of the run's own map: ``prediction`` in its folder, of its image."""
    source = getattr(maps[0], "source", None) if len(maps) == 1 else None
    if source is None or isinstance(built.data.train, ImageTiles):  # which map another image
        return
    path = Path(source).absolute()
    if (path.parent, path.stem) == (folder, "prediction"):
        _keep(built, folder, maps[0])


def _keep(built: Assembly, folder: Path, map_: Map | None) -> None:
    if not built.lightning.is_global_zero:
        return
    view = view_of(built.data, map_, built.module.threshold)
    if view is not None:
        view.save(folder)


def _draw_map(dataset: AnyDataset | None, maps: Sequence[Map], folder: Path) -> None:
    """Draw image, truth and probability of a tiled image as ``prediction.png``."""
    if not is_one_image(dataset) or not maps:
        return
    image, target, labelled = (channels[0] for channels in dataset.read_maps())
    draw_prediction(image, target, labelled, maps[0][0], folder / "prediction.png")


def is_drawn(dataset: AnyDataset | None) -> bool:
    """Whether the image is small enough to be mapped for its picture."""
    return is_one_image(dataset) and int(np.prod(dataset.image_shape)) <= DRAWN_PIXELS


def _unmapped(dataset: AnyDataset | None) -> str:
    """Why a large image, or several, have no map and no picture yet."""
    if is_drawn(dataset) or not any(tile_parts(dataset)):
        return ""
    return "above 4 million px" if is_one_image(dataset) else "several images"
