"""The map of weights of a data set of tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lis2_lightning import DataError, TileDataset, Trainer
from lis2_lightning.data import RandomHorizontalFlip, RandomRotation
from tests.data.fields import SHAPE, maps

WEIGHT = np.random.default_rng(4).random(SHAPE).astype(np.float32)


def test_a_sample_has_the_weights_of_its_pixels():
    dataset = TileDataset(**maps(), weight=WEIGHT, size=16)
    for tile, index in zip(dataset.tiles, range(len(dataset)), strict=True):
        expected = WEIGHT[None, tile.rows, tile.columns]
        np.testing.assert_array_equal(dataset[index]["weight"].numpy(), expected)
    assert "weight" not in TileDataset(**maps(), size=16)[0]


@pytest.mark.parametrize("augmentation", [RandomHorizontalFlip(p=1.0), RandomRotation((30, 30))])
def test_weights_move_with_the_target(augmentation):
    target = (WEIGHT > 0.5).astype(np.float32)
    dataset = TileDataset(
        maps()["image"], target=target, weight=target, size=16, data_augmentations=[augmentation]
    )
    batch = dataset.__getitems__(range(len(dataset))).tensors
    assert torch.equal(batch["weight"], batch["target"])


@pytest.mark.parametrize("value", [-1, np.nan, np.inf])
def test_weights_that_mean_nothing_are_refused_where_pixels_are_labelled(value):
    fields = maps()
    known = (fields["target"] + fields["background"]) * fields["missing"] > 0
    row, column = np.argwhere(known)[7]
    weight = np.where(known, 1.0, value)
    assert len(TileDataset(**fields, weight=weight, size=16))
    weight[row, column] = value
    with pytest.raises(DataError, match=f"labelled pixel of row {row}, column {column}: a weight"):
        TileDataset(**fields, weight=weight, size=16)


def test_training_with_weights_of_1_gives_the_weights_of_training_without(
    tiny: Callable[..., dict[str, Any]],
) -> None:
    def trained(weight: np.ndarray | None, name: str) -> list[torch.Tensor]:
        dataset = TileDataset(**maps(), weight=weight, size=16)
        config = tiny(val_dataset=None, test_dataset=None, epochs=1, run_name=name)
        trainer = Trainer.from_config(config, train_dataset=dataset)
        trainer.fit()
        return list(trainer.model.state_dict().values())

    plain = trained(None, "plain")
    assert all(map(torch.equal, trained(np.ones(SHAPE), "ones"), plain))
    assert not all(map(torch.equal, trained(WEIGHT, "drawn"), plain))
