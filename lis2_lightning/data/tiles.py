"""A data set of tiles that are cut from one or several large images on demand."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self, TypeGuard, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lis2_lightning.base.display import Displayed
from lis2_lightning.data.augment import Augmentation, augment
from lis2_lightning.data.batch import Batch, KeyedDataset
from lis2_lightning.data.legend import Labels, Legend, Positive
from lis2_lightning.data.normalize import Normalization, check_normalization
from lis2_lightning.data.open_raster import Raster, Source, open_raster
from lis2_lightning.data.rasters.padded import padded
from lis2_lightning.data.several import FoldBy, Sources, keep_folds, open_all
from lis2_lightning.data.tiled_image import TiledImage
from lis2_lightning.data.truth import Truth
from lis2_lightning.errors import ConfigError
from lis2_lightning.tiling import Areas, Tile


class TileDataset(Displayed, KeyedDataset):
    """Square tiles of one large, partly labelled image, or of several.

    A sample holds `patch` `(C, H, W)` float32, normalised; `target` `(C, H, W)` float32, 0 or 1;
    `labelled` `(C, H, W)` bool, true where the target is known; `positions` `(2, 2, 1)` float32,
    first and last row + 1, then first and last column + 1 of the tile, px, as in LIS²'s
    `patches.h5`; and `corner` `(2,)` int64, its first row and column, px. Where there are several
    images, `image`, int64, is the number of the one it is cut from.

    The image is divided into areas, the areas are assigned to folds so that labelled and positive
    pixels are balanced, and each tile lies inside one area: data sets of different folds share no
    pixel. Image and maps are scanned once on construction; only an index of 4 bytes per tile (8
    beyond 2**31 tiles) is held in memory.

    Args:
        image: The image: a path (FITS, .npy, HDF5, TIFF, Zarr) or an array, `(H, W)` or
            `(C, H, W)`. Or a list of several, with as many channels each; then `target`,
            `background`, `missing`, `labelled` and `weight` are lists of as many, or left out.
        target: 1 on objects and 0 elsewhere; NaN where unknown. Other values are said by
            `positive`, `negative` and `ignore`.
        background: 1 on known background. A pixel is labelled where (target +
            background) × missing > 0.
        missing: 1 where the image is valid, 0 where data are missing; all valid by default.
        labelled: 1 where the target is known, instead of `background`. Without either, every
            pixel that is not missing is labelled. No pixel is labelled where the image, in any
            channel, is NaN, infinite or masked.
        weight: How much each labelled pixel counts in the loss, at least 0; 1 without it. A sample
            then holds `weight` `(C, H, W)` float32 too.
        positive: The values of the target on objects, such as `[255]`, or `nonzero`; 1 by default.
        negative: Its values elsewhere, beside 0.
        ignore: Its values where the truth is unknown.
        size: Side of a tile, px.
        stride: Step from one tile to the next, px; half a tile by default.
        area_size: Minimum side of an area, px; by default two tiles, as in LIS², or the whole image
            if there is one fold.
        num_folds: Number of folds.
        folds: Folds to use, counted from 0; all by default.
        fold_by: What belongs to a fold: an `area`, of all images together, or a whole `image`.
        buffer: Minimum distance between tiles of different areas, px.
        fold_seed: Decides between equally good assignments of areas.
        normalization: How each tile is scaled to [0, 1]: `direct`, `log` or `none`.
        data_augmentations: Augmentations, applied in this order.
        keep_unlabelled: Whether to keep tiles without a labelled pixel.

    Raises:
        DataError: A file cannot be read; maps differ in shape; the target or another map holds a
            value without a meaning; a tile is larger than the image; no pixel is labelled; a fold
            has no tile; images differ in channels.
        ConfigError: A number is out of range, or two arguments contradict each other.

    >>> image = np.arange(1, 65 * 64 + 1, dtype=float).reshape(65, 64)
    >>> tiles = TileDataset(image, target=image > 2000, size=32)
    >>> len(tiles), tiles[0]["patch"].shape, tiles[-1]["corner"].tolist()
    (12, torch.Size([1, 32, 32]), [33, 32])
    """

    def __init__(
        self,
        image: Sources,
        *,
        target: Sources,
        background: Sources | None = None,
        missing: Sources | None = None,
        labelled: Sources | None = None,
        weight: Sources | None = None,
        positive: Positive | None = None,
        negative: Labels | None = None,
        ignore: Labels | None = None,
        size: int = 32,
        stride: int | None = None,
        area_size: int | None = None,
        num_folds: int = 1,
        folds: Sequence[int] | None = None,
        fold_by: Literal["area", "image"] = "area",
        buffer: int = 0,
        fold_seed: int = 0,
        normalization: Normalization = "direct",
        data_augmentations: Sequence[Augmentation] | None = None,
        keep_unlabelled: bool = False,
    ) -> None:
        check_normalization(normalization)
        self.size = size
        self.stride = max(1, size // 2) if stride is None else stride
        self.normalization: Normalization = normalization
        self.data_augmentations = tuple(data_augmentations or ())
        maps = {
            "target": target,
            "background": background,
            "missing": missing,
            "labelled": labelled,
            "weight": weight,
        }
        truths = open_all(image, maps, Legend.of(positive, negative, ignore))
        chosen = _chosen_folds(folds, num_folds)
        if fold_by not in get_args(FoldBy):
            raise ConfigError(f"fold_by must be area or image, not {fold_by!r}")
        if area_size is None and num_folds > 1 and fold_by == "area":
            area_size = 2 * size
        images = [
            TiledImage(
                truth.image,
                truth,
                size=size,
                stride=self.stride,
                areas=Areas.cut(truth.image.shape[1:], size=area_size, buffer=buffer),
            )
            for truth in truths
        ]
        keep_folds(
            images,
            num_folds,
            chosen,
            seed=fold_seed,
            fold_by=fold_by,
            keep_unlabelled=keep_unlabelled,
        )
        self._use(images)

    def _use(self, images: Iterable[TiledImage]) -> None:
        self.tiled_images = tuple(images)
        self._ends = np.cumsum([len(tiled) for tiled in self.tiled_images])

    def __len__(self) -> int:
        """The number of tiles, of all images."""
        return int(self._ends[-1])

    def facts(self) -> dict[str, Any]:
        """How many tiles of which images, and of which folds."""
        images, used = self.images, [tiled.fold_of_area for tiled in self.tiled_images]
        kept = [folds[tiled.used] for folds, tiled in zip(used, self.tiled_images, strict=True)]
        folds = sorted({int(fold) for part in kept for fold in part.flat})
        _, height, width = images[0].shape
        single = f"{images[0].source}, {height:,} x {width:,} px"
        return {
            "tiles": f"{len(self):,} of {self.size} x {self.size} px, stride {self.stride} px",
            "images": single if len(images) == 1 else len(images),
            "folds": ", ".join(map(str, folds)),
            "augmentations": ", ".join(type(a).__name__ for a in self.data_augmentations) or None,
        }

    def fetch(self, indices: NDArray[np.int64], keys: NDArray[np.uint64]) -> Batch:
        """Cut many tiles at once; see :meth:`KeyedDataset.fetch`."""
        parts = [
            (chosen, tiled.read(inside, self.normalization))
            for tiled, chosen, inside in self.of_images(indices)
        ]
        arrays = parts[0][1] if len(parts) == 1 else _in_order(parts, len(indices))
        if len(self.tiled_images) > 1:
            arrays["image"] = np.searchsorted(self._ends, indices, side="right").astype(np.int64)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return Batch(augment(tensors, keys, self.data_augmentations))

    def fetch_unlabelled(self, indices: NDArray[np.int64]) -> dict[str, Tensor]:
        """Cut many tiles of a single image for a network that is not trained, without its truth.

        Returns:
            `patch`, `positions` and `corner` of the samples; and `gaps` `(B, 1, H, W)` bool, where
            the image or `missing` has no data, unless there is none.
        """
        arrays = self._only.read_unlabelled(indices, self.normalization)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        keys = np.zeros(len(indices), np.uint64)  # of no effect on what is not random
        return augment(tensors, keys, self.data_augmentations)

    def of_images(
        self, indices: NDArray[np.int64]
    ) -> Iterator[tuple[TiledImage, NDArray[np.intp], NDArray[np.int64]]]:
        """Each image that samples are cut from, which of them, and their numbers inside it."""
        if len(self.tiled_images) == 1:
            yield self.tiled_images[0], np.arange(len(indices)), indices
            return
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"tile indices range from 0 to {len(self) - 1}")
        numbers = np.searchsorted(self._ends, indices, side="right")
        for number in np.unique(numbers).tolist():
            tiled, chosen = self.tiled_images[number], np.flatnonzero(numbers == number)
            yield tiled, chosen, indices[chosen] - (self._ends[number] - len(tiled))

    @property
    def images(self) -> list[Raster]:
        """All images, in the order of the configuration."""
        return [tiled.image for tiled in self.tiled_images]

    @property
    def image(self) -> Raster:
        """The image, where there is a single one.

        Raises:
            ConfigError: There are several.
        """
        return self._only.image

    @property
    def _only(self) -> TiledImage:
        if len(self.tiled_images) > 1:
            raise ConfigError(
                f"the tiles are of {len(self.tiled_images)} images, and this is about a single "
                "one: use images, or one of whole_images()"
            )
        return self.tiled_images[0]

    @property
    def num_without_data(self) -> int:
        """Pixels of the images that the maps label and that do not count: there are no data."""
        return sum(tiled.num_without_data for tiled in self.tiled_images)

    @property
    def has_positive(self) -> bool:
        """Whether a tile has a positive pixel; also true where there is no truth."""
        return any(tiled.has_positive for tiled in self.tiled_images)

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the image, px; as for :attr:`image`, of a single one."""
        return self.image.shape[1], self.image.shape[2]

    @property
    def corners(self) -> NDArray[np.int64]:
        """First row and column of each tile, px, in the order of the samples, `(N, 2)`."""
        return np.concatenate([tiled.corners() for tiled in self.tiled_images])

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
            ConfigError: The stride is below 1 or larger than a tile, or there are several images.
            DataError: The other image cannot be read.
        """
        if image is not None:
            return self._whole(padded(open_raster(image), self.size), None, stride)
        return self._whole(self._only.image, self._only.truth, stride)

    def whole_images(self, stride: int | None = None) -> list[Self]:
        """For each image, a data set of all its tiles, as :meth:`whole_image` makes it."""
        return [self._whole(tiled.image, tiled.truth, stride) for tiled in self.tiled_images]

    def _whole(self, image: Raster, truth: Truth | None, stride: int | None) -> Self:
        whole = copy.copy(self)
        whole.stride = self.stride if stride is None else stride
        if whole.stride > self.size:
            raise ConfigError(
                f"a stride of {whole.stride} px leaves gaps between tiles of {self.size} px: "
                f"use at most {self.size}"
            )
        whole.data_augmentations = tuple(a for a in self.data_augmentations if not a.random)
        tiled = TiledImage(image, truth, size=self.size, stride=whole.stride)
        whole._use([tiled])  # noqa: SLF001 - a copy of this object
        return whole

    def read_maps(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
        """Read the whole image, target (0 where unknown) and labelled, `(C, H, W)` each."""
        whole = Tile(0, 0, *self.image_shape)
        return (self.image.read(whole), *self._only.truth.read(whole))


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
        self.size = size
        self.stride = max(1, size // 2) if stride is None else stride
        self.normalization = normalization
        self.data_augmentations = tuple(data_augmentations or ())
        whole = padded(open_raster(image), size)
        self._use([TiledImage(whole, size=size, stride=self.stride)])


def is_one_image(dataset: object) -> TypeGuard[TileDataset]:
    """Whether a data set is cut from a single image, of which there can be a map."""
    return isinstance(dataset, TileDataset) and len(dataset.images) == 1


def _in_order(
    parts: Sequence[tuple[NDArray[np.intp], Mapping[str, NDArray[Any]]]], num: int
) -> dict[str, NDArray[Any]]:
    """The samples of several images, in the order in which they were asked for."""
    arrays = {
        name: np.empty((num, *values.shape[1:]), values.dtype)
        for name, values in parts[0][1].items()
    }
    for chosen, part in parts:
        for name, values in part.items():
            arrays[name][chosen] = values
    return arrays


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
