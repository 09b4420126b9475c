"""Stitching: the maps of overlapping tiles put back into one map of the large image."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lis2_lightning.errors import ConfigError, DataError

# The least weight along an axis: far below the inside of a tile, yet a pixel at the image's border,
# which no other tile covers, is divided by a number that is no rounding error.
_FLOOR: Final = 1e-3
_TOGETHER: Final = 256  # tiles weighted at once
_STRIP: Final = 256  # rows divided at once


class Stitcher:
    """Takes tiles in any order and averages them where they overlap.

    It keeps one sum for each pixel and channel and one weight for each pixel, in float64, and
    divides once: memory is `8 (channels + 1)` bytes a pixel, however many tiles come. In float64
    equal values come back as they were and no order of the tiles can be seen in the float32
    result; in float32 the thousand tiles that share a pixel at a stride of 1 px could.

    Args:
        shape: Height and width of the image, px.
        channels: Channels of the tiles' maps, `C`.
        blend: How tiles are weighted where they overlap: all pixels alike (`mean`), or less and
            less towards a tile's border (`hann`, the window sin² along each axis), where a network
            sees least of the surroundings; seams vanish.

    Raises:
        ConfigError: The blend is neither, or a number is below 1.

    >>> stitcher = Stitcher((2, 3), blend="mean")
    >>> stitcher.add(np.array([[0, 0], [0, 1]]), np.array([[[[0.0, 0.25]]], [[[0.75, 1.0]]]]))
    >>> stitcher.result().tolist()
    [[[0.0, 0.5, 1.0], [nan, nan, nan]]]
    """

    def __init__(
        self,
        shape: tuple[int, int],
        channels: int = 1,
        blend: Literal["mean", "hann"] = "hann",
    ) -> None:
        if blend not in {"mean", "hann"}:
            raise ConfigError(f"blend must be 'mean' or 'hann', not {blend!r}")
        if min(*shape, channels) < 1:
            raise ConfigError(
                f"height, width and channels of a stitched map must be at least 1, not {shape[0]}, "
                f"{shape[1]} and {channels}"
            )
        self.shape = shape
        self.channels = channels
        self.blend = blend
        # the last channel is that of the weights; the sums of several processes may be added up
        self.sums = np.zeros((channels + 1, *shape))

    def add(self, corners: NDArray[np.integer], probabilities: Tensor | NDArray[Any]) -> None:
        """Take in tiles.

        Args:
            corners: Their first rows and columns, `(N, 2)`, px.
            probabilities: Their maps, `(N, C, h, w)`, on any device and of any floating type; a
                NaN makes the pixel NaN. Other calls may bring tiles of other sizes.

        Raises:
            DataError: The shapes do not fit each other, or a tile passes the image's border. No
                tile of the call is taken in then.
        """
        maps = _as_array(probabilities)
        places = np.asarray(corners)
        self._check(places, maps)
        window = _window(maps.shape[2], maps.shape[3], self.blend)
        height, width = window.shape
        for some in _slices(len(maps), _TOGETHER):
            weighted = np.empty((len(maps[some]), self.channels + 1, height, width))
            np.multiply(maps[some], window, out=weighted[:, :-1])
            weighted[:, -1] = window
            # slices beat one scattered sum (np.add.at), and need no array of indices
            for (top, left), tile in zip(places[some].tolist(), weighted, strict=True):
                self.sums[:, top : top + height, left : left + width] += tile

    def result(self) -> NDArray[np.float32]:
        """Divide sums by weights.

        Returns:
            The map of the image, `(C, H, W)`; NaN where no tile came. More tiles may follow.
        """
        stitched = np.empty((self.channels, *self.shape), dtype=np.float32)
        # strip by strip, or the quotient in float64 would double the memory
        for rows in _slices(self.shape[0], _STRIP):
            weights = self.sums[-1, rows]
            covered = np.where(weights > 0, weights, np.nan)
            stitched[:, rows] = self.sums[:-1, rows] / covered
        return stitched

    def _check(self, places: NDArray[Any], maps: NDArray[Any]) -> None:
        """Refuse tiles that do not fit, before any of them is in the sums."""
        if maps.ndim != 4 or maps.shape[1] != self.channels:
            raise DataError(
                f"tiles to stitch must have the shape (N, {self.channels}, h, w), not {maps.shape}"
            )
        if places.shape != (len(maps), 2) or not np.issubdtype(places.dtype, np.integer):
            raise DataError(
                f"corners of {len(maps)} tiles must be whole numbers of the shape "
                f"({len(maps)}, 2), not {places.dtype} of the shape {places.shape}"
            )
        passes = (places < 0) | (places + maps.shape[2:] > self.shape)
        if passes.any():
            top, left = places[passes.any(axis=1)][0].tolist()
            raise DataError(
                f"a tile of {maps.shape[2]} x {maps.shape[3]} px at row {top}, column {left} "
                f"passes the border of an image of {self.shape[0]} x {self.shape[1]} px"
            )


def _as_array(probabilities: Tensor | NDArray[Any]) -> NDArray[Any]:
    """The maps as NumPy's, which knows no bfloat16."""
    if isinstance(probabilities, Tensor):
        tensor = probabilities.detach()
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.float()
        probabilities = tensor.cpu().numpy()
    return np.asarray(probabilities)


@lru_cache(maxsize=8)
def _window(height: int, width: int, blend: str) -> NDArray[np.float64]:
    """The weights of a tile's pixels, `(h, w)`, each above 0.

    Hann's window is taken between the pixels' borders, at their centres, so that windows which
    overlap by half add up to 1.
    """
    if blend == "mean":
        return np.ones((height, width))
    rows, columns = (
        np.maximum(np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2, _FLOOR)
        for side in (height, width)
    )
    return np.outer(rows, columns)


def _slices(length: int, step: int) -> Iterator[slice]:
    return (slice(first, first + step) for first in range(0, length, step))
