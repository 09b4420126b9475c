"""A prediction around Lightning's loop: which image, into which files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from lis2_lightning.assembly.assemble import Assembly
from lis2_lightning.base.display import Displayed
from lis2_lightning.base.files import atomic, shown
from lis2_lightning.callbacks.run_folder import make_folder
from lis2_lightning.data import AnyDataset, Raster, TileDataset, first_batch, tile_parts
from lis2_lightning.data.open_raster import same_image
from lis2_lightning.data.rasters.padded import unpadded
from lis2_lightning.errors import ConfigError, DataError, one_line
from lis2_lightning.inference import Map, MapJob, MapRequest, check_path
from lis2_lightning.running.around_loop import trial

_log = logging.getLogger("lis2_lightning")
PathOrNone = TypeVar("PathOrNone", Path, Path | None)


class Maps(Displayed, list[Map]):
    """A list of maps that shows how many, how large and where, not millions of numbers."""

    def facts(self) -> dict[str, Any]:
        """Cheap facts."""
        sizes = {" x ".join(map(str, map_.shape)): None for map_ in self}
        places = {getattr(map_, "source", "memory"): None for map_ in self}
        return {"maps": len(self), "shape": ", ".join(sizes), "in": ", ".join(places)}


def predict(
    built: Assembly, folder: Path, run: Callable[[], None], request: MapRequest
) -> list[Map]:
    """Map each configured image, or another one in place of them; see ``Trainer.predict``.

    ``folder`` is that of the run, and ``run`` runs the loop.
    """
    configured = built.data.predict
    num_networks = getattr(built.module.model, "num_members", 1)
    if request.spread is not None and num_networks == 1:
        raise ConfigError(
            "spread is how far several networks differ: name their snapshots by a pattern, such as "
            "--ckpt_path 'runs/x/fold_*/best.pt'"
        )
    datasets = _datasets(built, request)
    channels = [_check_network(built, dataset) for dataset in datasets]
    requests = [
        _with_own_output(request, dataset, folder, None if len(datasets) == 1 else number)
        for number, dataset in enumerate(datasets)
    ]
    try:
        if not isinstance(datasets[0], TileDataset):
            return Maps(_map_samples(built, datasets[0], run, requests[0]))
        jobs = [
            MapJob(
                cast("TileDataset", tiles),
                own,
                channels=num,
                num_networks=num_networks,
                batch_size=built.data.batch_size,
            )
            for tiles, own, num in zip(datasets, requests, channels, strict=True)
        ]
        return Maps(_map_image(built, job, run) for job in jobs)
    finally:
        built.data.predict = configured


def default_map_path(dataset: AnyDataset | None, folder: Path) -> Path:
    """The file of a run's own map, or of that of its first image before it gets a number."""
    images = dataset.images if isinstance(dataset, TileDataset) else ()
    return map_paths(folder, "prediction", [*images[:1]] or [None])[0]


def map_paths(folder: Path, name: str, images: Sequence[Raster | None]) -> list[Path]:
    """The file of the map of each image: FITS where the first image is FITS, else ``.npy``.

    >>> [path.name for path in map_paths(Path("runs"), "prediction", [None, None])]
    ['prediction_0.npy', 'prediction_1.npy']
    """
    suffix = ".npy" if getattr(images[0], "cards", None) is None else ".fits"
    path = folder / f"{name}{suffix}"
    return [path] if len(images) == 1 else [_numbered(path, n) for n in range(len(images))]


def _map_image(built: Assembly, job: MapJob, run: Callable[[], None]) -> Map:
    built.data.predict = job.tiles
    _say_begun(job.tiles, job.request)
    with _at_work(built, job):
        run()
        return job.result()


def _map_samples(
    built: Assembly, dataset: AnyDataset, run: Callable[[], None], request: MapRequest
) -> list[Map]:
    """Map each sample, into one array."""
    if request != MapRequest(output=request.output, overwrite=request.overwrite):
        raise ConfigError(
            f"{type(dataset).__name__} has no image to be mapped, and its samples have neither "
            "mask nor stride nor dtype: use a TileDataset, or leave these options out"
        )
    path = request.output
    if path is not None:
        if path.suffix != ".npy":
            raise ConfigError(f"{path} has no known format for maps of samples: name it .npy")
        check_path(path, None, channels=1)
        request.check_new()
    _say_begun(dataset, request)
    run()
    maps = built.predictions.maps
    if path is not None and built.lightning.is_global_zero:
        with atomic(path) as file:
            np.save(file, np.stack([np.asarray(map_) for map_ in maps]))
        _log.info("the map is in %s", shown(path))
    return maps


@contextmanager
def _at_work(built: Assembly, job: MapJob) -> Iterator[None]:
    data, predictions = built.data, built.predictions
    data.batches_to_map, predictions.job = lambda: job.deal(built.lightning), job
    try:
        yield
    finally:
        data.batches_to_map = predictions.job = None
        job.rows.close()


def _datasets(built: Assembly, request: MapRequest) -> list[AnyDataset]:
    """What is mapped: each image of the run, or another one cut like it; or samples of no image."""
    configured = cast("AnyDataset", built.data.predict)  # a run's data always has it
    parts = [part for part, _ in tile_parts(configured)]
    if request.image is not None:
        if not parts:
            raise ConfigError(
                f"{type(configured).__name__} does not say how tiles are cut from another image: "
                "use a TileDataset"
            )
        return [parts[0].whole_image(request.stride, image=request.image)]
    images: list[TileDataset] = []
    for whole in (whole for part in parts for whole in part.whole_images(request.stride)):
        if not any(same_image(whole.image, other.image) for other in images):
            images.append(whole)
    return [*images] or [configured]


def _with_own_output(
    request: MapRequest, dataset: AnyDataset, folder: Path, number: int | None
) -> MapRequest:
    """The request, with a file in the run's folder where its own image has none yet.

    The files of one of several images have its ``number`` in their names.
    """
    names = ("output", "mask", "spread")
    request = replace(request, **{n: _numbered(getattr(request, n), number) for n in names})
    if request.output is None and request.image is None:
        path = _numbered(default_map_path(dataset, folder), number)
        if not path.exists() or request.overwrite:
            request = replace(request, output=path)
        else:
            _log.info("%s stays as it is: overwrite=True replaces it", shown(path))
    if any(path.absolute().parent == folder.absolute() for path in request.paths):
        make_folder(folder)
    return request


def _numbered(path: PathOrNone, number: int | None) -> PathOrNone:
    return path if path is None or number is None else path.with_stem(f"{path.stem}_{number}")


def _say_begun(dataset: AnyDataset, request: MapRequest) -> None:
    files = " and ".join(map(shown, request.paths))
    _log.info("mapping %s%s", _described(dataset), f" into {files}" if files else "")


def _described(dataset: AnyDataset) -> str:
    if not isinstance(dataset, TileDataset):
        return f"the samples of {type(dataset).__name__}"
    _, height, width = unpadded(dataset.image).shape
    return f"{dataset.image.source} ({height} x {width} px)"


def _check_network(built: Assembly, dataset: AnyDataset) -> int:
    """Try the network on a tile before any work, and return the channels of its maps.

    Raises:
        DataError: It takes other channels, or the image is smaller than its least side.
    """
    module, precision = built.module, built.lightning.precision_plugin
    network = type(module.model).__name__
    least = getattr(module.model, "least_side", 0)
    if isinstance(dataset, TileDataset) and min(unpadded(dataset.image).shape[1:]) < least:
        raise DataError(
            f"{_described(dataset)} is smaller than {least} px, the least side of an image for "
            f"{network}: choose a larger image"
        )
    batch = first_batch(dataset)
    channels, *sides = batch["patch"].shape[1:]
    shape = f"{channels} channel{'s' * (channels > 1)} of {' x '.join(map(str, sides))} px"
    try:
        with trial(module):
            output = precision.convert_module(module)(precision.convert_input(batch))
    except (RuntimeError, TypeError, DataError) as error:
        raise DataError(
            f"{network} takes no tiles of {_described(dataset)}, which have {shape}: "
            f"{one_line(error)}"
        ) from error
    if isinstance(dataset, TileDataset) and list(output.shape[2:]) != sides:
        raise DataError(
            f"{network} makes maps of shape {tuple(output.shape[1:])} of tiles with {shape}: a "
            "map must have the height and width of its tile"
        )
    return int(output.shape[1])
