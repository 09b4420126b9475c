"""Every way to name a tracker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger

from lis2_lightning import ConfigError, Trainer
from lis2_lightning.trackers.delivery import sync
from lis2_lightning.trackers.journal_logger import JournalLogger, close_all, journal_logger

Make = Callable[..., dict[str, Any]]
THEIRS = "lightning.pytorch.loggers.CSVLogger"


def journal_loggers(trainer: Trainer) -> list[JournalLogger]:
    return [logger for logger in trainer.tracker if isinstance(logger, JournalLogger)]


@pytest.mark.parametrize(
    ("trackers", "names"),
    [
        (["wandb"], ["wandb"]),
        ([{"type": "wandb", "project": "filaments", "entity": "us"}], ["wandb"]),
        ({"type": "Wandb", "entity": "us"}, ["wandb"]),
        (
            {"type": "Mlflow", "tracking_uri": "http://127.0.0.1:1", "experiment_name": "a"},
            ["mlflow"],
        ),
        (["tensorboard", "csv"], ["tensorboard"]),
        ({"class_path": THEIRS, "init_args": {"save_dir": "."}}, ["csvlogger"]),
        ([], []),
    ],
    ids=str,
)
def test_a_tracker_is_named_in_many_ways(tiny: Make, trackers: Any, names: list[str]) -> None:
    trainer = Trainer.from_config(tiny(trackers=trackers))

    assert trainer.tracker[0].name == "csv"
    assert [made.name for made in journal_loggers(trainer)] == names


def test_an_object_is_taken_as_it_is(tiny: Make, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)

    (made,) = journal_loggers(Trainer.from_config(tiny(), trackers=[logger]))

    assert made.inner is logger


def test_a_copy_of_the_csv_file_goes_where_output_run_says(tiny: Make, tmp_path: Path) -> None:
    config = tiny(trackers={"type": "CsvLogger", "output_run": str(tmp_path / "logs")})

    own, copy = Trainer.from_config(config).tracker

    assert getattr(own, "path", None) == tmp_path / "runs" / "tiny" / "logs_train.csv"
    assert getattr(copy, "path", None) == tmp_path / "logs" / "logs_train.csv"


def test_a_relative_output_run_stays_where_the_program_was(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, copy = Trainer.from_config(tiny(trackers={"type": "csv", "output_run": "logs"})).tracker

    assert getattr(copy, "path", None) == tmp_path / "logs" / "logs_train.csv"


def test_an_output_run_that_is_the_runs_own_folder_is_no_copy(tiny: Make, tmp_path: Path) -> None:
    config = tiny(trackers={"type": "CsvLogger", "output_run": str(tmp_path / "runs" / "tiny")})

    assert len(Trainer.from_config(config).tracker) == 1


def test_an_unknown_key_of_a_tracker_is_refused(tiny: Make) -> None:
    with pytest.raises(ConfigError, match="nothing_such"):
        Trainer.from_config(tiny(trackers={"type": "wandb", "nothing_such": "filaments"}))


def test_rows_of_a_logger_named_by_class_path_are_delivered_later(tmp_path: Path) -> None:
    plain = {"class_path": THEIRS, "init_args": {"save_dir": str(tmp_path), "name": "late"}}
    made = journal_logger(CSVLogger(tmp_path), plain, tmp_path / "run", "run")
    made.journal.append("start", **{"key": "k", **made.start})
    made.journal.append("row", values={"epoch": 0.0, "loss": 0.5}, step=0, index=0)

    (delivery,) = sync(tmp_path / "run")

    assert (delivery.rows, delivery.left) == (1, 0)
    (written,) = (tmp_path / "late").rglob("metrics.csv")
    assert "0.5" in written.read_text()


@pytest.mark.parametrize(
    "path", ["os.system", "antigravity.Logger", "lightning.pytorch.loggers.csv_logs.os"]
)
def test_a_journal_names_loggers_and_nothing_else(tmp_path: Path, path: str) -> None:
    made = journal_logger(CSVLogger(tmp_path), {"class_path": path}, tmp_path / "run", "run")
    made.journal.append("start", **{"key": "k", **made.start})

    (delivery,) = sync(tmp_path / "run")

    assert "ConfigError" in delivery.message


def test_a_journal_logger_cannot_be_a_tracker(tiny: Make, tmp_path: Path) -> None:
    made = journal_logger(CSVLogger(tmp_path), None, tmp_path / "run", "run")

    with pytest.raises(ConfigError, match="trackers cannot contain a JournalLogger"):
        _ = Trainer.from_config(tiny(), trackers=[made]).tracker


def test_rows_of_an_object_say_that_nobody_can_make_it_again(tmp_path: Path) -> None:
    made = journal_logger(CSVLogger(tmp_path), None, tmp_path / "run", "run")
    made.journal.append("start", **{"key": "k", **made.start})
    made.journal.append("row", values={"epoch": 0.0}, step=0, index=0)

    (delivery,) = sync(tmp_path / "run")

    assert delivery.left == 1
    assert "object in Python" in delivery.message
    close_all([made], "finished")
