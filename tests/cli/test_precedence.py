"""Which of several sources of a value wins: typed, file, environment, snapshot, default."""

from __future__ import annotations

import csv
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lis2_lightning import ConfigError
from lis2_lightning.__main__ import main

Make = Callable[..., dict[str, Any]]
Finished = tuple[Path, dict[str, Any]]
Printed = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _nothing_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning warns if a program has command-line words besides those passed to it."""
    monkeypatch.setattr(sys, "argv", ["lis2"])


@pytest.fixture
def file(tiny: Make, tmp_path: Path) -> Callable[..., str]:
    """Write a configuration, with keys of the test's own."""

    def write(name: str = "tiny.yaml", **changes: Any) -> str:
        config = {key: value for key, value in tiny(**changes).items() if value != "left out"}
        (tmp_path / name).write_text(yaml.safe_dump(config), encoding="utf-8")
        return str(tmp_path / name)

    return write


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """The configuration that a command line comes to."""

    def read(*words: str) -> dict[str, Any]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(["fit", *words, "--print_config"])
        assert not stop.value.code
        output: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
        return output

    return read


File = Callable[..., str]


def test_what_is_typed_beats_the_file_and_the_environment(
    file: File, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIS2_EPOCHS", "5")
    monkeypatch.setenv("LIS2_OPTIMIZER", "SGD")
    output = printed("--epochs", "7", "--optimizer", "RAdam", "--config", file(epochs=6))
    assert output["epochs"] == 7
    assert output["optimizer"]["class_path"] == "torch.optim.RAdam"


def test_the_file_beats_the_environment(
    file: File, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIS2_EPOCHS", "5")
    monkeypatch.setenv("LIS2_OPTIMIZER__LR", "0.5")
    monkeypatch.setenv("LIS2_OPTIMIZER", "SGD")
    output = printed("--config", file(epochs=6))
    assert output["epochs"] == 6
    assert output["optimizer"]["class_path"] == "torch.optim.Adam"
    assert output["optimizer"]["init_args"]["lr"] == 0.01


def test_the_environment_beats_the_defaults(
    file: File, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIS2_SAVE_INTERVAL", "3")
    monkeypatch.setenv("LIS2_SCHEDULER", "{type: StepLR, step_size: 4}")
    monkeypatch.setenv("LIS2_SCHEDULER__GAMMA", "0.5")
    monkeypatch.setenv("LIS2_LIGHTNING__PRECISION", "bf16-mixed")
    monkeypatch.setenv("LIS2_RUN_NAME", "2024")
    output = printed("--config", file(run_name="left out"))
    assert output["save_interval"] == 3
    assert output["scheduler"]["init_args"]["step_size"] == 4
    assert output["scheduler"]["init_args"]["gamma"] == 0.5
    assert output["lightning"]["precision"] == "bf16-mixed"
    assert output["run_name"] == "2024"


def test_a_variable_of_the_command_beats_that_of_all_commands(
    file: File, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIS2_FIT__SAVE_INTERVAL", "4")
    monkeypatch.setenv("LIS2_SAVE_INTERVAL", "3")
    monkeypatch.setenv("LIS2_TEST__SAVE_INTERVAL", "5")
    assert printed("--config", file())["save_interval"] == 4


def test_a_file_named_in_the_environment_is_read_and_beaten(
    file: File, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIS2_CONFIG", file(epochs=8, batch_size=2))
    monkeypatch.setenv("LIS2_EPOCHS", "5")
    output = printed()
    assert (output["epochs"], output["batch_size"]) == (5, 2)


def test_a_later_file_beats_an_earlier_one(file: File, printed: Printed, tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("epochs: 9\noptimizer: {lr: 0.5}\n", encoding="utf-8")
    output = printed("--config", file(), "--config", str(tmp_path / "more.yaml"))
    assert output["epochs"] == 9
    assert output["optimizer"]["init_args"]["lr"] == 0.5
    assert output["batch_size"] == 4


def test_a_misspelt_variable_is_reported_and_does_no_harm(
    file: File, printed: Printed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LIS2_EPOCHZ", "5")
    monkeypatch.setenv("LIS2_DEBUGGING_AID", "x")
    monkeypatch.setattr(logging.getLogger("lis2_lightning"), "propagate", True)
    assert printed("--config", file())["epochs"] == 2
    [line] = caplog.messages
    assert line == "LIS2_EPOCHZ in the environment sets no key: did you mean LIS2_EPOCHS?"


def rates(folder: Path) -> list[float]:
    """The rate of each epoch in a log."""
    with (folder / "logs_train.csv").open(encoding="utf-8", newline="") as log:
        return [float(row["lr"]) for row in csv.DictReader(log)]


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("source", ["typed", "file", "environment"])
def test_each_of_them_beats_what_a_snapshot_has(
    finished: Finished, file: File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    shutil.copytree(finished[0], tmp_path / "runs/tiny")
    lr = {"type": "Adam", "lr": 0.125}
    (tmp_path / "runs/tiny/results.json").unlink(missing_ok=True)
    config = file(epochs=6, optimizer=lr if source == "file" else "left out")
    words = ["--optimizer", "Adam", "--optimizer.lr", "0.125"] if source == "typed" else []
    if source == "environment":
        monkeypatch.setenv("LIS2_OPTIMIZER", "{type: Adam, lr: 0.125}")
    last = str(tmp_path / "runs/tiny/last.pt")
    assert main(["fit", "--config", config, "--resume", last, *words]) == 0
    assert rates(tmp_path / "runs/tiny") == [0.02] * 5 + [0.125]


def test_a_list_is_added_to(file: File, printed: Printed) -> None:
    output = printed(
        "--config", file(metrics=["dice"]), "--metrics+=iou", "--metrics.threshold=0.3"
    )
    assert [metric["class_path"].rpartition(".")[2] for metric in output["metrics"]] == [
        "Dice",
        "IoU",
    ]
    assert output["metrics"][1]["init_args"]["threshold"] == 0.3
    usual = printed("--config", file(), "--metrics+", "iou")["metrics"]
    assert len(usual) == 4


def test_callbacks_of_lightning_are_added_to(file: File, printed: Printed) -> None:
    words = ["--lightning.callbacks+=LearningRateMonitor"]
    words += ["--lightning.callbacks.logging_interval=epoch", "--lightning.callbacks+=ModelSummary"]
    output = printed("--config", file(), *words)["lightning"]["callbacks"]
    assert [callback["class_path"].rpartition(".")[2] for callback in output] == [
        "LearningRateMonitor",
        "ModelSummary",
    ]
    assert output[0]["init_args"]["logging_interval"] == "epoch"


def test_a_default_that_no_file_can_say_is_left_to_the_class(file: File, printed: Printed) -> None:
    [timer] = printed("--config", file(), "--lightning.callbacks+=Timer")["lightning"]["callbacks"]
    assert timer["init_args"] == {"duration": None, "verbose": True}


def test_an_item_of_a_list_is_reached_by_its_number(file: File, printed: Printed) -> None:
    words = ["--metrics.1.threshold", "0.4", "--metrics+=", "iou", "--metrics.threshold", "0.2"]
    metrics = printed("--config", file(), *words)["metrics"]
    assert [metric["class_path"].rpartition(".")[2] for metric in metrics] == [
        *("AveragePrecision", "Dice", "RocAuc", "IoU")
    ]
    assert [metrics[i]["init_args"]["threshold"] for i in (1, 3)] == [0.4, 0.2]
    flip = "--train_dataset.data_augmentations.0.keys_to_augment"
    output = printed("--config", file(), flip, "[patch, target, labelled]")["train_dataset"]
    [augmentation] = output["init_args"]["data_augmentations"]
    assert augmentation["init_args"]["keys_to_augment"] == ["patch", "target", "labelled"]


def test_an_item_that_is_not_there_is_one_sentence(
    file: File, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--config", file(), "--metrics.3.threshold", "0.4"]) == 2
    assert "metrics.3 is not there: metrics has 3 items" in capsys.readouterr().err
    assert main(["plan", "--config", file(), "--trackers.0.project", "x"]) == 2
    assert "trackers has no items" in capsys.readouterr().err


def test_flags_reach_inside_what_no_file_names(file: File, printed: Printed) -> None:
    config = file(optimizer="left out", early_stopper=True)
    output = printed("--config", config, "--optimizer.lr", "0.5", "--early_stopper.patience", "3")
    assert output["optimizer"]["class_path"] == "torch.optim.Adam"
    assert output["optimizer"]["init_args"]["lr"] == 0.5
    assert output["early_stopper"]["init_args"]["patience"] == 3


def test_one_flag_reaches_all_data_sets(file: File, printed: Printed) -> None:
    output = printed("--config", file(), "--data.size", "8", "--data.stride", "8")
    sizes = [output[f"{split}_dataset"]["init_args"]["size"] for split in ("train", "val", "test")]
    assert sizes == [8, 8, 8]


def test_the_folder_of_a_run_stands_for_its_configuration(
    finished: Finished, printed: Printed, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder, _ = finished
    assert printed("--config", str(folder)) == printed("--config", str(folder / "config.yaml"))
    assert main(["fit", "--config", str(tmp_path)]) == 2
    assert f"the folder {tmp_path} holds no config.yaml" in capsys.readouterr().err


def test_augmentations_inside_a_data_set_are_added_to(file: File, printed: Printed) -> None:
    output = printed("--config", file(), "--train_dataset.data_augmentations+=RandomVerticalFlip")
    names = [
        augmentation["class_path"]
        for augmentation in output["train_dataset"]["init_args"]["data_augmentations"]
    ]
    assert [name.rpartition(".")[2] for name in names] == [
        "RandomHorizontalFlip",
        "RandomVerticalFlip",
    ]


@pytest.mark.parametrize("name", ["unet", "UNet", "lis2_lightning.models.UNet"])
def test_a_component_has_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--model.help", name])
    assert not stop.value.code
    assert "--model.num_blocks" in capsys.readouterr().out


def test_help_of_an_unknown_component_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--model.help", "unett"]) == 2
    assert "did you mean 'unet'" in capsys.readouterr().err


def test_wrong_flags_are_reported_at_once(file: File, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", file(), "--epochz", "3", "--sede=4"]) == 2
    output = capsys.readouterr().err
    assert "'--epochs'" in output
    assert "'--seed'" in output


def test_a_wrong_value_in_the_environment_is_named() -> None:
    from lis2_lightning.config.arguments import from_environment

    with pytest.raises(ConfigError, match="LIS2_OPTIMIZER is not valid YAML"):
        from_environment({"LIS2_OPTIMIZER": "{a: ["}, ["optimizer"], command="fit")
