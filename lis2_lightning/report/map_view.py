"""What of an image and its map a page shows: every n-th pixel, and the best and worst tiles.

It is taken where data and map are at hand and kept in the run's folder, so that a page needs
neither the network nor the images. Images are read row by row, never whole.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self, cast
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.base.files import atomic, shown
from lis2_lightning.data import (
    AnyDataset,
    Raster,
    SegmentationData,
    TileDataset,
    is_one_image,
    open_raster,
    tile_parts,
)
from lis2_lightning.data.open_raster import same_image
from lis2_lightning.data.rasters.position_cards import of_two_axes
from lis2_lightning.errors import DataError, one_line
from lis2_lightning.inference import Map
from lis2_lightning.report.pictures import stretched
from lis2_lightning.report.tile_scores import NO_DATA, Bytes, Crop, as_bytes, best_and_worst, codes
from lis2_lightning.tiling import Tile

VIEW: Final = "report_map.npz"
MAX_SIDE: Final = 800  # px kept along the longer side
SPLITS: Final = ("none", "train", "val", "test")
_BAD_ZIP: Final = (BadZipFile, zlib.error)


@dataclass(frozen=True, kw_only=True)
class MapView:
    """Every `step`-th row and column of an image's first channel and its maps, `(h, w)` each."""

    source: str
    """The image."""
    shape: tuple[int, int]
    """Height and width of the image, px."""
    step: int
    image: Bytes
    """With an asinh stretch, 0 to 254; 255 without data."""
    truth: Bytes
    """0 unlabelled, 1 negative, 2 positive."""
    probability: Bytes
    """0 to 254 for 0 to 1; 255 without data, everywhere where there is no map yet."""
    splits: Bytes
    """Whose areas a pixel lies in: an index of :data:`SPLITS`."""
    header: str = ""
    """The FITS keywords of the position on the sky; empty where there is none."""
    threshold: float = 0.5
    """From which probability on a pixel is taken for positive."""
    scored: str = ""
    """The split whose tiles are counted."""
    num_tiles: int = 0
    """How many of them."""
    num_scored: int = 0
    worst: tuple[Crop, ...] = ()
    """Those with most wrong pixels."""
    best: tuple[Crop, ...] = ()
    """Those with most right positive pixels, less the wrong ones."""

    @property
    def has_map(self) -> bool:
        """Whether there is a probability anywhere."""
        return bool((self.probability != NO_DATA).any())

    def save(self, folder: Path) -> None:
        """Write the view into a run's folder."""
        values = {k: v for k, v in vars(self).items() if k not in {"worst", "best"}}
        for kind in ("worst", "best"):
            crops: tuple[Crop, ...] = getattr(self, kind)
            for field in Crop._fields:
                values[f"{kind}_{field}"] = np.array([getattr(crop, field) for crop in crops])
        with atomic(folder / VIEW) as file:
            np.savez_compressed(file, **values)

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Read the view of a run's folder; null where it has none.

        Raises:
            DataError: The file is damaged.
        """
        path = folder / VIEW
        if not path.is_file():
            return None
        arrays = read_arrays(path)
        try:
            crops: Any = {kind: _crops(kind, arrays) for kind in ("worst", "best")}
            names = cls.__dataclass_fields__.keys() - crops.keys()
            plain: Any = {name: _plain(arrays[name]) for name in names}
            return cls(**{**plain, "shape": tuple(plain["shape"].tolist())}, **crops)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(path, error) from error


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an ``.npz`` file.

    Raises:
        DataError: The file is damaged.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, TypeError, AttributeError, EOFError, *_BAD_ZIP) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> DataError:
    """The error about a file of a run that cannot be read."""
    return DataError(
        f"{shown(path)} is damaged ({one_line(error) or type(error).__name__}): restore it, or "
        "remove it to leave its part out of the page"
    )


def _plain(array: NDArray[Any]) -> Any:
    return array.item() if array.ndim == 0 else array


def _crops(kind: str, arrays: dict[str, NDArray[Any]]) -> tuple[Crop, ...]:
    columns = [arrays[f"{kind}_{field}"] for field in Crop._fields]
    return tuple(
        Crop(int(top), int(left), tuple(map(int, counts)), *maps)  # type: ignore[arg-type]
        for top, left, counts, *maps in zip(*columns, strict=True)
    )


def view_of(data: SegmentationData, map_: Map | None, threshold: float | None) -> MapView | None:
    """Look at a run's image and its map; null where the run is not about one image.

    Args:
        data: What the run trains, validates and tests on, and maps.
        map_: Probabilities, ``(C, H, W)``, of which the first channel is shown; null for no map.
        threshold: From which probability on a pixel is positive; 0.5 where there is none.
    """
    whole = data.predict
    if not is_one_image(whole):
        return None
    tiled, shape = whole.tiled_images[0], whole.image_shape
    step = _step(shape)
    image, truth = sampled(tiled.image.read, shape, step), _sampled_truth(whole)
    probability = None if map_ is None else open_raster(cast("Raster", map_))
    cards = of_two_axes(getattr(tiled.image, "cards", None) or {})
    view = MapView(
        source=tiled.image.source,
        shape=shape,
        step=step,
        image=as_bytes(stretched(image)),
        truth=truth,
        probability=(
            np.full(truth.shape, NO_DATA, np.uint8)
            if probability is None
            else as_bytes(sampled(probability.read, shape, step))
        ),
        splits=_splits(data, tiled.image),
        header=_header(cards),
        threshold=0.5 if threshold is None else threshold,
    )
    scored = _scored(data, tiled.image)
    if probability is None or scored is None:
        return view
    name, tiles = scored
    return replace(view, scored=name, **best_and_worst(tiles, probability, view.threshold))


def view_of_file(data: SegmentationData, path: Path, threshold: float | None) -> MapView | None:
    """As :func:`view_of`, with the map in a file.

    Raises:
        DataError: The file cannot be read, or is no map of the image.
    """
    whole = data.predict
    if not is_one_image(whole):
        return None  # the file holds the maps of samples
    map_ = open_raster(path)
    if map_.shape[1:] != whole.image_shape:
        sizes = (map_.shape[1:], whole.image_shape)
        own, other = (f"{height} x {width} px" for height, width in sizes)
        raise DataError(f"it has {own}, and its image {other}")
    return view_of(data, cast("Map", map_), threshold)


def _scored(data: SegmentationData, image: Raster) -> tuple[str, TileDataset] | None:
    """The split of the image that the run was scored on, and its name."""
    for name in ("test", "val", "train"):
        tiles: AnyDataset | None = getattr(data, name)
        if is_one_image(tiles) and same_image(tiles.image, image):
            return ("val" if tiles is data.val else name), tiles
    return None


def _step(shape: tuple[int, int]) -> int:
    return math.ceil(max(shape) / MAX_SIDE)


def _rows(shape: tuple[int, int], step: int) -> Iterator[Tile]:
    """The rows of the view; a raster keeps the blocks that a row was read from for the next."""
    height, width = shape
    return (Tile(top, 0, 1, width) for top in range(0, height, step))


def sampled(
    read: Callable[[Tile], NDArray[np.float32]], shape: tuple[int, int], step: int
) -> NDArray[np.float32]:
    """Every `step`-th row and column of a first channel, read row by row, ``(C, 1, W)`` each."""
    return np.concatenate([read(row)[0][:, ::step] for row in _rows(shape, step)])


def _sampled_truth(whole: TileDataset) -> Bytes:
    """The codes of the truth at the pixels of the view."""
    truth, step = whole.tiled_images[0].truth, _step(whole.image_shape)
    parts = (truth.read(row) for row in _rows(whole.image_shape, step))
    return np.concatenate([codes(t[0][:, ::step], known[0][:, ::step]) for t, known in parts])


def _splits(data: SegmentationData, image: Raster) -> Bytes:
    """Whose areas the pixels of the view lie in."""
    step = _step(image.shape[1:])
    rows, columns = (np.arange(0, side, step) for side in image.shape[1:])
    splits = np.zeros((len(rows), len(columns)), np.uint8)
    for number, name in enumerate(SPLITS[1:], start=1):
        dataset: AnyDataset | None = getattr(data, name)
        if name == "test" and dataset is data.val:
            continue
        for part, _ in tile_parts(dataset):
            for tiled in part.tiled_images:
                if same_image(tiled.image, image):
                    splits[tiled.areas.spread(tiled.used, rows, columns)] = number
    return splits


def _header(cards: dict[str, tuple[Any, str]]) -> str:
    if not cards:
        return ""
    from astropy.io.fits import Header

    return str(Header([(key, *card) for key, card in cards.items()]).tostring(sep="\n"))
