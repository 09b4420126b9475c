"""Pixels without data: never labelled, whatever the maps say of them."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from torch.utils.data import ConcatDataset, Subset

from lis2_lightning.data import (
    TileDataset,
    check_no_shared_pixels,
    open_raster,
    warn_of_labels,
)
from lis2_lightning.data.batch import Batch, Sample
from lis2_lightning.errors import DataError
from lis2_lightning.tiling import Tile
from tests.data.fields import SHAPE, maps, union


def samples(dataset: TileDataset) -> Batch:
    """All samples of a data set."""
    return dataset.__getitems__(range(len(dataset)))


def labelled_in(dataset: TileDataset) -> np.ndarray:
    """Where a data set labels its image, over all tiles."""
    labelled = np.zeros(dataset.image_shape, dtype=bool)
    for tile, sample in zip(dataset.tiles, samples(dataset), strict=True):
        labelled[tile.rows, tile.columns] |= sample["labelled"].any(dim=0).numpy()
    return labelled


@pytest.mark.parametrize("normalization", ["direct", "log", "none"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_pixel_without_data_in_any_channel_is_not_labelled(value, normalization, monkeypatch):
    monkeypatch.setattr("lis2_lightning.data.census.BLOCK", (13, 31))
    image = np.random.default_rng(0).random((3, *SHAPE)) + 1
    gaps = np.random.default_rng(1).random(SHAPE) < 0.1
    image[1, gaps] = value
    known = np.random.default_rng(2).random(SHAPE) < 0.5
    dataset = TileDataset(
        image, target=np.eye(*SHAPE), labelled=known, size=10, normalization=normalization
    )
    np.testing.assert_array_equal(labelled_in(dataset), known & ~gaps)
    assert dataset.num_without_data == (known & gaps).sum()
    assert samples(dataset).tensors["patch"].isfinite().all()
    _, _, labelled = dataset.read_maps()
    np.testing.assert_array_equal(labelled[0], known & ~gaps)


def test_a_tile_whose_labels_all_lie_in_a_gap_is_left_out():
    image, target = np.ones((32, 64)), np.eye(32, 64)
    image[:, :32] = np.nan
    dataset = TileDataset(image, target=target, size=16, stride=16)
    assert not union(dataset)[:, :32].any()
    with pytest.raises(DataError, match=r"is labelled: .* and a number in the image"):
        TileDataset(np.full((32, 64), np.nan), target=target)


@pytest.mark.parametrize("kind", ["f4", "u1"])
def test_a_masked_array_has_no_value_where_it_is_masked(kind):
    generator = np.random.default_rng(0)
    truth = generator.random(SHAPE) < 0.3
    masks = {name: generator.random(SHAPE) < 0.2 for name in ("image", "target", "background")}
    stored = {name: truth.astype(kind) for name in ("image", "target")}
    stored["image"], stored["background"] = stored["image"] + 7, (~truth).astype(kind)
    for name, mask in masks.items():
        stored[name][mask] = 255  # what lies below a mask must not matter
    arrays: dict[str, Any] = {
        name: np.ma.array(values, mask=masks[name]) for name, values in stored.items()
    }
    dataset = TileDataset(**arrays, size=10)
    hidden = masks["image"] | masks["target"] | masks["background"]
    np.testing.assert_array_equal(labelled_in(dataset), ~hidden)
    assert set(samples(dataset).tensors["target"].unique().tolist()) == {0, 1}
    assert (
        dataset.num_without_data == (masks["image"] & ~masks["target"] & ~masks["background"]).sum()
    )
    raster = open_raster(arrays["image"])
    tile = Tile(5, 6, 20, 30)
    np.testing.assert_array_equal(np.isnan(raster.read(tile)[0]), masks["image"][5:25, 6:36])
    assert open_raster(np.ma.array(stored["target"])).read(tile).max() == stored["target"].max()


@pytest.mark.parametrize("name", ["background", "missing", "labelled"])
def test_maps_of_labels_may_be_pictures_and_hold_no_weights(name):
    fields = maps()
    known = (fields["background"] > 0) | (fields["target"] > 0)
    fields.pop("background")
    fields.pop("missing")

    def labelled_by(values: Any) -> Any:
        return labelled_in(TileDataset(**{**fields, name: values}, size=10))

    np.testing.assert_array_equal(labelled_by(known.astype("u1") * 255), labelled_by(known))
    unknown = np.where(known, 1.0, 0.0)
    unknown[:20] = np.nan
    assert not labelled_by(unknown)[:20].any()
    for value in (0.5, -1, 2, np.inf):
        with pytest.raises(
            DataError, match=f"holds {value:g}, it must be 1 .* weights of pixels are"
        ):
            labelled_by(np.where(known, value, 0))


def test_labels_without_data_are_told_once_an_image_and_splits_without_objects_by_name(caplog):
    fields = maps()
    fields["missing"][:] = 1
    fields["background"][:, :30] = 1
    fields["target"][:, 30:] = fields["target"][30:] = 0  # all of it in one area
    options: dict[str, Any] = {"size": 8, "area_size": 30, "num_folds": 2}
    parts = [TileDataset(**fields, **options, folds=[fold]) for fold in (0, 1)]
    with caplog.at_level(logging.WARNING, "lis2_lightning"):
        warn_of_labels({"train": parts[0], "val": parts[1], "test": None})
    lost = parts[0].num_without_data
    assert lost > 0
    (gaps,) = [text for text in caplog.messages if "no data" in text]
    assert gaps.startswith(f"an array in memory has no data at {lost} of its labelled pixels")
    without = [part.has_positive for part in parts].index(False)
    (objects,) = [text for text in caplog.messages if "no positive pixel" in text]
    assert objects.startswith(f"{('train', 'val')[without]} has no positive pixel")


def test_nothing_is_told_of_data_without_a_fault(caplog):
    tiles = TileDataset(**maps())
    with caplog.at_level(logging.INFO, "lis2_lightning"):
        warn_of_labels(
            {"train": tiles, "val": None, "test": tiles.whole_image(image=np.ones(SHAPE))}
        )
    assert not caplog.messages


def two_images(folds: list[int]) -> list[TileDataset]:
    """Tiles of two images, of one fold of each."""
    return [
        TileDataset(**maps(seed=seed), size=8, area_size=16, num_folds=3, folds=[fold])
        for seed, fold in enumerate(folds)
    ]


def test_a_leak_is_found_inside_data_sets_that_are_joined_or_cut_short():
    train: ConcatDataset[Sample] = ConcatDataset(two_images([0, 0]))
    val: ConcatDataset[Sample] = ConcatDataset(two_images([1, 1]))
    check_no_shared_pixels({"train": train, "val": val})
    leaking: ConcatDataset[Sample] = ConcatDataset([*two_images([1, 0])[1:], val])
    with pytest.raises(DataError, match="train and val share pixels of an array in memory"):
        check_no_shared_pixels({"train": train, "val": leaking})

    own = len(two_images([1, 0])[1])
    beyond = Subset(leaking, range(own, len(leaking)))
    check_no_shared_pixels({"train": train, "val": beyond})
    with pytest.raises(DataError, match="train and val share pixels"):
        check_no_shared_pixels({"train": train, "val": Subset(leaking, [len(leaking) - 1, 0])})
    with pytest.raises(DataError, match="train and val share pixels"):
        check_no_shared_pixels({"train": train, "val": Subset(beyond.dataset, [own - 1])})


def test_labels_without_data_are_told_of_arrays_side_by_side(caplog):
    image = np.ones((2, *SHAPE), np.float32)
    target = np.ones(SHAPE, np.float32)
    image[0, 0, :3] = np.nan
    with caplog.at_level(logging.WARNING, "lis2_lightning"):
        warn_of_labels({"train": TileDataset(list(image), target=[target, target], size=8)})
    assert "no data at 3 of its labelled pixels" in caplog.text
