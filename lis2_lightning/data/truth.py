"""Where the truth of an image is known, what it is, and how many labelled pixels lie where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.base.labelled import known_where
from lis2_lightning.data.legend import Legend
from lis2_lightning.data.open_raster import Raster, Source, open_raster
from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.tiling import Areas, Lattice, Tile

BLOCK = (256, 2048)
"""Height and width of the blocks in which maps are scanned, px."""

Known = tuple[NDArray[np.float32], NDArray[np.bool_]]


class Truth:
    """The target of an image, and the maps that say where it is known.

    A pixel is labelled where (target + background) × missing > 0, as in LIS²; with a map
    `labelled`, where labelled × missing > 0; with neither, where it is not missing. It is never
    labelled where one of the maps is NaN, or the image, in any channel, NaN or infinite.
    """

    def __init__(
        self,
        image: Raster,
        *,
        target: Source,
        background: Source | None = None,
        missing: Source | None = None,
        labelled: Source | None = None,
        legend: Legend | None = None,
    ) -> None:
        if background is not None and labelled is not None:
            raise ConfigError(
                "background and labelled both define the labelled pixels: pass only one of them"
            )
        self.image = image
        self.target = open_raster(target)
        self.legend = legend or Legend()
        self._others = [
            None if source is None else open_raster(source)
            for source in (background, missing, labelled)
        ]
        for raster in (self.target, *self._others):
            if raster is not None:
                _check_shape(raster, image, self.target)

    def read(self, tile: Tile) -> Known:
        """The target, 0 where unknown, and whether a pixel is labelled, `(C, h, w)` each.

        Raises:
            DataError: A map holds a value without a meaning.
        """
        target, labelled = self.read_labels(tile)
        if labelled.any():
            np.logical_and(labelled, has_data(self.image.read(tile)), out=labelled)
        return target, labelled

    def read_labels(self, tile: Tile) -> Known:
        """The same without a look at the image."""
        target = self.target.read(tile)
        self.legend.check(target, self.target.source, tile)
        others = (r if r is None else _zeros_and_ones(r, tile) for r in self._others)
        return _known(self.legend.decode(target), *others)

    def read_many(self, tops: NDArray[np.int64], lefts: NDArray[np.int64], size: int) -> Known:
        """Read the labels of many squares, `(N, C, size, size)` each, without checking the values.

        The image, which the caller has read, is not looked at.
        """
        others = (r if r is None else r.read_many(tops, lefts, size) for r in self._others)
        return _known(self.legend.decode(self.target.read_many(tops, lefts, size)), *others)

    def is_missing(
        self, tops: NDArray[np.int64], lefts: NDArray[np.int64], size: int
    ) -> NDArray[np.bool_] | None:
        """Where `missing` says so for all channels, `(N, 1, size, size)`; null without this map."""
        missing = self._others[1]
        if missing is None:
            return None
        values = missing.read_many(tops, lefts, size)
        return np.logical_and.reduce(~(values > 0), axis=1, keepdims=True)


def has_data(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which pixels of `(..., C, h, w)` are finite numbers in all channels, `(..., 1, h, w)`."""
    return np.logical_and.reduce(np.isfinite(image), axis=-3, keepdims=True)


@dataclass(slots=True, eq=False)
class Census:
    """The labelled pixels of an image, counted."""

    tiles: NDArray[np.bool_]
    """Whether each tile of a lattice has a labelled pixel, and a positive one,
    `(rows, columns, 2)`."""
    areas: NDArray[np.int64]
    """Labelled pixels of each area, and those of them that are positive, `(rows, columns, 2)`."""
    without_data: int = 0
    """Pixels that the maps label and that do not count, because the image has no data there."""


def count(truth: Truth, areas: Areas, lattice: Lattice) -> Census:
    """Scan all maps once, block by block, in constant memory."""
    census = Census(
        np.zeros((len(lattice.tops), len(lattice.lefts), 2), dtype=np.bool_),
        np.zeros((*areas.shape, 2), dtype=np.int64),
    )
    for block in _blocks(areas.image_shape):
        # a tile belongs to the block of its first pixel; the rest of it is read too
        rows, tops, bottoms = _tiles_from(lattice.tops, lattice.size, block.top, block.bottom)
        columns, lefts, rights = _tiles_from(lattice.lefts, lattice.size, block.left, block.right)
        height, width = max([block.height, *bottoms[-1:]]), max([block.width, *rights[-1:]])
        tile = Tile(block.top, block.left, int(height), int(width))
        target, labelled = truth.read_labels(tile)
        if labelled.any():
            lost = labelled & ~has_data(truth.image.read(tile))
            labelled &= ~lost
            here = lost[:, : block.height, : block.width].any(axis=0)
            census.without_data += int(np.count_nonzero(here))
        area_rows, begins, ends = _parts(areas.row_edges, block.top, block.bottom)
        area_columns, firsts, lasts = _parts(areas.column_edges, block.left, block.right)
        breaks = np.unique(np.concatenate(([0], tops, bottoms, begins, ends)))
        for number, pixels in enumerate((labelled, labelled & (target > 0))):
            counts = _Counts(pixels, breaks)
            of_tiles = counts.between(tops, bottoms, lefts, rights)
            census.tiles[rows, columns, number] = of_tiles > 0
            of_areas = counts.between(begins, ends, firsts, lasts)
            census.areas[area_rows, area_columns, number] += of_areas
    return census


class _Counts:
    """Counts of true pixels in rectangles, from a summed-area table (Crow, SIGGRAPH 1984).

    The table holds only the rows at which rectangles begin or end (the breaks: increasing, from 0),
    which is five times as fast. Channels of `(C, h, w)` are added.
    """

    def __init__(self, pixels: NDArray[np.bool_], breaks: NDArray[np.int64]) -> None:
        counts = pixels[0] if len(pixels) == 1 else pixels.sum(axis=0)
        height, width = counts.shape
        inside = breaks[breaks < height]
        self._breaks = np.append(inside, height)
        self._table = np.zeros((len(self._breaks), width + 1), dtype=np.int64)
        strips = np.add.reduceat(counts, inside, axis=0, dtype=np.int64)
        np.cumsum(strips, axis=1, out=strips)
        np.cumsum(strips, axis=0, out=self._table[1:, 1:])

    def between(
        self,
        tops: NDArray[np.int64],
        bottoms: NDArray[np.int64],
        lefts: NDArray[np.int64],
        rights: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """The count in each rectangle of R ranges of rows and K of columns, `(R, K)`."""
        above, below = (np.searchsorted(self._breaks, rows) for rows in (tops, bottoms))
        strips = self._table[below] - self._table[above]
        inside: NDArray[np.int64] = strips[:, rights] - strips[:, lefts]
        return inside


def _zeros_and_ones(raster: Raster, tile: Tile) -> NDArray[np.float32]:
    values = raster.read(tile)
    known_where(values, raster.source)  # which refuses anything else
    return values


def _check_shape(raster: Raster, image: Raster, target: Raster) -> None:
    if raster.shape[1:] != image.shape[1:]:
        raise DataError(
            f"{raster.source} is {raster.shape[1]} x {raster.shape[2]} px and {image.source} "
            f"{image.shape[1]} x {image.shape[2]} px: all maps must have the image's shape"
        )
    if raster.shape[0] not in {1, target.shape[0]}:
        raise DataError(
            f"{raster.source} has {raster.shape[0]} channels and the target {target.source} has "
            f"{target.shape[0]}: use a map with one channel, or with as many as the target"
        )


def _known(
    target: NDArray[np.float32],
    background: NDArray[np.float32] | None,
    missing: NDArray[np.float32] | None,
    labelled: NDArray[np.float32] | None,
) -> Known:
    """Combine the maps; see :class:`Truth`."""
    if labelled is None:
        labelled = np.ones_like(target) if background is None else target + background
    if missing is not None:
        with np.errstate(invalid="ignore"):  # infinity times 0 is NaN, which is not above 0
            labelled = labelled * missing
    known = labelled > 0
    if np.isnan(target.min()):  # a minimum is NaN where any value is
        unknown = np.isnan(target)
        target = np.where(unknown, np.float32(0), target)
        known = known & ~unknown
    if known.shape != target.shape:  # one map for all channels of the target
        known = np.repeat(known, target.shape[-3], axis=-3)
    return target, known


def _blocks(shape: tuple[int, int]) -> Iterator[Tile]:
    height, width = BLOCK
    for top in range(0, shape[0], height):
        for left in range(0, shape[1], width):
            yield Tile(top, left, min(height, shape[0] - top), min(width, shape[1] - left))


def _tiles_from(
    starts: NDArray[np.int64], size: int, begin: int, end: int
) -> tuple[slice, NDArray[np.int64], NDArray[np.int64]]:
    """The tiles that begin in a range, and where they begin and end relative to it."""
    first, last = np.searchsorted(starts, (begin, end))
    begins = starts[first:last] - begin
    return slice(first, last), begins, begins + size


def _parts(
    edges: NDArray[np.int64], begin: int, end: int
) -> tuple[slice, NDArray[np.int64], NDArray[np.int64]]:
    """The areas that a range touches, and where they begin and end within it."""
    first = int(np.searchsorted(edges, begin, side="right")) - 1
    last = int(np.searchsorted(edges, end))
    cut = np.clip(edges[first : last + 1], begin, end) - begin
    return slice(first, last), cut[:-1], cut[1:]
