"""Several images of one data set: their lists of maps, and the folds of all of them together."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data.census_cache import census_of
from lis2_lightning.data.legend import Legend
from lis2_lightning.data.open_raster import Raster, Source, open_raster, same_place
from lis2_lightning.data.tiled_image import TiledImage
from lis2_lightning.data.truth import Truth
from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.tiling import assign_folds

Sources = np.ndarray | Raster | list[str] | str | os.PathLike[str] | Sequence[Source]
"""One image, or a list of several."""
FoldBy = Literal["area", "image"]
"""What belongs to a fold: areas of all images, or whole images."""


def open_all(image: Sources, maps: Mapping[str, Sources | None], legend: Legend) -> list[Truth]:
    """Open each image with its truth; of one image, a list may be left out.

    Raises:
        ConfigError: The lists have different lengths, or are empty.
        DataError: A file cannot be read, or the images or the targets differ in channels.
    """
    images = _listed(image)
    if not images:
        raise ConfigError("image is an empty list: name at least one image")
    columns = {name: _listed(source) for name, source in maps.items() if source is not None}
    for name, sources in columns.items():
        if len(sources) != len(images):
            raise ConfigError(
                f"{name} has {_counted(sources)} for {_counted(images)} of image: list one for "
                "each image, in the same order"
            )
    truths = [
        Truth(
            open_raster(source),
            legend=legend,
            **{name: sources[number] for name, sources in columns.items()},
        )
        for number, source in enumerate(images)
    ]
    _check_channels("image", [truth.image for truth in truths])
    _check_channels("target", [truth.target for truth in truths])
    return truths


def keep_folds(
    images: Sequence[TiledImage],
    num_folds: int,
    chosen: list[int],
    *,
    seed: int,
    fold_by: FoldBy,
    keep_unlabelled: bool,
) -> None:
    """Assign areas, or whole images, to folds, and keep the tiles of the chosen ones.

    An image that is listed twice, and planes of one cube, have the same folds each time, so that no
    place is in two.

    Raises:
        DataError: No pixel is labelled, or a fold has no tile.
        ConfigError: There are fewer images than folds, where images belong to folds.
    """
    censuses = [census_of(tiled.truth, tiled.areas, tiled.lattice) for tiled in images]
    targets = ", ".join(dict.fromkeys(tiled.truth.target.source for tiled in images))
    if not any(census.areas.any() for census in censuses):
        raise DataError(
            f"no pixel of {targets} is labelled: a labelled pixel is 1 in target or background (or "
            "in labelled), 1 in missing, and a number in the image"
        )
    of_areas = _assigned(
        images, [census.areas for census in censuses], num_folds, seed=seed, fold_by=fold_by
    )
    sizes = np.zeros(num_folds, dtype=np.intp)
    for tiled, census, of_area in zip(images, censuses, of_areas, strict=True):
        kept = tiled.keep(census, of_area, chosen, keep_unlabelled=keep_unlabelled)
        sizes[: len(kept)] += kept
    for fold in chosen:
        if sizes[fold] == 0:
            raise DataError(
                f"fold {fold} of {num_folds} has no tile with a labelled pixel of {targets}: use "
                "fewer folds or another area_size"
            )


def _assigned(
    images: Sequence[TiledImage],
    weights: Sequence[NDArray[np.int64]],
    num_folds: int,
    *,
    seed: int,
    fold_by: FoldBy,
) -> list[NDArray[np.intp]]:
    """The fold of each area of each image, `(rows, columns)`."""
    rasters = [tiled.image for tiled in images]
    # the first of the same place: areas there are then in one fold
    first = [
        next(i for i, other in enumerate(rasters) if same_place(raster, other))
        for raster in rasters
    ]
    distinct = sorted(set(first))
    totals = {
        number: np.sum([w for w, f in zip(weights, first, strict=True) if f == number], axis=0)
        for number in distinct
    }
    if fold_by == "area":
        rows = [totals[number].reshape(-1, 2) for number in distinct]
        folds = assign_folds(np.concatenate(rows), num_folds=num_folds, seed=seed)
        parts = np.split(folds, np.cumsum([len(part) for part in rows])[:-1])
    else:
        if len(distinct) < num_folds:
            raise ConfigError(
                f"fold_by: image puts whole images into {num_folds} folds, and the number of "
                f"different images is {len(distinct)}: use fewer folds, or fold_by: area"
            )
        rows = [totals[number].sum(axis=(0, 1))[None] for number in distinct]
        folds = assign_folds(np.concatenate(rows), num_folds=num_folds, seed=seed)
        parts = [np.full(totals[n][..., 0].size, f) for n, f in zip(distinct, folds, strict=True)]
    by_image = dict(zip(distinct, parts, strict=True))
    return [by_image[f].reshape(tiled.areas.shape) for f, tiled in zip(first, images, strict=True)]


def _listed(source: Sources) -> list[Any]:
    return list(source) if isinstance(source, list | tuple) else [source]


def _counted(sources: Sequence[object]) -> str:
    return f"{len(sources)} {'entry' if len(sources) == 1 else 'entries'}"


def _check_channels(name: str, rasters: Sequence[Raster]) -> None:
    for raster in rasters[1:]:
        if raster.shape[0] != rasters[0].shape[0]:
            raise DataError(
                f"{name} lists {rasters[0].source} of {rasters[0].shape[0]} and {raster.source} of "
                f"{raster.shape[0]} channels: all must have the same number"
            )
