"""The images of a cross-validation: where their areas lie, and which fold holds each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data import AnyDataset, PatchDataset, Raster, TileDataset, tile_parts
from lis2_lightning.data.open_raster import same_image
from lis2_lightning.data.tiled_image import TiledImage
from lis2_lightning.errors import ConfigError
from lis2_lightning.report.map_view import sampled
from lis2_lightning.tiling import Areas, Tile

Known = tuple[NDArray[np.float32], NDArray[np.bool_]]
_PATCHES: Final = 1024  # read at a time
_DRAWN: Final = 1000  # px along a side of a picture


@dataclass(frozen=True, eq=False)
class Field:
    """One image with its truth, its areas and the fold of each area."""

    image: Raster | None
    """Null for stored patches, which are of an image that is not there."""
    areas: Areas
    folds: NDArray[np.intp]
    """The fold of each area, ``(rows, columns)``; -1 for none."""
    read: Callable[[Tile], Known]
    """Target, 0 where unknown, and whether a pixel is labelled, ``(C, h, w)`` each."""
    missing: Raster | None = None
    """0 where data are missing, whatever the image holds there."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, px."""
        return self.areas.image_shape

    def band(self, top: int, bottom: int) -> Tile:
        """Whole rows of the image."""
        return Tile(top, 0, bottom - top, self.shape[1])

    def coarse(self) -> NDArray[np.float32]:
        """The first channel of the image, or its truth, with at most 1000 px a side."""
        read = self.image.read if self.image is not None else lambda tile: self.read(tile)[0]
        return sampled(read, self.shape, math.ceil(max(self.shape) / _DRAWN))

    def of_pixels(self, values: NDArray[Any], tile: Tile) -> NDArray[Any]:
        """The value, of ``(rows, columns)`` areas, of the area that each pixel lies in."""
        rows = np.arange(tile.top, tile.bottom)
        return self.areas.spread(values, rows, np.arange(tile.left, tile.right))

    def areas_of_pixels(self, tile: Tile, begin: int) -> NDArray[np.int64]:
        """The number of the area that each pixel lies in; they are numbered from ``begin`` on."""
        numbers = np.arange(begin, begin + self.folds.size).reshape(self.folds.shape)
        return self.of_pixels(numbers, tile)


def fields_of(dataset: AnyDataset | None) -> list[Field]:
    """Each image that tiles or patches are cut from, once.

    Raises:
        ConfigError: The data set has no areas that are dealt to folds.
    """
    if isinstance(dataset, PatchDataset) and dataset.area_folds is not None:
        return [_field_of_patches(dataset, dataset.area_folds.area_size)]
    fields: list[Field] = []
    for tiled in (tiled for part, _ in tile_parts(dataset) for tiled in part.tiled_images):
        if not any(field.image and same_image(tiled.image, field.image) for field in fields):
            fields.append(_field_of_tiles(tiled, tiled.fold_of_area))
    if not fields:
        raise ConfigError(
            f"{type(dataset).__name__} has no areas that are dealt to folds: use a TileDataset, or "
            "a PatchDataset with area_folds"
        )
    return fields


def fields_of_splits(train: Sequence[AnyDataset | None], test: AnyDataset | None) -> list[Field]:
    """The images that are tested on: fold 0 are the areas for that, and fold 1 those trained on.

    Raises:
        ConfigError: There are no tiles.
    """
    if not isinstance(test, TileDataset):
        raise ConfigError(
            f"baselines filter an image, which {type(test).__name__} has not: use a TileDataset"
        )
    trained = [t for data in train for part, _ in tile_parts(data) for t in part.tiled_images]
    fields = []
    for tiled in test.tiled_images:
        folds = np.full(tiled.areas.shape, -1)
        for other in (other for other in trained if same_image(other.image, tiled.image)):
            if other.areas.shape != tiled.areas.shape:
                raise ConfigError(
                    "the data sets cut the image into different areas: give all the same area_size"
                )
            folds[other.used] = 1
        folds[tiled.used] = 0
        fields.append(_field_of_tiles(tiled, folds))
    return fields


def _field_of_tiles(tiled: TiledImage, folds: NDArray[np.intp]) -> Field:
    return Field(tiled.image, tiled.areas, folds, tiled.truth.read, tiled.truth.missing)


def _field_of_patches(dataset: PatchDataset, side: int) -> Field:
    """What the patches of a file say of their image, in memory: the file is larger than that."""
    edges = [np.append(np.arange(0, extent, side), extent) for extent in dataset.extent]
    areas = Areas(edges[0], edges[1])
    folds = np.full(areas.shape, -1, np.intp)
    for fold, corners in dataset.corners_by_fold.items():
        rows, columns = (corners // side).T
        folds[rows, columns] = fold
    target, labelled = (mosaic(dataset, _stored(dataset, key)) for key in ("target", "labelled"))
    # NaN, where no patch is, is neither
    positive, is_labelled = (target > 0).astype(np.float32), labelled > 0

    def read(tile: Tile) -> Known:
        here = (slice(None), tile.rows, tile.columns)
        return positive[here], is_labelled[here]

    return Field(None, areas, folds, read)


def _stored(dataset: PatchDataset, key: str) -> Iterator[NDArray[np.float32]]:
    for begin in range(0, len(dataset), _PATCHES):
        batch = dataset.__getitems__(range(begin, min(begin + _PATCHES, len(dataset))))
        yield from batch.tensors[key].float().numpy()


def mosaic(dataset: PatchDataset, patches: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Maps of all patches of a data set, ``(C, h, w)`` each, as one of the image, ``(C, H, W)``.

    Where patches overlap it is their mean, and NaN where none is.
    """
    sums, numbers = np.zeros((1, *dataset.extent)), np.zeros(dataset.extent)
    for (top, left), patch in zip(dataset.corners.tolist(), patches, strict=True):
        if len(sums) < len(patch):
            sums = np.zeros((len(patch), *dataset.extent))
        here = Tile(top, left, *patch.shape[1:])
        sums[:, here.rows, here.columns] += patch
        numbers[here.rows, here.columns] += 1
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, as it should be
        return np.asarray(sums / numbers, np.float32)
