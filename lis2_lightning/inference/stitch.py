"""Stitching: the maps of overlapping tiles become one map of the large image."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lis2_lightning.errors import DataError

# The minimum weight along an axis: a pixel at the image's border, which only one tile covers, must
# not be divided by a rounding error.
_FLOOR: Final = 1e-3
_TOGETHER: Final = 256  # tiles weighted at once
_STRIP: Final = 256  # rows divided at once


class Stitcher:
    """Averages tiles of `channels` maps over an image of `shape`, in any order.

    A tile's pixels have Hann weights, sin² along each axis: they decrease towards its border, where
    a network has the least context, which removes seams. Sums per pixel and channel and weights per
    pixel are kept in float64, `8 (channels + 1)` bytes per pixel, and divided once. In float64,
    equal values are returned unchanged and the order of the tiles does not affect the float32
    result, even for thousands of tiles per pixel.
    """

    def __init__(self, shape: tuple[int, int], channels: int = 1) -> None:
        self.shape = shape
        self.channels = channels
        # the last channel holds the weights; sums of several processes can be added
        self.sums = np.zeros((channels + 1, *shape))

    def add(self, corners: NDArray[np.integer], probabilities: Tensor | NDArray[Any]) -> None:
        """Add tiles, at first rows and columns `(N, 2)`, px.

        The maps, `(N, C, h, w)`, are on any device and of any floating type; a NaN makes the pixel
        NaN.

        Raises:
            DataError: The shapes do not match, or a tile crosses the image's border; no tile of
                the call is added.
        """
        maps = _as_array(probabilities)
        places = np.asarray(corners)
        self._check(places, maps)
        window = _window(maps.shape[2], maps.shape[3])
        height, width = window.shape
        for some in _slices(len(maps), _TOGETHER):
            weighted = np.empty((len(maps[some]), self.channels + 1, height, width))
            np.multiply(maps[some], window, out=weighted[:, :-1])
            weighted[:, -1] = window
            # slices are faster than np.add.at, and need no array of indices
            for (top, left), tile in zip(places[some].tolist(), weighted, strict=True):
                self.sums[:, top : top + height, left : left + width] += tile

    def result(self) -> NDArray[np.float32]:
        """The map of the image so far, `(C, H, W)`; NaN without tiles."""
        stitched = np.empty((self.channels, *self.shape), dtype=np.float32)
        # strip by strip: the whole quotient in float64 would double the memory
        for rows in _slices(self.shape[0], _STRIP):
            weights = self.sums[-1, rows]
            covered = np.where(weights > 0, weights, np.nan)
            stitched[:, rows] = self.sums[:-1, rows] / covered
        return stitched

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
        passes = (places < 0) | (places + maps.shape[2:] > self.shape)
        if passes.any():
            top, left = places[passes.any(axis=1)][0].tolist()
            raise DataError(
                f"a tile of {maps.shape[2]} x {maps.shape[3]} px at row {top}, column {left} "
                f"crosses the border of an image of {self.shape[0]} x {self.shape[1]} px"
            )


def _as_array(probabilities: Tensor | NDArray[Any]) -> NDArray[Any]:
    if isinstance(probabilities, Tensor):
        tensor = probabilities.detach()
        if tensor.dtype == torch.bfloat16:  # which NumPy does not have
            tensor = tensor.float()
        probabilities = tensor.cpu().numpy()
    return np.asarray(probabilities)


@lru_cache(maxsize=8)
def _window(height: int, width: int) -> NDArray[np.float64]:
    """The weights of a tile's pixels, `(h, w)`, above 0.

    Hann's window is evaluated at the pixels' centres, so that windows overlapping by half sum to 1.
    """
    rows, columns = (
        np.maximum(np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2, _FLOOR)
        for side in (height, width)
    )
    return np.outer(rows, columns)


def _slices(length: int, step: int) -> Iterator[slice]:
    return (slice(first, first + step) for first in range(0, length, step))
