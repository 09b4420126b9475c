"""Where the truth is known in an image, what it is, and how much of it lies where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data.open_raster import Raster
from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.tiling import Areas, Lattice, Tile

BLOCK = (256, 2048)
"""Height and width in px of what is read at a time when maps are scanned."""

Known = tuple[NDArray[np.float32], NDArray[np.bool_]]


class Truth:
    """The maps that say what is known.

    A pixel is labelled where (target + background) × missing > 0, as in LIS², or, where a map
    `labelled` is given, where labelled × missing > 0; without either map, wherever it is not
    missing. A pixel whose target is NaN is never labelled.

    Args:
        image: The image that all this is about; only its name and shape are used.
        target: 1 on objects, else 0; NaN where that is unknown.
        background: 1 on pixels known to be no object.
        missing: 1 where the image is valid, 0 where data are missing.
        labelled: 1 where the target is known.

    Raises:
        ConfigError: Both `background` and `labelled` are given.
        DataError: A map has another height or width than the image, or channels that do not fit
            those of the target.
    """

    def __init__(
        self,
        image: Raster,
        *,
        target: Raster,
        background: Raster | None = None,
        missing: Raster | None = None,
        labelled: Raster | None = None,
    ) -> None:
        if background is not None and labelled is not None:
            raise ConfigError(
                "background and labelled both say which pixels are labelled: give one of them"
            )
        self.target = target
        self.background = background
        self.missing = missing
        self.labelled = labelled
        for raster in (target, background, missing, labelled):
            if raster is not None:
                _check_shape(raster, image, target)

    def read(self, tile: Tile) -> Known:
        """Read a rectangle.

        Returns:
            The target, 0 where it is unknown, and whether a pixel is labelled, `(C, h, w)` each.

        Raises:
            DataError: The target holds something other than 0, 1 and NaN.
        """
        target = self.target.read(tile)
        wrong = (target != 0) & (target != 1) & (target == target)  # noqa: PLR0124 - NaN differs
        if wrong.any():
            channel, row, column = np.unravel_index(int(wrong.argmax()), wrong.shape)
            raise DataError(
                f"{self.target.source} holds {target[channel, row, column]:g} at row "
                f"{tile.top + row}, column {tile.left + column}: a target is 0 or 1, "
                f"or NaN where it is unknown"
            )
        return _known(
            target,
            _read(self.background, tile),
            _read(self.missing, tile),
            _read(self.labelled, tile),
        )

    def read_many(self, tops: NDArray[np.int64], lefts: NDArray[np.int64], size: int) -> Known:
        """Read many squares, `(N, C, size, size)` each; like :meth:`read`, values unchecked."""

        def squares(raster: Raster | None) -> NDArray[np.float32] | None:
            return None if raster is None else raster.read_many(tops, lefts, size)

        return _known(
            self.target.read_many(tops, lefts, size),
            squares(self.background),
            squares(self.missing),
            squares(self.labelled),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Census:
    """How much is labelled.

    Attributes:
        tiles: Whether each tile of a lattice has a labelled pixel, `(rows, columns)` of tiles.
        areas: Labelled pixels, and those of them that are positive, `(rows, columns, 2)` of areas.
    """

    tiles: NDArray[np.bool_]
    areas: NDArray[np.int64]


def count(truth: Truth, areas: Areas, lattice: Lattice) -> Census:
    """Go through all maps once, block by block, so that memory does not grow with the image.

    Args:
        truth: The maps.
        areas: For which areas to count pixels.
        lattice: Which tiles to look for a labelled pixel in.

    Raises:
        DataError: The target holds something other than 0, 1 and NaN.
    """
    census = Census(
        np.zeros((len(lattice.tops), len(lattice.lefts)), dtype=np.bool_),
        np.zeros((*areas.shape, 2), dtype=np.int64),
    )
    for block in _blocks(areas.image_shape):
        # a tile belongs to the block of its first pixel, and what it needs beyond is read too
        rows, tops, bottoms = _tiles_from(lattice.tops, lattice.size, block.top, block.bottom)
        columns, lefts, rights = _tiles_from(lattice.lefts, lattice.size, block.left, block.right)
        height, width = max([block.height, *bottoms[-1:]]), max([block.width, *rights[-1:]])
        target, labelled = truth.read(Tile(block.top, block.left, int(height), int(width)))
        area_rows, begins, ends = _parts(areas.row_edges, block.top, block.bottom)
        area_columns, firsts, lasts = _parts(areas.column_edges, block.left, block.right)
        breaks = np.unique(np.concatenate(([0], tops, bottoms, begins, ends)))
        known = _Counts(labelled, breaks)
        census.tiles[rows, columns] = known.between(tops, bottoms, lefts, rights) > 0
        for number, counts in enumerate((known, _Counts(labelled & (target > 0), breaks))):
            here = counts.between(begins, ends, firsts, lasts)
            census.areas[area_rows, area_columns, number] += here
    return census


class _Counts:
    """How many pixels are true in rectangles that begin and end at some of the rows.

    A table of sums ("integral image": Crow, "Summed-area tables for texture mapping", SIGGRAPH
    1984), kept for these rows alone: making it for all of them would take five times as long.

    Args:
        pixels: Truth values, `(C, h, w)`; channels are added.
        breaks: Increasing rows, the first of them 0.
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
        """Count in all rectangles between the R given rows and the K given columns, `(R, K)`."""
        above, below = (np.searchsorted(self._breaks, rows) for rows in (tops, bottoms))
        strips = self._table[below] - self._table[above]
        inside: NDArray[np.int64] = strips[:, rights] - strips[:, lefts]
        return inside


def _check_shape(raster: Raster, image: Raster, target: Raster) -> None:
    """Refuse maps that do not lie over one another."""
    if raster.shape[1:] != image.shape[1:]:
        raise DataError(
            f"{raster.source} is {raster.shape[1]} x {raster.shape[2]} px and {image.source} "
            f"{image.shape[1]} x {image.shape[2]} px: all maps must have the shape of the image"
        )
    if raster.shape[0] not in {1, target.shape[0]}:
        raise DataError(
            f"{raster.source} has {raster.shape[0]} channels where the target {target.source} has "
            f"{target.shape[0]}: give a map of one channel, or of as many as the target"
        )


def _read(raster: Raster | None, tile: Tile) -> NDArray[np.float32] | None:
    """Read a map where there is one."""
    return None if raster is None else raster.read(tile)


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
    """Cut an image into blocks that fit into memory, whatever its size."""
    height, width = BLOCK
    for top in range(0, shape[0], height):
        for left in range(0, shape[1], width):
            yield Tile(top, left, min(height, shape[0] - top), min(width, shape[1] - left))


def _tiles_from(
    starts: NDArray[np.int64], size: int, begin: int, end: int
) -> tuple[slice, NDArray[np.int64], NDArray[np.int64]]:
    """Select the tiles that begin in a range; where they begin and end, from the range's begin."""
    first, last = np.searchsorted(starts, (begin, end))
    found = starts[first:last] - begin
    return slice(first, last), found, found + size


def _parts(
    edges: NDArray[np.int64], begin: int, end: int
) -> tuple[slice, NDArray[np.int64], NDArray[np.int64]]:
    """Select the areas that a range touches; where they begin and end within the range."""
    first = int(np.searchsorted(edges, begin, side="right")) - 1
    last = int(np.searchsorted(edges, end))
    cut = np.clip(edges[first : last + 1], begin, end) - begin
    return slice(first, last), cut[:-1], cut[1:]
