"""Configurations as LIS2 has them train as they are; only their paths are filled in."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from lis2_lightning import ConfigError, Trainer
from lis2_lightning.__main__ import main
from lis2_lightning.config import load_config, to_class_paths

THEIRS = Path(__file__).parent / "lis2"
NAMES = ["config_model_unet", "config_no_controller"]
Fill = Callable[[str], Path]


@pytest.fixture
def fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fill:
    """Write one of them with paths of this machine."""
    monkeypatch.setattr(sys, "argv", ["lis2"])
    rng = np.random.default_rng(0)
    shape = (12, 16, 16, 1)
    with h5py.File(tmp_path / "patches.h5", "w") as file:
        file["patches"] = rng.random(shape, dtype=np.float32)
        file["spines"] = (rng.random(shape) > 0.5).astype(np.float32)
        file["labelled"] = np.ones(shape, np.float32)
        file["positions"] = np.zeros((12, 2, 2, 1), np.float32)
    paths = {
        "PATCHES": str(tmp_path / "patches.h5"),
        "ENCODER": str(THEIRS / "position_encoding.yaml"),
        "OUT": str(tmp_path / "runs"),
    }

    def write(name: str) -> Path:
        text = (THEIRS / f"{name}.yaml").read_text(encoding="utf-8")
        for word, path in paths.items():
            text = text.replace(word, path)
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
        return tmp_path / f"{name}.yaml"

    return write


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_of_lis2_trains_as_it_is(fill: Fill, name: str) -> None:
    path = fill(name)
    config = yaml.safe_load(path.read_text())
    assert main(["fit", "--config", str(path)]) == 0
    folder = Path(config["output_dir"]) / config["run_name"]
    assert (folder / "best.pt").is_file()
    used = yaml.safe_load((folder / "config.yaml").read_text())
    assert used["epochs"] == config["epoch"]
    assert used["optimizer"]["init_args"]["lr"] == config["optimizer"]["lr"]
    assert used["scheduler"]["init_args"]["milestones"] == config["scheduler"]["milestones"]


def test_a_component_may_lie_in_a_file_of_its_own(fill: Fill) -> None:
    model = Trainer.from_config(fill("config_model_unet")).global_config["model"]["init_args"]
    assert model["encoder"]["class_path"] == "lis2_lightning.models.LinPositionEncoding"
    assert model["encoder"]["init_args"]["vars_config"][1]["scale"] == 114000


def test_what_lis2_ignores_is_reported_in_one_line(
    fill: Fill, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("lis2_lightning"), "propagate", True)
    with caplog.at_level(logging.INFO, "lis2_lightning"):
        to_class_paths({"split_ratio": 0.8, **load_config(fill("config_model_unet"))})
    [line] = caplog.messages
    assert line.startswith("without effect, as in LIS2: ")
    for key in ("split_ratio", "model.name", "train_dataset.split_ratio", "val_dataset.name"):
        assert f" {key}," in f"{line},"


def test_a_key_that_nobody_knows_is_an_error(fill: Fill) -> None:
    config = {**load_config(fill("config_no_controller")), "force_devise": "cpu"}
    with pytest.raises(ConfigError, match="unknown key 'force_devise'"):
        Trainer.from_config(config)


def test_corners_that_are_rotated_in_are_unlabelled(fill: Fill) -> None:
    data = Trainer.from_config(fill("config_no_controller"), seed=3).data
    batch = next(iter(data.train_dataloader()))
    assert not bool(batch["labelled"].all())  # all of the file's pixels are
    assert bool((batch["patch"][~batch["labelled"]] == 0).float().mean() > 0.5)
    assert bool((batch["target"][~batch["labelled"]] == 0).all())
