"""Where the truth of an image is known, and what it is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.base.labelled import known_where
from lis2_lightning.data.legend import Legend
from lis2_lightning.data.open_raster import Raster, Source, open_raster
from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.tiling import Tile

Known = tuple[NDArray[np.float32], NDArray[np.bool_]]
STRIP = 32  # rows


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
        weight: Source | None = None,
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
        self.weight = None if weight is None else open_raster(weight)
        for raster in (self.target, *self._others, self.weight):
            if raster is not None:
                _check_shape(raster, image, self.target)

    @property
    def rasters(self) -> list[Raster | None]:
        """The image, the target, and the other maps."""
        return [self.image, self.target, *self._others, self.weight]

    @property
    def missing(self) -> Raster | None:
        """The map that is 0 where data are missing."""
        return self._others[1]

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
        return self._checked(tile, *self._read_maps(tile))

    def read_classes(self, tile: Tile) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which pixels are labelled, and which of them positive, `(C, h, w)` each.

        As :meth:`read_labels`, of which some rows are made at a time, which stay in the caches of
        the processor.
        """
        target, *others = self._read_maps(tile)
        labelled, positive = (np.empty(target.shape, np.bool_) for _ in range(2))
        for begin in range(0, tile.height, STRIP):
            rows = np.s_[:, begin : begin + STRIP]
            values = target[rows]
            strip = Tile(tile.top + begin, tile.left, values.shape[1], tile.width)
            parts = (None if other is None else other[rows] for other in others)
            try:
                known, labelled[rows] = self._checked(strip, values, *parts)
            except DataError:
                self._checked(tile, target, *others)  # the sentence on all values of the tile
                raise
            np.logical_and(labelled[rows], known > 0, out=positive[rows])
        return labelled, positive

    def _read_maps(self, tile: Tile) -> list[Any]:
        """The target, and each of the other maps or null."""
        return [r if r is None else r.read(tile) for r in (self.target, *self._others)]

    def _checked(
        self, tile: Tile, target: NDArray[np.float32], *others: NDArray[np.float32] | None
    ) -> Known:
        self.legend.check(target, self.target.source, tile)
        for values, raster in zip(others, self._others, strict=True):
            if values is not None and raster is not None:
                known_where(values, raster.source)  # which refuses anything but 0 and 1
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
        if self.missing is None:
            return None
        values = self.missing.read_many(tops, lefts, size)
        return np.logical_and.reduce(~(values > 0), axis=1, keepdims=True)

    def check_weights(self, tile: Tile, labelled: NDArray[np.bool_]) -> None:
        """Check that labelled pixels of a tile, ``(C, h, w)``, have weights of at least 0.

        Raises:
            DataError: One is negative, NaN or infinite.
        """
        if self.weight is None:
            return
        values = self.weight.read(tile)
        wrong = labelled & ~((values >= 0) & (values < np.inf))
        if wrong.any():
            values = np.broadcast_to(values, wrong.shape)
            channel, row, column = np.unravel_index(int(wrong.argmax()), wrong.shape)
            raise DataError(
                f"{self.weight.source} holds {values[channel, row, column]:g} at the labelled "
                f"pixel of row {tile.top + row}, column {tile.left + column}: a weight must be a "
                "finite number of at least 0"
            )

    def read_weights(
        self, tops: NDArray[np.int64], lefts: NDArray[np.int64], size: int
    ) -> NDArray[np.float32] | None:
        """The weights of many squares, as many channels as the target; null where it has none."""
        if self.weight is None:
            return None
        values = self.weight.read_many(tops, lefts, size)
        return np.repeat(values, self.target.shape[0] // values.shape[1], axis=1)


def has_data(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which pixels of `(..., C, h, w)` are finite numbers in all channels, `(..., 1, h, w)`."""
    return np.logical_and.reduce(np.isfinite(image), axis=-3, keepdims=True)


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
    if labelled is None and background is not None:
        labelled = target + background
    if labelled is None:
        known = np.ones(target.shape, np.bool_) if missing is None else missing > 0
    elif missing is None:
        known = labelled > 0
    else:
        with np.errstate(invalid="ignore"):  # infinity times 0 is NaN, which is not above 0
            known = labelled * missing > 0
    if np.isnan(target.min()):  # a minimum is NaN where any value is
        unknown = np.isnan(target)
        target = np.where(unknown, np.float32(0), target)
        known = known & ~unknown
    if known.shape != target.shape:  # one map for all channels of the target
        known = np.repeat(known, target.shape[-3], axis=-3)
    return target, known
