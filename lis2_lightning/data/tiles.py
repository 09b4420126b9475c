"""A data set of tiles that are cut from one large image on demand."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lis2_lightning.data.augment import Augmentation, augment
from lis2_lightning.data.batch import Batch, KeyedDataset
from lis2_lightning.data.legend import Labels, Legend, Positive
from lis2_lightning.data.normalize import Normalization, check_normalization, normalize
from lis2_lightning.data.open_raster import Raster, Source, open_raster
from lis2_lightning.data.rasters.padded import padded
from lis2_lightning.data.truth import Truth, count, has_data
from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.tiling import Areas, Tile, assign_folds


class TileDataset(KeyedDataset):
    """Square tiles of one large, partly labelled image.

    A sample holds `patch` `(C, H, W)` float32, normalised; `target` `(C, H, W)` float32, 0 or 1;
    `labelled` `(C, H, W)` bool, true where the target is known; `positions` `(2, 2, 1)` float32,
    first and last row + 1, then first and last column + 1 of the tile, px, as in LIS²'s
    `patches.h5`; and `corner` `(2,)` int64, its first row and column, px.

    The image is divided into areas, the areas are assigned to folds so that labelled and positive
    pixels are balanced, and each tile lies inside one area: data sets of different folds share no
    pixel. Image and maps are scanned once on construction; only an index of 4 bytes per tile (8
    beyond 2**31 tiles) is held in memory.

    Args:
        image: The image: a path (FITS, .npy, HDF5, TIFF, Zarr) or an array, `(H, W)` or
            `(C, H, W)`.
        target: 1 on objects and 0 elsewhere; NaN where unknown. Other values are said by
            `positive`, `negative` and `ignore`.
        background: 1 on known background. A pixel is labelled where (target +
            background) × missing > 0.
        missing: 1 where the image is valid, 0 where data are missing; all valid by default.
        labelled: 1 where the target is known, instead of `background`. Without either, every
            pixel that is not missing is labelled. No pixel is labelled where the image, in any
            channel, is NaN, infinite or masked.
        positive: The values of the target on objects, such as `[255]`, or `nonzero`; 1 by default.
        negative: Its values elsewhere, beside 0.
        ignore: Its values where the truth is unknown.
        size: Side of a tile, px.
        stride: Step from one tile to the next, px; half a tile by default.
        area_size: Minimum side of an area, px; by default two tiles, as in LIS², or the whole image
            if there is one fold.
        num_folds: Number of folds.
        folds: Folds to use, counted from 0; all by default.
        buffer: Minimum distance between tiles of different areas, px.
        fold_seed: Decides between equally good assignments of areas.
        normalization: How each tile is scaled to [0, 1]: `direct`, `log` or `none`.
        data_augmentations: Augmentations, applied in this order.
        keep_unlabelled: Whether to keep tiles without a labelled pixel.

    Raises:
        DataError: A file cannot be read; maps differ in shape; the target or another map holds a
            value without a meaning; a tile is larger than the image; no pixel is labelled; a fold
            has no tile.
        ConfigError: A number is out of range, or two arguments contradict each other.

    >>> image = np.arange(1, 65 * 64 + 1, dtype=float).reshape(65, 64)
    >>> tiles = TileDataset(image, target=image > 2000, size=32)
    >>> len(tiles), tiles[0]["patch"].shape, tiles[-1]["corner"].tolist()
    (12, torch.Size([1, 32, 32]), [33, 32])
    """

    num_without_data = 0
    """Pixels of the image that the maps label and that do not count: it has no data there."""
    has_positive = True
    """Whether a tile has a positive pixel; also true where there is no truth."""

    def __init__(
        self,
        image: Source,
        *,
        target: Source,
        background: Source | None = None,
        missing: Source | None = None,
        labelled: Source | None = None,
        positive: Positive | None = None,
        negative: Labels | None = None,
        ignore: Labels | None = None,
        size: int = 32,
        stride: int | None = None,
        area_size: int | None = None,
        num_folds: int = 1,
        folds: Sequence[int] | None = None,
        buffer: int = 0,
        fold_seed: int = 0,
        normalization: Normalization = "direct",
        data_augmentations: Sequence[Augmentation] | None = None,
        keep_unlabelled: bool = False,
    ) -> None:
        check_normalization(normalization)
        self.image = open_raster(image)
        self.size = size
        self.stride = max(1, size // 2) if stride is None else stride
        self.normalization: Normalization = normalization
        self.data_augmentations = tuple(data_augmentations or ())
        self._truth = Truth(
            self.image,
            target=target,
            background=background,
            missing=missing,
            labelled=labelled,
            legend=Legend.of(positive, negative, ignore),
        )
        chosen = _chosen_folds(folds, num_folds)
        if area_size is None and num_folds > 1:
            area_size = 2 * size
        areas = Areas.cut(self.image_shape, size=area_size, buffer=buffer)
        self._lattice = areas.lattice(size, self.stride)
        self._index: NDArray[np.integer] | None = self._kept(
            areas, num_folds, chosen, fold_seed, keep_unlabelled=keep_unlabelled
        )

    def __len__(self) -> int:
        """The number of tiles."""
        return len(self._lattice) if self._index is None else len(self._index)

    def fetch(self, indices: NDArray[np.int64], keys: NDArray[np.uint64]) -> Batch:
        """Cut many tiles at once; see :meth:`KeyedDataset.fetch`."""
        corners = self._corners(indices)
        tops, lefts = np.ascontiguousarray(corners.T)
        values = self.image.read_many(tops, lefts, self.size)
        target, labelled = self._truth.read_many(tops, lefts, self.size)
        labelled &= has_data(values)
        shown = self._shown(corners, values)
        arrays = {"patch": shown.pop("patch"), "target": target, "labelled": labelled, **shown}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return Batch(augment(tensors, keys, self.data_augmentations))

    def fetch_unlabelled(self, indices: NDArray[np.int64]) -> dict[str, Tensor]:
        """Cut many tiles for a network that is not trained: the truth is not read.

        Returns:
            `patch`, `positions` and `corner` of the samples; and `gaps` `(B, 1, H, W)` bool, where
            the image or `missing` has no data, unless there is none.
        """
        corners = self._corners(indices)
        tops, lefts = np.ascontiguousarray(corners.T)
        values = self.image.read_many(tops, lefts, self.size)
        # a sum is finite only if every value is, and takes a third of the time
        with np.errstate(over="ignore", invalid="ignore"):
            gaps = np.zeros(1, np.bool_) if np.isfinite(values.sum()) else ~has_data(values)
        if (missing := self._truth.is_missing(tops, lefts, self.size)) is not None:
            gaps = gaps | missing
        arrays = self._shown(corners, values) | ({"gaps": gaps} if gaps.any() else {})
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        keys = np.zeros(len(indices), np.uint64)  # of no effect on what is not random
        return augment(tensors, keys, self.data_augmentations)

    def _shown(
        self, corners: NDArray[np.int64], values: NDArray[np.float32]
    ) -> dict[str, NDArray[Any]]:
        """What a network is shown of tiles; the values are normalised in place."""
        positions = np.stack((corners, corners + self.size), axis=-1)[..., None]
        return {
            "patch": normalize(values, self.normalization),  # what is missing becomes 0
            "positions": positions.astype(np.float32),
            "corner": corners,
        }

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the image, px."""
        return self.image.shape[1], self.image.shape[2]

    @property
    def corners(self) -> NDArray[np.int64]:
        """First row and column of each tile, px, in the order of the samples, `(N, 2)`."""
        return self._corners(np.arange(len(self), dtype=np.int64))

    @property
    def tiles(self) -> list[Tile]:
        """All tiles, in the order of the samples."""
        size = self.size
        return [Tile(top, left, size, size) for top, left in self.corners.tolist()]

    def whole_image(self, stride: int | None = None, *, image: Source | None = None) -> Self:
        """A data set of all tiles of the image, for prediction.

        Folds, areas and labels are ignored; random augmentations are left out.

        Args:
            stride: Step from one tile to the next, px; that of this data set by default.
            image: Another image, whose tiles are cut and normalised as those of this one; nothing
                in it is labelled. One that is smaller than a tile is padded with NaN.

        Raises:
            ConfigError: The stride is below 1 or larger than a tile.
            DataError: The other image cannot be read.
        """
        whole = copy.copy(self)
        if image is not None:
            whole.image = padded(open_raster(image), self.size)
            whole._truth = _no_truth(whole.image)  # noqa: SLF001 - a copy of this object
            whole.num_without_data, whole.has_positive = 0, True
        whole.stride = self.stride if stride is None else stride
        if whole.stride > self.size:
            raise ConfigError(
                f"a stride of {whole.stride} px leaves gaps between tiles of {self.size} px: "
                f"use at most {self.size}"
            )
        whole.data_augmentations = tuple(a for a in self.data_augmentations if not a.random)
        lattice = Areas.cut(whole.image_shape, size=None).lattice(self.size, whole.stride)
        whole._lattice, whole._index = lattice, None  # noqa: SLF001 - a copy of this object
        return whole

    def read_maps(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
        """Read the whole image, target (0 where unknown) and labelled, `(C, H, W)` each."""
        whole = Tile(0, 0, *self.image_shape)
        return (self.image.read(whole), *self._truth.read(whole))

    def _corners(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"tile indices range from 0 to {len(self) - 1}")
        return self._lattice.corners(indices if self._index is None else self._index[indices])

    def _kept(
        self,
        areas: Areas,
        num_folds: int,
        chosen: list[int],
        seed: int,
        *,
        keep_unlabelled: bool,
    ) -> NDArray[np.integer]:
        """The tiles of the chosen folds, as indices into the lattice."""
        census = count(self._truth, areas, self._lattice)
        self.num_without_data = census.without_data
        if not census.areas.any():
            raise DataError(
                f"no pixel of {self._truth.target.source} is labelled: a labelled pixel is 1 in "
                f"target or background (or in labelled), 1 in missing, and a number in the image"
            )
        of_area = assign_folds(census.areas.reshape(-1, 2), num_folds=num_folds, seed=seed)
        rows, columns = areas.of(self._lattice)
        of_tile = of_area.reshape(areas.shape)[np.ix_(rows, columns)]
        kept = np.isin(of_tile, chosen)
        if not keep_unlabelled:
            kept &= census.tiles[..., 0]
        self.has_positive = bool((kept & census.tiles[..., 1]).any())
        sizes = np.bincount(of_tile[kept], minlength=num_folds)
        for fold in chosen:
            if sizes[fold] == 0:
                raise DataError(
                    f"fold {fold} of {num_folds} has no tile with a labelled pixel of "
                    f"{self._truth.target.source}: use fewer folds or another area_size"
                )
        index = np.flatnonzero(kept)
        return index.astype(np.int32) if kept.size < 2**31 else index


class ImageTiles(TileDataset):
    """All tiles of an image without truth, for prediction: no pixel of a sample is labelled.

    Arguments, samples and errors are those of :class:`TileDataset`. An image that is smaller than
    a tile is padded with NaN.

    >>> tiles = ImageTiles(np.ones((65, 64)), size=32)
    >>> len(tiles), bool(tiles[0]["labelled"].any())
    (12, False)
    """

    def __init__(
        self,
        image: Source,
        *,
        size: int = 32,
        stride: int | None = None,
        normalization: Normalization = "direct",
        data_augmentations: Sequence[Augmentation] | None = None,
    ) -> None:
        check_normalization(normalization)
        self.image = padded(open_raster(image), size)
        self.size = size
        self.stride = max(1, size // 2) if stride is None else stride
        self.normalization = normalization
        self.data_augmentations = tuple(data_augmentations or ())
        self._truth = _no_truth(self.image)
        self._lattice = Areas.cut(self.image_shape, size=None).lattice(size, self.stride)
        self._index = None


def _no_truth(image: Raster) -> Truth:
    nothing = np.broadcast_to(np.float32(0), image.shape[1:])  # which takes no memory
    return Truth(image, target=nothing, labelled=nothing)


def _chosen_folds(folds: Sequence[int] | None, num_folds: int) -> list[int]:
    chosen = sorted(set(range(num_folds) if folds is None else folds))
    wrong = [fold for fold in chosen if not 0 <= fold < num_folds]
    if wrong:
        raise ConfigError(
            f"fold {wrong[0]} does not exist: folds are numbered 0 to {num_folds - 1}"
        )
    if not chosen and num_folds > 0:
        raise ConfigError("folds is empty: name at least one fold, or omit folds to use all")
    return chosen
