"""The block ``data`` is another spelling of three data sets, and reaches those there are."""

from __future__ import annotations

import logging
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lis2_lightning import ConfigError, Trainer
from lis2_lightning.config import Schema
from lis2_lightning.config.common_data import separate

Make = Callable[..., dict[str, Any]]
SPLITS = ("train_dataset", "val_dataset", "test_dataset")
FIELD = {"type": "SyntheticDataset", "height": 64, "width": 64, "size": 16, "num_folds": 3}
BLOCK = {
    **FIELD,
    "folds": {"train": [0], "val": [1], "test": [2]},
    "train": {"data_augmentations": ["RandomHorizontalFlip"]},
}


def resolved(config: dict[str, Any]) -> dict[str, Any]:
    """The data sets of a configuration, with every argument."""
    parsed = Schema(Trainer).parse({"model": "unet", **config}).config
    return {key: parsed[key] for key in SPLITS}


def test_the_block_and_the_three_data_sets_are_the_same_configuration() -> None:
    flips = {"data_augmentations": ["RandomHorizontalFlip"]}
    three = {
        "train_dataset": {**FIELD, "folds": [0], **flips},
        "val_dataset": {**FIELD, "folds": [1]},
        "test_dataset": {**FIELD, "folds": [2]},
    }
    assert separate({"data": BLOCK, "seed": 1}) == {**three, "seed": 1}
    assert resolved({"data": BLOCK}) == resolved(three)


def test_the_block_may_be_spelled_with_class_path() -> None:
    arguments = {key: value for key, value in BLOCK.items() if key != "type"}
    path = "lis2_lightning.data.SyntheticDataset"
    long = {"class_path": path, "init_args": arguments}
    assert resolved({"data": long}) == resolved({"data": BLOCK})


def test_a_run_of_the_block_writes_the_three_data_sets(tiny: Make) -> None:
    config = {key: value for key, value in tiny().items() if key not in SPLITS}
    trainer = Trainer.from_config({**config, "data": BLOCK}, **{"data.size": 8})
    assert "data" not in trainer.global_config
    assert [trainer.global_config[key]["init_args"]["size"] for key in SPLITS] == [8, 8, 8]
    assert [trainer.global_config[key]["init_args"]["folds"] for key in SPLITS] == [[0], [1], [2]]


def test_splits_that_are_not_named_are_not_made() -> None:
    assert separate({"data": FIELD}) == {"train_dataset": FIELD}
    per_file = {
        "type": "PatchDataset",
        "train": {"dataset_path": "a"},
        "val": {"dataset_path": "b"},
    }
    assert separate({"data": per_file}) == {
        "train_dataset": {"type": "PatchDataset", "dataset_path": "a"},
        "val_dataset": {"type": "PatchDataset", "dataset_path": "b"},
    }
    assert separate({"data": BLOCK, "val_dataset": None})["val_dataset"] is None


def test_without_a_class_it_changes_the_data_sets_there_are() -> None:
    three = {key: {"class_path": "TileDataset", "init_args": {"size": 64}} for key in SPLITS}
    changed = separate(
        {**three, "data": {"size": 32, "train": {"stride": 8}}, "test_dataset": None}
    )
    assert changed["train_dataset"]["init_args"] == {"size": 32, "stride": 8}
    assert changed["val_dataset"]["init_args"] == {"size": 32}
    assert changed["test_dataset"] is None


def test_what_is_written_for_one_data_set_alone_wins_over_the_block() -> None:
    made = separate({"data": BLOCK, "test_dataset": {"size": 32}, "val_dataset": {"init_args": {}}})
    assert [made[key]["size"] for key in SPLITS] == [16, 16, 32]


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"data": {"size": 3}}, "data names no class: add 'type: <name>'"),
        ({"data": "tiles"}, "data must hold keys and values, got 'tiles'"),
        ({"data": {**FIELD, "train": True}}, "data.train must hold keys and values, got True"),
        ({"data": {**FIELD, "folds": {"vall": [1]}}}, "'vall' in data.folds: did you mean 'val'?"),
        (
            {"data": FIELD, "train_dataset": FIELD},
            "data and train_dataset both describe a data set",
        ),
        ({"data": FIELD, "val_dataset": "TileDataset"}, "data and val_dataset both describe"),
        ({"data": {"size": 3}, "train_dataset": [1]}, "train_dataset is an object, which data"),
    ],
)
def test_a_block_that_says_too_little_or_too_much_is_one_sentence(
    config: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as error:
        separate(deepcopy(config))
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sze": 3}, "unknown key 'data.sze': did you mean 'data.size' or 'data.seed'? "),
        ({"size": "wide"}, "data.size must be int, got wide "),
    ],
)
def test_a_mistake_in_the_block_is_reported_once(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolved({"data": {**BLOCK, **changes}, "epochs": "x"})
    places = "(in train_dataset, val_dataset and test_dataset)"
    assert str(error.value) == f"{sentence}{places}; epochs must be int, got x"


def test_a_mistake_in_one_data_set_is_reported_there() -> None:
    with pytest.raises(ConfigError, match=r"^unknown key 'val_dataset.sze'"):
        resolved({"data": {**BLOCK, "val": {"sze": 3}}})


def maps(folder: Path, name: str) -> str:
    """The path of an image, which may be a target."""
    np.save(folder / f"{name}.npy", np.indices((48, 48)).sum(0) % 2.0)
    return str(folder / f"{name}.npy")


def test_a_key_that_one_data_set_alone_has_otherwise_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("lis2_lightning"), "propagate", True)
    image, target = maps(tmp_path, "image"), maps(tmp_path, "target")
    block = {"type": "TileDataset", "image": image, "target": target, "size": 16}
    data = {**block, "folds": {"train": None, "val": None}}
    resolved({"data": data})
    assert not caplog.messages
    resolved({"data": data, "train_dataset": {"size": 8}})
    [line] = caplog.messages
    assert line == "size is 8 in train_dataset, 16 in val_dataset: data.size sets it for all"
    caplog.clear()
    other = maps(tmp_path, "other")
    resolved({"data": data, "train_dataset": {"image": other}})
    assert "data.image sets it for all" in caplog.text
    caplog.clear()
    resolved({"data": data, "val_dataset": {"image": other, "target": other}})
    assert not caplog.messages  # another map, with a truth of its own
