from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset, Subset

from lis2_lightning import (
    ConfigError,
    DataError,
    SnapshotError,
    TileDataset,
    Trainer,
    TrainingError,
)
from lis2_lightning.data import RandomHorizontalFlip
from lis2_lightning.data.datamodule import Keyed
from lis2_lightning.snapshots import read_snapshot

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def tiles() -> TileDataset:
    image = np.arange(1.0, 64 * 64 + 1).reshape(64, 64)
    flip = [RandomHorizontalFlip()]
    return TileDataset(image, target=image > 2000, size=16, data_augmentations=flip)


@pytest.mark.parametrize("view", ["subset", "concatenation"])
def test_augmentation_goes_on_behind_views_of_a_data_set(tiles: TileDataset, view: str) -> None:
    order = list(range(len(tiles) - 1, -1, -1))
    shown: Dataset[Any] = Subset(tiles, order)
    if view == "concatenation":
        shown = ConcatDataset([Subset(tiles, order[:5]), Subset(tiles, order[5:])])
    keyed = Keyed(shown, seed=1)

    epochs = [keyed.__getitems__([(epoch, i) for i in range(len(order))]) for epoch in range(2)]

    patches = [torch.stack([sample["patch"] for sample in epoch]) for epoch in epochs]
    corners = [sample["corner"].tolist() for sample in epochs[0]]
    assert corners == tiles.corners[order].tolist()
    assert not torch.equal(patches[0], patches[1])


def test_a_wrong_monitor_is_refused_before_anything_is_written(tiny: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'val_loss'"):
        Trainer.from_config(tiny(monitor="val_los")).train()

    assert not (tmp_path / "runs").exists()


def test_a_test_set_that_does_not_fit_is_refused_before_training(
    tiny: Make, tmp_path: Path
) -> None:
    image = np.random.default_rng(0).random((2, 32, 32)) + 1
    wrong = TileDataset(image, target=image[0] > 1.5, size=16)

    with pytest.raises(DataError, match="does not fit a U-Net"):
        Trainer.from_config(tiny(test_dataset=wrong)).train()

    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "arguments", [{"accelerator": "gpu"}, {"devices": 0}, {"overfit_batches": 1}]
)
def test_what_lightning_cannot_do_here_is_one_sentence(
    tiny: Make, arguments: dict[str, Any]
) -> None:
    if "accelerator" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError) as caught:
        Trainer.from_config(tiny(lightning={"accelerator": "cpu", **arguments})).train()

    assert "\n" not in str(caught.value)


def test_an_override_wins_over_the_short_name_of_its_key(tiny: Make) -> None:
    config = tiny()
    config["epoch"] = config.pop("epochs")

    assert Trainer.from_config(config, epochs=1).train()["epochs_run"] == 1


def test_a_snapshot_of_another_network_is_one_sentence(tiny: Make, tmp_path: Path) -> None:
    Trainer.from_config(tiny(epochs=1)).train()
    other = Trainer.from_config(tiny(model={"type": "unet", "features": 3, "num_blocks": 1}))

    with pytest.raises(SnapshotError, match="does not fit the network"):
        other.test(tmp_path / "runs/tiny/best.pt")


class Breaks(nn.Conv2d):
    """Its weights are no numbers after the first epoch, though its loss is one."""

    def forward(self, patch: Tensor) -> Tensor:
        out: Tensor = super().forward(patch).sigmoid()
        return out


class BreakWeights(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        with torch.no_grad():
            self.param_groups[0]["params"][1].fill_(float("nan"))
        return loss


def test_a_network_with_nan_weights_is_not_written(tiny: Make, tmp_path: Path) -> None:
    config = tiny(save_last=True, model=Breaks(1, 1, 1), batch_size=1000)

    with pytest.raises(TrainingError, match="a weight became NaN"):
        Trainer.from_config(config, optimizer=lambda p: BreakWeights(p, lr=0.1)).train()

    assert not list((tmp_path / "runs/tiny").glob("*.pt"))


def test_a_run_without_a_seed_keeps_the_one_that_was_drawn(tiny: Make, tmp_path: Path) -> None:
    Trainer.from_config(tiny(seed=None, epochs=1, save_last=True)).train()

    seed = read_snapshot(tmp_path / "runs/tiny/last.pt")["GLOBAL_CONFIG"]["seed"]
    assert 0 <= seed < 2**32


@pytest.mark.parametrize("changes", [{"seed": -1}, {"seed": 2**40}, {"batch_size": 0}])
def test_a_number_out_of_range_is_one_sentence(tiny: Make, changes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        Trainer.from_config(tiny(**changes))


def test_predicting_needs_no_run_folder_beforehand(tiny: Make, tmp_path: Path) -> None:
    (probability,) = Trainer.from_config(tiny()).predict(None)

    stored = np.load(tmp_path / "runs/tiny/prediction.npy")
    np.testing.assert_array_equal(stored, probability[0])


def test_a_map_of_several_classes_is_written_whole(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((32, 32)) + 1
    target = np.stack([image > 1.5, image > 1.2])
    trainer = Trainer(
        tmp_path,
        model=nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Sigmoid()),
        train_dataset=TileDataset(image, target=target, size=16),
        epochs=1,
        lightning={"enable_progress_bar": False},
    )
    trainer.train()

    assert np.load(tmp_path / "run" / "prediction.npy").shape == (2, 32, 32)
