"""Files of LIS2's pipeline and the arguments of its scripts mean here what they can mean."""

from __future__ import annotations

import logging
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from lis2_lightning import ConfigError, Trainer
from lis2_lightning.__main__ import main
from lis2_lightning.config import load_config

Make = Callable[..., dict[str, Any]]
Change = Callable[..., dict[str, Any]]
THEIRS = Path(__file__).parent / "lis2" / "config_pipeline.yaml"
SPLITS = ("train_dataset", "val_dataset", "test_dataset")


@pytest.fixture
def pipeline(tmp_path: Path) -> Change:
    """The file with paths of this machine, and other values in its controller."""
    rng, side = np.random.default_rng(0), range(0, 160, 16)
    corners = np.array([(row, column) for row in side for column in side], np.float32)
    shape = (len(corners), 16, 16, 1)
    with h5py.File(tmp_path / "patches.h5", "w") as file:
        file["patches"] = rng.random(shape, dtype=np.float32)
        file["spines"] = (rng.random(shape) > 0.5).astype(np.float32)
        file["labelled"] = np.ones(shape, np.float32)
        file["positions"] = np.stack((corners, corners + 16), axis=-1)[..., None]
    text = THEIRS.read_text(encoding="utf-8")
    text = text.replace("PATCHES", str(tmp_path / "patches.h5"))
    config: dict[str, Any] = yaml.safe_load(text.replace("OUT", str(tmp_path / "runs")))

    def change(**controller: Any) -> dict[str, Any]:
        changed = deepcopy(config)
        changed["data"]["controller"] |= controller
        return changed

    return change


@pytest.fixture
def messages(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], list[str]]:
    """The lines of the log that begin with some words."""
    monkeypatch.setattr(logging.getLogger("lis2_lightning"), "propagate", True)
    caplog.set_level(logging.INFO, "lis2_lightning")
    return lambda begin: [text for text in caplog.messages if text.startswith(begin)]


def numbers(trainer: Trainer) -> list[list[int]]:
    data = trainer.data
    return [split.numbers.tolist() for split in (data.train, data.val, data.test)]  # type: ignore[union-attr]


@pytest.mark.usefixtures("no_pictures")
def test_a_file_of_the_pipeline_trains_as_it_is(pipeline: Change, tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(yaml.safe_dump(pipeline()), encoding="utf-8")
    assert main(["fit", "--config", str(path), "--optimizer.lr", "0.01"]) == 0
    used = yaml.safe_load((tmp_path / "runs/pipeline/config.yaml").read_text(encoding="utf-8"))
    assert used["epochs"] == 1
    assert used["optimizer"]["init_args"]["lr"] == 0.01
    assert [used[split]["init_args"]["stride"] for split in SPLITS] == [3, 1, 1]
    assert {used[split]["init_args"]["area_folds"]["area_size"] for split in SPLITS} == {32}


def test_the_controller_deals_ten_folds_as_lis2_does(pipeline: Change) -> None:
    train, val, test = numbers(Trainer.from_config(pipeline()))
    # 25 areas of 2 x 2 patches in turn: folds 0 to 4 have 3 areas each, the others 2
    assert (len(train), len(val), len(test)) == (5 * 4 + 3 * 3, 8, 8)  # every third of 12, of 8
    assert len({*train, *val, *test}) == len(train) + len(val) + len(test)
    assert val[:4] == [n for n in range(100) if (n // 20, n % 10 // 2) == (1, 3)]


def test_naive_folds_are_blocks_of_areas(pipeline: Change) -> None:
    config = pipeline(type="NaiveController")
    config["data"]["trainset"]["stride"] = 1
    train, val, test = numbers(Trainer.from_config(config))
    assert (len(train), len(val), len(test)) == (8 * 8, 8, 28)  # the last has what is left over
    assert {number // 20 for number in test} == {3, 4}


def test_one_of_several_splits_is_trained_and_named_as_in_lis2(pipeline: Change) -> None:
    trainer = Trainer.from_config(pipeline(nb_folds=5, train_ratio=0.6, split=4))
    assert trainer.global_config["run_name"] == "pipeline_fold_4"
    lists = [trainer.global_config[split]["init_args"]["fold_list"] for split in SPLITS]
    assert lists == [[1, 2, 3], [4], [0]]


def test_what_is_passed_beside_the_file_wins(pipeline: Change) -> None:
    trainer = Trainer.from_config(pipeline(), run_name="mine", **{"train_dataset.stride": 1})
    assert trainer.global_config["run_name"] == "mine"
    assert len(numbers(trainer)[0]) == 5 * 12 + 3 * 8


def test_what_has_no_effect_is_told_in_one_line(
    pipeline: Change, messages: Callable[[str], list[str]]
) -> None:
    load_config(pipeline())
    assert messages("the configuration is one of LIS2's pipeline") == [
        "the configuration is one of LIS2's pipeline; without effect here: inference_source, gpus"
    ]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "several": (
        {"nb_folds": 5, "train_ratio": 0.6},
        r"data.controller.split must be a number from 0 to 4, one for each run that LIS2 makes of "
        r"this file, got None",
    ),
    "no such split": ({"split": 1}, r"data.controller.split must be a number from 0 to 0.* got 1"),
    "half a fold": ({"nb_folds": 2.5}, r"data.controller.nb_folds must be a whole number, got 2.5"),
    "ratio": ({"train_ratio": 0.7}, r"train_ratio 0.7 with 1 folds is none of LIS2's splits"),
    "ratio of folds": ({"nb_folds": 5, "train_ratio": 0.8}, r"training has all but 2 or 4 of"),
    "text": ({"nb_folds": "many"}, r"data.controller.nb_folds must be a whole number, got 'many'"),
    "type": (
        {"type": "MyController"},
        r"data.controller must have a type of RandomController, NaiveController, got .*: or write "
        r"train_dataset, val_dataset and test_dataset, each with fold_assignments and fold_list",
    ),
    "key": ({"area_sise": 3}, r"unknown key 'data.controller.area_sise': .*'area_size'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_folds_that_mean_nothing_here_are_refused(pipeline: Change, name: str) -> None:
    controller, sentence = REFUSED[name]
    with pytest.raises(ConfigError, match=sentence):
        Trainer.from_config(pipeline(**controller))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"validset": None}, r"data.validset must hold keys and values, got None"),
        ({"trainsets": {}}, r"unknown key 'data.trainsets': did you mean 'trainset'"),
    ],
)
def test_a_wrong_section_is_refused(pipeline: Change, data: dict[str, Any], sentence: str) -> None:
    config = pipeline()
    config["data"] |= data
    with pytest.raises(ConfigError, match=sentence):
        load_config(config)


def test_a_search_over_values_is_several_runs(pipeline: Change) -> None:
    config = {**pipeline(), "gridsearch": {"trainer": {"batch_size": [2, 4]}}}
    with pytest.raises(ConfigError, match="gridsearch asks for several runs: lis2 tune makes them"):
        Trainer.from_config(config)


def test_sections_without_data_are_read_too(tiny: Make, tmp_path: Path) -> None:
    config = tiny()
    trainer = {key: config.pop(key) for key in ("optimizer", "epochs", "batch_size")}
    del config["output_dir"]
    config = {**config, "trainer": trainer, "train_output_dir": str(tmp_path / "out")}
    used = Trainer.from_config(config).global_config
    assert (used["output_dir"], used["epochs"]) == (str(tmp_path / "out"), 2)


@pytest.mark.parametrize(
    ("arguments", "lightning"),
    [
        ({"debug": True}, {}),
        ({"force_device": None, "multi_gpu": False, "debug": False}, {"devices": 1}),
        ({"force_device": "cpu"}, {"accelerator": "cpu", "devices": 1}),
        ({"force_device": "cuda:1"}, {"accelerator": "gpu", "devices": [1]}),
        ({"force_device": 2, "multi_gpu": True}, {"accelerator": "gpu", "devices": [2]}),
        ({"multi_gpu": True}, {}),  # devices: auto, which is the default
        (
            {"force_device": "cuda", "lightning": {"accelerator": "cpu"}},
            {"accelerator": "cpu", "devices": 1},
        ),
    ],
)
def test_arguments_of_lis2s_scripts_become_lightnings(
    tiny: Make,
    messages: Callable[[str], list[str]],
    arguments: dict[str, Any],
    lightning: dict[str, Any],
) -> None:
    settings = {**tiny(lightning={}), **arguments}
    assert Trainer.from_config(settings).global_config["lightning"] == lightning
    [line] = messages("LIS2's ")
    assert line.endswith("here without effect") == (set(arguments) == {"debug"})


def test_a_device_that_lightning_does_not_have_is_refused(tiny: Make) -> None:
    with pytest.raises(ConfigError, match="force_device 'tpu:1' is unknown: use cpu, cuda, cuda:0"):
        Trainer.from_config(tiny(), force_device="tpu:1")
