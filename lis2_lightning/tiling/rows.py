"""Stitching of overlapping tiles that come from the top of an image to its bottom."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.errors import DataError

Band = tuple[int, NDArray[np.float32]]
"""Rows of a map of which nothing changes any more: the first row, and values ``(C, rows, W)``."""
Blend = Literal["hann", "mean"]
"""How overlapping tiles are averaged: with weights that fall towards their borders, or equally."""

# The minimum weight along an axis: a pixel at the image's border, which only one tile covers, must
# not be divided by a rounding error.
_FLOOR: Final = 1e-3


class RowStitcher:
    """Averages tiles of maps, and gives away each row as soon as no later tile can reach it.

    Tiles come in the order of their tops; any of them may be missing. Only the rows from the last
    top to the lowest bottom are held: ``8 (channels + 1)`` bytes for each of their pixels.

    With ``hann``, a pixel weighs sin² of its place along each axis: a network has the least context
    at a tile's border, and a plain mean leaves seams there. Sums are float64: equal values come
    back unchanged, and a pixel's value does not depend on how its tiles are dealt to batches.

    Args:
        width: Width of the image, px.
        channels: Maps of each tile.
        blend: The weights of a tile's pixels.
        top: The first row that is given away, px; no tile begins above it.

    >>> stitcher = RowStitcher(width=3, channels=1, blend="mean")
    >>> stitcher.add(np.array([[0, 0], [1, 1]]), np.array([[[[1.0, 1.0]]], [[[5.0, 5.0]]]]))
    [(0, array([[[ 1.,  1., nan]]], dtype=float32))]
    >>> stitcher.finish(2)
    [(1, array([[[nan,  5.,  5.]]], dtype=float32))]
    """

    def __init__(self, width: int, *, channels: int, blend: Blend = "hann", top: int = 0) -> None:
        self.width = width
        self.channels = channels
        self.blend: Blend = blend
        self._top = top  # of the first open row
        self._sums = np.zeros((channels, 0, width))
        self._weights = np.zeros((0, width))

    def add(self, corners: NDArray[np.integer], probabilities: NDArray[Any]) -> list[Band]:
        """Add tiles, and return the rows that they finish, from top to bottom.

        Args:
            corners: First row and column of each tile, ``(N, 2)``, px; no row is above that of the
                tile before.
            probabilities: Their maps, ``(N, C, h, w)``, of any floating type. A NaN makes its pixel
                NaN.

        Returns:
            The finished rows, NaN where no tile covers a pixel.

        Raises:
            DataError: The shapes do not match, a tile crosses the sides of the image, or the tiles
                are not in order; none of them is added.
        """
        maps, places = np.asarray(probabilities), np.asarray(corners)
        self._check(places, maps)
        bands: list[Band] = []
        changes = np.flatnonzero(np.diff(places[:, 0])) + 1
        for lefts, tiles, tops in zip(
            np.split(places[:, 1], changes),
            np.split(maps, changes),
            np.split(places[:, 0], changes),
            strict=True,
        ):
            if len(tiles):
                bands += self.finish(int(tops[0]))
                self._add_row(lefts, tiles)
        return bands

    def finish(self, bottom: int) -> list[Band]:
        """Return the open rows above ``bottom``: no later tile begins there."""
        num = min(bottom - self._top, len(self._weights))
        bands = [(self._top, self._mean(num))] if num > 0 else []
        num_empty = bottom - self._top - num
        if num_empty > 0:  # rows that no tile has reached, which take no memory
            shape = (self.channels, num_empty, self.width)
            bands.append((self._top + num, np.broadcast_to(np.float32(np.nan), shape)))
        for held in (*self._sums, self._weights):  # the others move up, in place
            held[: len(held) - num] = held[num:]
            held[len(held) - num :] = 0
        self._top = bottom
        return bands

    def _mean(self, num: int) -> NDArray[np.float32]:
        """The first open rows."""
        mean = np.empty((self.channels, num, self.width), dtype=np.float32)
        with np.errstate(invalid="ignore"):  # no tile: 0 / 0 is NaN, as it should be
            np.divide(self._sums[:, :num], self._weights[:num], out=mean, casting="same_kind")
        return mean

    def _add_row(self, lefts: NDArray[np.integer], maps: NDArray[Any]) -> None:
        """Add tiles that begin at the first open row."""
        height, width = maps.shape[2:]
        if height > len(self._weights):
            self._sums = _grown(self._sums, height)
            self._weights = _grown(self._weights, height)
        rows, columns = _weights(height, self.blend), _weights(width, self.blend)
        window, weighted = np.outer(rows, columns), np.empty(maps.shape[1:])
        along = np.zeros(self.width)
        for left, tile in zip(lefts.tolist(), maps, strict=True):
            np.multiply(tile, window, out=weighted)
            self._sums[:, :height, left : left + width] += weighted
            along[left : left + width] += columns
        # the sum of the weights over tiles of one top is a product, as each of them is
        touched = slice(lefts.min(), lefts.max() + width)
        for weight, held in zip(rows, self._weights, strict=False):
            held[touched] += weight * along[touched]

    def _check(self, places: NDArray[Any], maps: NDArray[Any]) -> None:
        if maps.ndim != 4 or maps.shape[1] != self.channels:
            raise DataError(
                f"tiles to stitch must have shape (N, {self.channels}, h, w), not {maps.shape}"
            )
        if places.shape != (len(maps), 2) or not np.issubdtype(places.dtype, np.integer):
            raise DataError(
                f"corners of {len(maps)} tiles must be integers of shape ({len(maps)}, 2), not "
                f"{places.dtype} of shape {places.shape}"
            )
        tops, lefts = places.T
        if (np.diff(tops, prepend=self._top) < 0).any():
            raise DataError("tiles to stitch must come in the order of their first rows")
        if ((lefts < 0) | (lefts + maps.shape[3] > self.width)).any():
            raise DataError(
                f"a tile of {maps.shape[2]} x {maps.shape[3]} px crosses the sides of an image "
                f"that is {self.width} px wide"
            )


def _grown(held: NDArray[np.float64], num_rows: int) -> NDArray[np.float64]:
    """Rows, ``(..., rows, W)``, with zeros below them."""
    grown = np.zeros((*held.shape[:-2], num_rows, held.shape[-1]))
    grown[..., : held.shape[-2], :] = held
    return grown


@lru_cache(maxsize=8)
def _weights(side: int, blend: Blend) -> NDArray[np.float64]:
    """The weights along one axis of a tile, above 0.

    Hann's window is evaluated at the pixels' centres, so that windows overlapping by half sum to 1.
    """
    if blend == "mean":
        return np.ones(side)
    places = np.pi * (np.arange(side) + 0.5) / side
    hann: NDArray[np.float64] = np.maximum(np.sin(places) ** 2, _FLOOR)
    return hann
