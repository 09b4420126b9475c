"""Areas of an image and their folds.

The image is divided into areas, each area belongs to one fold, and each tile lies inside one area:
tiles of two folds never share a pixel, however much tiles of one fold overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.tiling.grid import Lattice, starts

CELLS = 1 << 22  # of the image, that shared_pixel holds in memory at a time


@dataclass(frozen=True, slots=True, eq=False)
class Areas:
    """A partition of the image into rows and columns of areas.

    Attributes:
        row_edges: Where the rows of areas begin, and the height of the image, `(R + 1,)`.
        column_edges: The same for columns, `(K + 1,)`.
        buffer: Minimum distance between tiles of two areas, px.
    """

    row_edges: NDArray[np.int64]
    column_edges: NDArray[np.int64]
    buffer: int = 0

    @classmethod
    def cut(cls, shape: tuple[int, int], *, size: int | None, buffer: int = 0) -> Self:
        """Divide an image into as many areas of at least `size` px per side as fit.

        Their sides differ by at most 1 px. If `size` is None or the image is smaller, the whole
        side is one area.

        >>> Areas.cut((70, 200), size=64).column_edges.tolist()
        [0, 66, 133, 200]
        """
        if size is not None and size < 1:
            raise ConfigError(f"area_size must be at least 1 px, not {size}")
        if buffer < 0:
            raise ConfigError(f"buffer must be at least 0 px, not {buffer}")
        return cls(_edges(shape[0], size), _edges(shape[1], size), buffer)

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of rows and columns of areas."""
        return len(self.row_edges) - 1, len(self.column_edges) - 1

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the image, px."""
        return int(self.row_edges[-1]), int(self.column_edges[-1])

    def lattice(self, size: int, stride: int) -> Lattice:
        """The tiles of all areas, each inside one area.

        An area is shrunk by half the buffer on each side that faces another area (the smaller half
        above and left, the larger half below and right).
        """
        height, width = self.image_shape
        if size > min(height, width):
            raise DataError(f"a tile of {size} px does not fit an image of {height} x {width} px")
        tops = _starts_in(self.row_edges, size, stride, self.buffer)
        lefts = _starts_in(self.column_edges, size, stride, self.buffer)
        return Lattice(tops, lefts, size)

    def spread(
        self,
        values: NDArray[Any],
        rows: NDArray[np.int64],
        columns: NDArray[np.int64],
    ) -> NDArray[Any]:
        """The value of the area, of `(R, K)` values, that each pixel of a grid lies in."""
        row = np.searchsorted(self.row_edges, rows, side="right") - 1
        column = np.searchsorted(self.column_edges, columns, side="right") - 1
        return values[np.ix_(row, column)]

    def of(self, lattice: Lattice) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The row of areas of each row of tiles, and the same for columns."""
        return (
            np.searchsorted(self.row_edges, lattice.tops, side="right") - 1,
            np.searchsorted(self.column_edges, lattice.lefts, side="right") - 1,
        )


def assign_folds(weights: NDArray[np.number], *, num_folds: int, seed: int = 0) -> NDArray[np.intp]:
    """Assign areas to folds of about equal weight.

    Greedy: areas in order of decreasing weight, each to the fold with the least of what the area
    contains. Areas of weight 0 are assigned in turn.

    Args:
        weights: What each area contains, `(A, K)`, such as labelled and positive pixels; the
            columns are equally important.
        num_folds: Number of folds.
        seed: Decides between areas of equal weight.

    Returns:
        The fold of each area, `(A,)`, from 0 to `num_folds`.

    >>> weights = np.array([[9, 1], [5, 1], [4, 0], [1, 1], [0, 0], [0, 0]])
    >>> folds = assign_folds(weights, num_folds=2)
    >>> sorted(weights[folds == fold].sum(axis=0).tolist() for fold in (0, 1))
    [[9, 1], [10, 2]]
    """
    if num_folds < 1:
        raise ConfigError(f"num_folds must be at least 1, not {num_folds}")
    if len(weights) < num_folds:
        raise DataError(
            f"{num_folds} folds need at least {num_folds} areas, the image has "
            f"{len(weights)}: use a smaller area_size or fewer folds"
        )
    totals = weights.sum(axis=0)
    shares = weights / np.where(totals > 0, totals, 1)
    num_filled = int(np.count_nonzero(shares.any(axis=1)))
    order = np.random.default_rng(seed).permutation(len(weights))
    order = order[np.argsort(-shares[order].sum(axis=1), kind="stable")]
    # the number of areas has a small weight too, so that an empty fold always comes first
    shares = np.column_stack((shares, np.full(len(shares), 0.01 / len(shares))))
    folds = np.empty(len(weights), dtype=np.intp)
    loads = np.zeros((num_folds, shares.shape[1]))
    for area in order[:num_filled]:
        # least growth of the sum of squared loads, which is minimal for equal folds
        fold = np.argmin(loads @ shares[area])
        folds[area] = fold
        loads[fold] += shares[area]
    # folds with few areas come first, so that none stays empty
    sizes = np.bincount(folds[order[:num_filled]], minlength=num_folds)
    turn = np.argsort(sizes, kind="stable")
    folds[order[num_filled:]] = turn[np.arange(len(order) - num_filled) % num_folds]
    return folds


def areas_meet(
    first: Areas, first_used: NDArray[np.bool_], second: Areas, second_used: NDArray[np.bool_]
) -> bool:
    """Whether two choices of areas of one image, `(R, K)` each, share a pixel.

    Where they do not, tiles inside them share none either, however many there are.

    >>> halves, thirds = Areas.cut((6, 6), size=3), Areas.cut((6, 6), size=2)
    >>> left = np.array([[True, False], [False, False]])
    >>> last = np.eye(3, dtype=bool)
    >>> areas_meet(halves, left, thirds, last), areas_meet(halves, ~left, halves, left)
    (True, False)
    """
    rows = np.union1d(first.row_edges, second.row_edges)[:-1]
    columns = np.union1d(first.column_edges, second.column_edges)[:-1]
    both = first.spread(first_used, rows, columns) & second.spread(second_used, rows, columns)
    return bool(both.any())


def shared_pixel(
    first: NDArray[np.int64], first_size: int, second: NDArray[np.int64], second_size: int
) -> tuple[int, int] | None:
    """The row and column of a pixel in a tile of both sets, or None.

    Each set has top left corners, `(N, 2)`, and a side, px. Exact, in constant memory: the image is
    reduced to the rows and columns at which tiles begin or end, and scanned in bands.

    >>> shared_pixel(np.array([[0, 0]]), 8, np.array([[4, 7], [8, 8]]), 8)
    (4, 7)
    """
    breaks = np.concatenate((first, first + first_size, second, second + second_size))
    rows, columns = np.unique(breaks[:, 0]), np.unique(breaks[:, 1])  # where tiles begin or end
    height = max(1, CELLS // max(1, len(columns)))
    for begin in range(0, len(rows), height):
        band = rows[begin : begin + height]
        both = _covered(first, first_size, band, columns)
        both &= _covered(second, second_size, band, columns)
        if both.any():
            row, column = np.unravel_index(int(both.argmax()), both.shape)
            return int(band[row]), int(columns[column])
    return None


def _edges(extent: int, size: int | None) -> NDArray[np.int64]:
    parts = 1 if size is None else max(1, extent // size)
    return np.arange(parts + 1, dtype=np.int64) * extent // parts


def _starts_in(edges: NDArray[np.int64], size: int, stride: int, buffer: int) -> NDArray[np.int64]:
    begins, ends = edges[:-1].copy(), edges[1:].copy()
    begins[1:] += buffer // 2
    ends[:-1] -= buffer - buffer // 2
    room = int((ends - begins).min())
    if room < size:
        raise ConfigError(
            f"a tile of {size} px does not fit areas of {int(np.diff(edges).min())} px with a "
            f"buffer of {buffer} px: use an area_size of at least {size + buffer}"
        )
    areas = zip(begins, ends, strict=True)
    return np.concatenate([begin + starts(end - begin, size, stride) for begin, end in areas])


def _covered(
    corners: NDArray[np.int64], size: int, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which cells of a band lie in a tile, by a two-dimensional difference array."""
    near = (corners[:, 0] <= rows[-1]) & (corners[:, 0] + size > rows[0])
    tops, lefts = corners[near].T
    top = np.searchsorted(rows, tops)
    bottom = np.searchsorted(rows, tops + size)
    left = np.searchsorted(columns, lefts)
    right = np.searchsorted(columns, lefts + size)
    change = np.zeros((len(rows) + 1, len(columns) + 1), dtype=np.int32)
    np.add.at(change, (top, left), 1)
    np.add.at(change, (bottom, right), 1)
    np.add.at(change, (top, right), -1)
    np.add.at(change, (bottom, left), -1)
    covered: NDArray[np.bool_] = change.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0
    return covered
