"""JournalLogger: whatever a tracker does, the training continues, and its rows are kept."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger

from lis2_lightning import ConfigError, Trainer
from lis2_lightning.trackers import CsvLogger, Mlflow, TensorBoard, Wandb
from lis2_lightning.trackers.delivery import sync
from lis2_lightning.trackers.journal_logger import (
    JournalLogger,
    close_all,
    journal_logger,
    start_all,
)

Make = Callable[..., dict[str, Any]]


class Keeps(Logger):
    """A user's own logger: keeps what it gets, and may be told to fail or to hang."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []
        self.params: dict[str, Any] = {}
        self.status = ""
        self.checkpoints: list[Any] = []
        self.fault: Exception | None = None
        self.hangs = threading.Event()
        self.hangs.set()

    @property
    def name(self) -> str:
        return "keeps"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.params.update(params)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.hangs.wait()
        if self.fault is not None:
            raise self.fault
        self.rows.append((step, dict(metrics)))

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        self.checkpoints.append(checkpoint_callback)

    def finalize(self, status: str) -> None:
        self.status = status


@pytest.fixture
def logger() -> Iterator[Keeps]:
    made = Keeps()
    yield made
    made.hangs.set()


@pytest.fixture
def journalled(logger: Keeps, tmp_path: Path, hasty: None) -> JournalLogger:  # noqa: ARG001
    return journal_logger(logger, None, tmp_path / "run", "run")


def rows_in(path: Path) -> list[int]:
    records = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [record["step"] for record in records if record["kind"] == "row"]


def test_rows_reach_the_logger_in_order_and_it_is_closed(
    journalled: JournalLogger, logger: Keeps
) -> None:
    journalled.log_hyperparams({"lr": 0.1, "model": {"features": 2}})
    for epoch in range(3):
        journalled.log_metrics({"epoch": epoch, "train_loss": 1.0 / (epoch + 1)}, step=epoch)

    close_all([journalled], "finished")

    assert [step for step, _ in logger.rows] == [0, 1, 2]
    assert logger.rows[1][1] == {"epoch": 1.0, "train_loss": 0.5}
    assert logger.params == {"lr": 0.1, "model": {"features": 2}}
    assert logger.status == "success"


def test_a_logger_is_informed_of_each_checkpoint(journalled: JournalLogger, logger: Keeps) -> None:
    callback = ModelCheckpoint()
    journalled.after_save_checkpoint(callback)

    close_all([journalled], "finished")

    assert logger.checkpoints == [callback]


def test_a_logger_that_hangs_delays_neither_a_step_nor_the_end(
    journalled: JournalLogger, logger: Keeps, caplog: pytest.LogCaptureFixture
) -> None:
    logger.hangs.clear()
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, "lis2_lightning"):
        for epoch in range(50):
            journalled.log_metrics({"epoch": epoch}, step=epoch)
        steps = time.monotonic() - began
        close_all([journalled], "finished")

    assert steps < 1  # 50 steps; one of them would hang for ever
    assert time.monotonic() - began < 5
    assert len(caplog.records) == 1
    assert "lis2 sync" in caplog.text
    assert rows_in(journalled.journal.path) == list(range(50))


def test_a_logger_that_fails_is_switched_off_with_one_warning(
    journalled: JournalLogger, logger: Keeps, caplog: pytest.LogCaptureFixture
) -> None:
    logger.fault = OSError("no route")
    with caplog.at_level(logging.WARNING, "lis2_lightning"):
        for epoch in range(20):
            journalled.log_metrics({"epoch": epoch}, step=epoch)
            time.sleep(0.05)
        close_all([journalled], "failed")

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "'keeps' is off (OSError: no route)" in caplog.text
    assert journalled.journal.rows_left() == 20


def test_a_logger_that_comes_back_gets_every_row(journalled: JournalLogger, logger: Keeps) -> None:
    logger.fault = OSError("no route")
    journalled.log_metrics({"epoch": 0}, step=0)
    time.sleep(0.1)
    logger.fault = None
    journalled.log_metrics({"epoch": 1}, step=1)

    close_all([journalled], "killed")

    assert [step for step, _ in logger.rows] == [0, 1]
    assert logger.status == "failed"


def test_a_folder_that_cannot_be_written_hurts_nothing(
    logger: Keeps, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "trackers").write_text("a file where the folder should be")
    made = journal_logger(logger, None, tmp_path, "run")

    with caplog.at_level(logging.WARNING, "lis2_lightning"):
        made.log_metrics({"epoch": 0}, step=0)
        close_all([made], "finished")

    assert "cannot be written" in caplog.text
    assert len(caplog.records) == 1


def test_an_epoch_that_is_trained_again_is_not_sent_again(
    journalled: JournalLogger, logger: Keeps
) -> None:
    journalled.version = "key"
    for epoch in range(3):
        journalled.log_metrics({"epoch": epoch, "train_loss": float(epoch)}, step=epoch)
    close_all([journalled], "failed")

    journalled.version = "key"
    for epoch in range(1, 4):
        journalled.log_metrics({"epoch": epoch, "train_loss": float(epoch)}, step=epoch)
    close_all([journalled], "finished")

    assert [step for step, _ in logger.rows] == [0, 1, 2, 3]


def test_what_belongs_to_the_logger_is_reached_through_its_journal(
    journalled: JournalLogger, logger: Keeps
) -> None:
    assert journalled.rows is logger.rows
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = journalled.nothing_of_the_kind


def test_two_trackers_of_a_kind_have_files_of_their_own(tmp_path: Path) -> None:
    pair = [Mlflow("http://127.0.0.1:1"), Mlflow("http://127.0.0.1:2")]

    loggers = start_all([*pair, CsvLogger()], [], tmp_path, "run")

    assert [logger.name for logger in loggers] == ["csv", "mlflow", "mlflow-2"]


@pytest.mark.parametrize(
    ("tracker", "package"),
    [
        (Wandb(), "wandb"),
        (Mlflow(), r'"lis2-lightning\[mlflow\]"'),
        (TensorBoard(), r'"lis2-lightning\[tensorboard\]"'),
    ],
    ids=["wandb", "mlflow", "tensorboard"],
)
def test_a_missing_package_says_what_to_install(
    tracker: Any, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lis2_lightning.trackers.journal_logger.find_spec", lambda _: None)

    with pytest.raises(ConfigError, match=f"pip install {package}"):
        journal_logger(tracker, None, tmp_path, "run")


def test_syncing_a_folder_without_trackers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no rows for a tracker"):
        sync(tmp_path)


@pytest.mark.usefixtures("no_pictures")
def test_a_logger_object_gets_configuration_rows_and_scores(tiny: Make, logger: Keeps) -> None:
    trainer = Trainer.from_config(tiny(), trackers=[logger])

    info = trainer.train()

    assert [step for step, row in logger.rows if "train_loss" in row] == [0, 1]
    assert logger.rows[-1][1]["test_dice"] == info["metrics_test"]["dice"]
    assert logger.params["batch_size"] == 4
    assert logger.status == "success"


@pytest.mark.usefixtures("no_pictures")
def test_a_training_that_fails_closes_its_trackers_as_failed(
    tiny: Make, logger: Keeps, networks: str
) -> None:
    diverges = {"class_path": f"{networks}.Diverges"}
    trainer = Trainer.from_config(tiny(model=diverges), trackers=[logger])

    with pytest.raises(Exception, match="loss"):
        trainer.train()

    assert logger.status == "failed"
