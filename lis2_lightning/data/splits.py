"""What training, validation and test sets of tiles must not be, and what a user should know."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset, Subset

from lis2_lightning.data.batch import AnyDataset
from lis2_lightning.data.open_raster import same_place
from lis2_lightning.data.tiled_image import TiledImage
from lis2_lightning.data.tiles import TileDataset
from lis2_lightning.errors import DataError
from lis2_lightning.tiling import areas_meet, shared_pixel

Splits = Mapping[str, AnyDataset | None]
Part = tuple[TileDataset, NDArray[np.int64] | None]
_log = logging.getLogger("lis2_lightning")


def tile_parts(
    dataset: AnyDataset | None, indices: NDArray[np.int64] | None = None
) -> Iterator[Part]:
    """The data sets of tiles inside ``ConcatDataset`` and ``Subset``, with the samples that count.

    These are given by their numbers; None stands for all, as it does for ``indices``.
    """
    if isinstance(dataset, TileDataset):
        yield dataset, indices
    elif isinstance(dataset, Subset):
        chosen = np.asarray(dataset.indices, np.int64)
        yield from tile_parts(dataset.dataset, chosen if indices is None else chosen[indices])
    elif isinstance(dataset, ConcatDataset):
        begin = 0
        for part, end in zip(dataset.datasets, dataset.cumulative_sizes, strict=True):
            inside = None
            if indices is not None:
                inside = indices[(indices >= begin) & (indices < end)] - begin
            yield from tile_parts(part, inside)
            begin = end


def _images(
    dataset: TileDataset, indices: NDArray[np.int64] | None
) -> Iterator[tuple[TiledImage, NDArray[np.int64] | None]]:
    """The images that samples of a data set are cut from, with their numbers inside them."""
    if indices is None:
        yield from ((tiled, None) for tiled in dataset.tiled_images)
    else:
        yield from ((tiled, inside) for tiled, _, inside in dataset.of_images(indices))


def _shared(
    first: TiledImage,
    chosen: NDArray[np.int64] | None,
    second: TiledImage,
    others: NDArray[np.int64] | None,
) -> tuple[int, int] | None:
    """A pixel that tiles of both hold."""
    # areas first: folds of one cut share none, and there may be millions of tiles
    if not areas_meet(first.areas, first.used, second.areas, second.used):
        return None
    corners = first.corners(chosen), second.corners(others)
    return shared_pixel(corners[0], first.lattice.size, corners[1], second.lattice.size)


def check_no_shared_pixels(datasets: Splits) -> None:
    """Check that no two splits share a pixel of the same image.

    Data sets of tiles are found inside torch's ``ConcatDataset`` and ``Subset`` too.

    Args:
        datasets: Data sets by the name of their split; None, and what is not cut from an image, is
            skipped.

    Raises:
        DataError: Two splits share a pixel.
    """
    parts = [
        (name, tiled, inside)
        for name, dataset in datasets.items()
        for part, indices in tile_parts(dataset)
        for tiled, inside in _images(part, indices)
    ]
    for (name, first, chosen), (other, second, others) in combinations(parts, 2):
        if name == other or not same_place(first.image, second.image):
            continue
        pixel = _shared(first, chosen, second, others)
        if pixel is not None:
            raise DataError(
                f"{name} and {other} share pixels of {first.image.source}, such as row {pixel[0]}, "
                f"column {pixel[1]}: give both the same images, area_size, num_folds and "
                "fold_seed, and different folds"
            )


def warn_of_labels(datasets: Splits) -> None:
    """Warn of labels where an image has no data, once an image, and of splits without objects."""
    lost: dict[str, int] = {}
    for name, dataset in datasets.items():
        parts = [part for part, _ in tile_parts(dataset)]
        for tiles in (tiles for part in parts for tiles in part.tiled_images):
            source = tiles.image.source
            lost[source] = max(lost.get(source, 0), tiles.num_without_data)
        if parts and not any(part.has_positive for part in parts):
            _log.warning(
                "%s has no positive pixel: its Dice, average precision and ROC AUC mean nothing; "
                "choose other folds, or fewer",
                name,
            )
    for source, count in lost.items():
        if count:
            _log.warning(
                "%s has no data at %d of its labelled pixels (NaN, infinite or masked): they count "
                "nowhere",
                source,
                count,
            )
