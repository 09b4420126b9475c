"""The data sets of each fold: what is trained on, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lis2_lightning import ConfigError, Trainer
from lis2_lightning.config import Schema
from lis2_lightning.evaluation.fields import fields_of
from lis2_lightning.evaluation.fold_data import data_of_all, data_of_fold, number_of_folds

Make = Callable[..., dict[str, Any]]


def resolved(config: dict[str, Any]) -> dict[str, Any]:
    return Schema(Trainer).parse(config).config


def covered(tiles: Any, shape: tuple[int, int]) -> Any:
    pixels = np.zeros(shape, np.bool_)
    for tile in tiles.tiles:
        pixels[tile.rows, tile.columns] = True
    return pixels


def test_no_training_tile_of_a_fold_shares_a_pixel_with_its_test_areas(tiny: Make) -> None:
    config = resolved(tiny())
    num = 4
    tested = np.zeros((128, 128), np.int64)
    for fold in range(num):
        data = data_of_fold(config, fold, num)
        built = Schema(Trainer).parse({**config, **data}).build()
        field = fields_of(built["test_dataset"])[0]
        areas = field.of_pixels(field.folds == fold, field.band(0, 128))
        for split in ("train_dataset", "val_dataset"):
            assert not (covered(built[split], (128, 128)) & areas).any(), (fold, split)
        assert (covered(built["test_dataset"], (128, 128)) <= areas).all()
        tested += areas
    assert (tested == 1).all()  # each pixel is tested once


def test_the_next_fold_validates_and_the_others_train(tiny: Make) -> None:
    config = resolved(tiny())
    data = data_of_fold(config, 4, 5)
    folds = [data[split]["init_args"]["folds"] for split in data]
    assert folds == [[1, 2, 3], [0], [4]]
    assert data["train_dataset"]["init_args"]["data_augmentations"] != []
    assert not data["test_dataset"]["init_args"]["data_augmentations"]
    assert data_of_all(config, 5)["init_args"]["folds"] == [0, 1, 2, 3, 4]


def test_sets_that_are_not_configured_are_those_of_training_without_augmentation(
    tiny: Make,
) -> None:
    config = resolved(tiny(val_dataset=None, test_dataset=None))
    data = data_of_fold(config, 0, 3)
    assert data["train_dataset"]["init_args"]["data_augmentations"]
    for split in ("val_dataset", "test_dataset"):
        assert data[split]["init_args"]["data_augmentations"] is None
        assert data[split]["init_args"]["seed"] == 3


@pytest.mark.parametrize(("requested", "num"), [(None, 3), (7, 7)])
def test_the_number_of_folds_is_asked_for_or_configured(
    tiny: Make, requested: int | None, num: int
) -> None:
    assert number_of_folds(resolved(tiny()), requested) == num


def test_two_folds_are_too_few(tiny: Make) -> None:
    with pytest.raises(ConfigError, match="folds must be at least 3, for training, validation"):
        number_of_folds(resolved(tiny()), 2)


def test_data_that_cannot_be_divided_are_refused(tiny: Make) -> None:
    patches = {"type": "PatchDataset", "dataset_path": "patches.h5"}
    config = resolved(tiny(train_dataset=patches, val_dataset=None, test_dataset=None))
    with pytest.raises(ConfigError, match="has patches without area_folds: add area_folds"):
        data_of_fold(config, 0, 3)
    folds = {"num_folds": 5, "area_size": 64, "overlap": 2}
    patches |= {"area_folds": folds, "fold_list": [0]}  # type: ignore[dict-item]
    config = resolved(tiny(train_dataset=patches, val_dataset=None, test_dataset=None))
    with pytest.raises(ConfigError, match="overlap lets patches of two folds share pixels"):
        data_of_fold(config, 0, 3)
    tiles = {"type": "TileDataset", "image": "a.npy", "target": "t.npy"}
    other = {**tiles, "image": "b.npy"}
    config = resolved(tiny(train_dataset=tiles, val_dataset=None, test_dataset=other))
    with pytest.raises(
        ConfigError, match=r"divides one image, and image of test_dataset is b\.npy"
    ):
        data_of_fold(config, 0, 3)
