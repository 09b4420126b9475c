"""Tiles: squares and rectangles of a large image, in whole pixels.

Rows come before columns and ranges are half-open, as in NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Tile:
    """A rectangle of the large image: first row and column, number of rows and columns, px.

    >>> tile = Tile(top=2, left=3, height=4, width=5)
    >>> tile.bottom, tile.right
    (6, 8)
    >>> np.zeros((10, 10))[tile.rows, tile.columns].shape
    (4, 5)
    """

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """The first row below the tile."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """The first column to the right of the tile."""
        return self.left + self.width

    @property
    def rows(self) -> slice:
        """The rows as a slice."""
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        """The columns as a slice."""
        return slice(self.left, self.right)


def starts(extent: int, size: int, stride: int) -> NDArray[np.int64]:
    """The first pixels of the tiles along an axis of at least `size` px, increasing.

    The last tile is moved back to the end of the axis, so that none is cut short and, for a stride
    of at most `size`, every pixel is in a tile.

    >>> starts(10, size=4, stride=3).tolist()
    [0, 3, 6]
    >>> starts(11, size=4, stride=3).tolist()
    [0, 3, 6, 7]
    """
    for name, value in (("size", size), ("stride", stride)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1 px, not {value}")
    last = extent - size
    regular = np.arange(0, last + 1, stride, dtype=np.int64)
    return regular if regular[-1] == last else np.append(regular, np.int64(last))


@dataclass(frozen=True, slots=True, eq=False)
class Lattice:
    """All combinations of first rows, `(R,)`, and first columns, `(K,)`, in reading order.

    `tops` and `lefts` increase; `size` is the side of every tile, px.
    """

    tops: NDArray[np.int64]
    lefts: NDArray[np.int64]
    size: int

    def __len__(self) -> int:
        """The number of tiles."""
        return len(self.tops) * len(self.lefts)

    def corners(self, indices: NDArray[np.integer] | None = None) -> NDArray[np.int64]:
        """The top left corners, `(N, 2)`, row before column, of the tiles with these indices.

        >>> Lattice(np.array([0, 8]), np.array([0, 4, 8]), size=8).corners(np.array([4])).tolist()
        [[8, 4]]
        """
        if indices is None:
            indices = np.arange(len(self), dtype=np.int64)
        rows, columns = np.divmod(indices, len(self.lefts))
        return np.stack((self.tops[rows], self.lefts[columns]), axis=-1)
