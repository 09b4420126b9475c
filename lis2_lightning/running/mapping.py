"""A prediction around Lightning's loop: which image, into which file."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from lis2_lightning.assembly.assemble import Assembly
from lis2_lightning.base.files import shown
from lis2_lightning.callbacks.run_folder import make_folder
from lis2_lightning.data import AnyDataset, first_batch, is_one_image, tile_parts
from lis2_lightning.data.open_raster import Source
from lis2_lightning.errors import ConfigError, DataError, one_line
from lis2_lightning.inference import Map, check_map_path, default_map_path, write_maps
from lis2_lightning.running.around_loop import trial
from lis2_lightning.training.module import SegmentationModule

_log = logging.getLogger("lis2_lightning")


def predict(
    built: Assembly,
    folder: Path,
    run: Callable[[], None],
    *,
    image: Source | None,
    output: str | os.PathLike[str] | None,
    overwrite: bool,
) -> list[Map]:
    """Map the configured image, or another one, in place of it; see ``Trainer.predict``.

    ``folder`` is that of the run, and ``run`` runs the loop.
    """
    with _instead(built, image) as dataset:
        _check_network(built.module, dataset)
        path = None if output is None else Path(output).expanduser()
        kept = ""
        if path is None and image is None:
            path = default_map_path(dataset, folder)
            if path.exists() and not overwrite:
                kept = f"; {shown(path)} stays as it is: overwrite=True replaces it"
                path = None
        if path is not None:
            if path.absolute().parent == folder.absolute():
                make_folder(folder)
            check_map_path(path, dataset, overwrite=overwrite)
        _log.info(
            "mapping %s%s%s", _described(dataset), f" into {shown(path)}" if path else "", kept
        )
        run()
        maps = built.segmenter.maps
        if path is not None and built.lightning.is_global_zero:
            write_maps(maps, dataset, path)
    return maps


@contextmanager
def _instead(built: Assembly, image: Source | None) -> Iterator[AnyDataset]:
    """The data set that is mapped: that of the run, or one of another image cut like it."""
    data, segmenter = built.data, built.segmenter
    configured, own = data.predict, segmenter.image
    shown = cast("AnyDataset", configured)  # a run's data always has it
    parts = [part for part, _ in tile_parts(configured)]
    if image is not None:
        if not parts:
            raise ConfigError(
                f"{type(configured).__name__} does not say how tiles are cut from another image: "
                "use a TileDataset"
            )
        shown = data.predict = parts[0].whole_image(image=image)
        segmenter.image = shown.image
    elif parts and not is_one_image(configured):
        sources = ", ".join(dict.fromkeys(i.source for part in parts for i in part.images))
        raise ConfigError(
            f"{type(configured).__name__} holds tiles of {sources}, and a map is of one whole "
            "image: name it, as in predict(image=...) or --image"
        )
    try:
        yield shown
    finally:
        data.predict, segmenter.image = configured, own


def _described(dataset: AnyDataset) -> str:
    if not is_one_image(dataset):
        return f"the samples of {type(dataset).__name__}"
    height, width = dataset.image_shape
    return f"{dataset.image.source} ({height} x {width} px)"


def _check_network(module: SegmentationModule, dataset: AnyDataset) -> None:
    """Try the network on a tile: another number of channels is refused before any work."""
    batch = first_batch(dataset)
    try:
        with trial(module):
            module(batch)
    except (RuntimeError, TypeError, DataError) as error:
        channels, *sides = batch["patch"].shape[1:]
        raise DataError(
            f"{type(module.model).__name__} takes no tiles of {_described(dataset)}, which have "
            f"{channels} channel{'s' * (channels > 1)} of {' x '.join(map(str, sides))} px: "
            f"{one_line(error)}"
        ) from error
