"""One image with its truth, cut into tiles on demand, and which of these are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data.census import Census
from lis2_lightning.data.normalize import Normalization, normalize
from lis2_lightning.data.open_raster import Raster
from lis2_lightning.data.truth import Truth, has_data
from lis2_lightning.tiling import Areas

Squares = tuple[NDArray[np.int64], NDArray[np.int64], int]
"""First rows, first columns and the side of tiles, px."""


class TiledImage:
    """The tiles of one image; all of them until :meth:`keep` has chosen some.

    An index of 4 bytes per kept tile (8 beyond 2**31 tiles) is all that is held in memory.

    Args:
        image: The image.
        truth: Its truth; no pixel is labelled without one.
        areas: How it is divided into areas; one area by default.
        size: Side of a tile, px.
        stride: Step from one tile to the next, px.

    Raises:
        DataError: A tile is larger than the image.
        ConfigError: A tile is larger than an area; size or stride is below 1.
    """

    num_without_data = 0
    """Pixels of the image that the maps label and that do not count: it has no data there."""
    has_positive = True
    """Whether a tile has a positive pixel; also true where there is no truth."""

    def __init__(
        self,
        image: Raster,
        truth: Truth | None = None,
        *,
        size: int,
        stride: int,
        areas: Areas | None = None,
    ) -> None:
        self.image = image
        self.truth = _nowhere(image) if truth is None else truth
        _, height, width = image.shape
        self.areas = Areas.cut((height, width), size=None) if areas is None else areas
        self.lattice = self.areas.lattice(size, stride)
        self.used = np.ones(self.areas.shape, dtype=np.bool_)  # the areas of the chosen folds
        self.fold_of_area = np.zeros(self.areas.shape, dtype=np.intp)
        self._index: NDArray[np.integer] | None = None
        self._positive: NDArray[np.uint8] | None = None  # a bit for each kept tile

    def __len__(self) -> int:
        """The number of tiles."""
        return len(self.lattice) if self._index is None else len(self._index)

    def corners(self, indices: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """First row and column of these tiles, or of all, px, `(N, 2)`."""
        if indices is None:
            indices = np.arange(len(self), dtype=np.int64)
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"tile indices range from 0 to {len(self) - 1}")
        return self.lattice.corners(indices if self._index is None else self._index[indices])

    def read(
        self, indices: NDArray[np.int64], normalization: Normalization
    ) -> dict[str, NDArray[np.generic]]:
        """Cut many tiles at once; what a sample of a data set of tiles holds, stacked."""
        corners, squares, values = self._cut(indices)
        target, labelled = self.truth.read_many(*squares)
        labelled &= has_data(values)
        weight = self.truth.read_weights(*squares)
        weights = {} if weight is None else {"weight": weight}
        shown = self._shown(corners, values, normalization)
        truth = {"target": target, "labelled": labelled, **weights}
        return {"patch": shown.pop("patch"), **truth, **shown}

    def read_unlabelled(
        self, indices: NDArray[np.int64], normalization: Normalization
    ) -> dict[str, NDArray[np.generic]]:
        """The same without truth, and `gaps` where there are no data, if there are any."""
        corners, squares, values = self._cut(indices)
        # a sum is finite only if every value is, and takes a third of the time
        with np.errstate(over="ignore", invalid="ignore"):
            gaps = np.zeros(1, np.bool_) if np.isfinite(values.sum()) else ~has_data(values)
        if (missing := self.truth.is_missing(*squares)) is not None:
            gaps = gaps | missing
        shown = self._shown(corners, values, normalization)
        return shown | ({"gaps": gaps} if gaps.any() else {})

    def _cut(
        self, indices: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], Squares, NDArray[np.float32]]:
        """Corners of tiles, the same as rasters take them, and the values of the image."""
        corners = self.corners(indices)
        tops, lefts = np.ascontiguousarray(corners.T)
        squares = tops, lefts, self.lattice.size
        return corners, squares, self.image.read_many(*squares)

    def _shown(
        self, corners: NDArray[np.int64], values: NDArray[np.float32], normalization: Normalization
    ) -> dict[str, NDArray[np.generic]]:
        """What a network is shown of tiles; the values are normalised in place."""
        positions = np.stack((corners, corners + self.lattice.size), axis=-1)[..., None]
        return {
            "patch": normalize(values, normalization),  # what is missing becomes 0
            "positions": positions.astype(np.float32),
            "corner": corners,
        }

    def keep(
        self,
        census: Census,
        of_area: NDArray[np.intp],
        folds: Sequence[int],
        *,
        keep_unlabelled: bool,
    ) -> NDArray[np.intp]:
        """Keep the tiles of some folds, by the fold of each area, `(rows, columns)`.

        Returns:
            How many of each fold are kept.
        """
        self.num_without_data = census.without_data
        self.fold_of_area = of_area
        self.used = np.isin(of_area, folds)
        sizes = np.zeros(max(folds) + 1, dtype=np.intp)
        self.has_positive = False
        for kept, positive, fold in self._rows(census, of_area, keep_unlabelled=keep_unlabelled):
            sizes += np.bincount(fold[kept], minlength=len(sizes))
            self.has_positive |= bool((kept & positive).any())
        kind = np.int32 if len(self.lattice) < 2**31 else np.int64
        # counted first, so that the index is never in memory twice
        self._index, begin, first = np.empty(sizes.sum(), dtype=kind), 0, 0
        is_positive = np.empty(sizes.sum(), dtype=np.bool_)
        for kept, positive, _ in self._rows(census, of_area, keep_unlabelled=keep_unlabelled):
            numbers = np.flatnonzero(kept)
            self._index[begin : begin + len(numbers)] = numbers + first
            is_positive[begin : begin + len(numbers)] = positive[kept]
            begin, first = begin + len(numbers), first + kept.size
        self._positive = np.packbits(is_positive)
        return sizes

    def with_positive(self) -> NDArray[np.bool_] | None:
        """Which kept tiles hold a positive pixel, `(N,)`; null where no truth was counted."""
        if self._positive is None:
            return None
        return np.unpackbits(self._positive, count=len(self)).view(np.bool_)

    def _rows(
        self, census: Census, of_area: NDArray[np.intp], *, keep_unlabelled: bool
    ) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.intp]]]:
        """Which tiles are kept and which have a positive pixel, and their folds, by rows."""
        rows, columns = self.areas.of(self.lattice)
        for part, labelled, positive in census.rows(len(self.lattice.lefts)):
            here = np.ix_(rows[part], columns)
            kept = self.used[here]
            yield kept if keep_unlabelled else kept & labelled, positive, of_area[here]


def _nowhere(image: Raster) -> Truth:
    nothing = np.broadcast_to(np.float32(0), image.shape[1:])  # which takes no memory
    return Truth(image, target=nothing, labelled=nothing)
