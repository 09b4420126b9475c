"""A list of thousands of numbers is checked as a short one is, and costs next to nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from lis2_lightning import ConfigError, Trainer
from lis2_lightning.data import PatchDataset

Make = Callable[..., dict[str, Any]]
COUNT = 27_780  # patches of LIS2's example


@pytest.fixture
def folds(tiny: Make, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A configuration of a data set that lists the patches of its folds."""
    with h5py.File(tmp_path / "patches.h5", "w") as file:
        for name in ("patches", "spines"):
            file[name] = np.zeros((COUNT, 2, 2, 1), np.float32)

    def make(**assignments: Any) -> dict[str, Any]:
        dataset = {
            "type": "FilamentsDataset",
            "dataset_path": str(tmp_path / "patches.h5"),
            "fold_assignments": assignments,
            "fold_list": ["train"],
            "use_all_patches": True,
        }
        return tiny(train_dataset=dataset, val_dataset=None, test_dataset=None)

    return make


# jsonargparse alone would be at it for an hour
def test_a_file_that_lists_thousands_of_patches_is_read(folds: Make, tmp_path: Path) -> None:
    numbers = [*range(0, COUNT, 2)]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(folds(train=numbers, test=[*range(1, COUNT, 2)])))
    trainer = Trainer.from_config(path)
    train = trainer.data.train
    assert isinstance(train, PatchDataset)
    assert train.numbers.tolist() == numbers
    written = trainer.global_config["train_dataset"]["init_args"]["fold_assignments"]
    assert written["train"] == numbers
    assert len(written["test"]) == COUNT // 2
    again = Trainer.from_config(trainer.global_config)
    assert again.global_config == trainer.global_config


def test_the_names_of_folds_may_be_numbers(folds: Make) -> None:
    config = folds(train=[0], test=[1])
    config["train_dataset"] |= {"fold_assignments": {7: [*range(50)]}, "fold_list": [7]}
    assert len(Trainer.from_config(config).data.train) == 50  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [0.5, "first", None, [1]])
def test_one_wrong_item_is_found_among_thousands(folds: Make, wrong: Any) -> None:
    numbers: list[Any] = [*range(60)]
    numbers[40] = wrong
    with pytest.raises(ConfigError, match=r"train_dataset.fold_assignments"):
        Trainer.from_config(folds(train=numbers))


def test_whole_numbers_become_what_the_argument_takes(tiny: Make) -> None:
    config = tiny(scheduler={"type": "MultiStepLR", "milestones": [*range(1, 101)], "gamma": 0.9})
    milestones = Trainer.from_config(config).global_config["scheduler"]["init_args"]["milestones"]
    assert milestones == [*range(1, 101)]
