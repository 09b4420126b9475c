"""Why a run ended, and whether its stored result is that of the run that is asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import EarlyStopping, Timer

from lis2_lightning import ConfigError, Trainer
from lis2_lightning.callbacks import LossEarlyStopping

pytestmark = pytest.mark.usefixtures("no_pictures")
Make = Callable[..., dict[str, Any]]
Contents = Callable[[Path], dict[str, bytes]]
STOPS = {"type": "LossEarlyStopping", "patience": 1, "min_delta": 10.0}


@pytest.fixture
def table(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], dict[str, str]]]:
    """The rows of the last table that a run shows."""
    logger = logging.getLogger("lis2_lightning")
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, "lis2_lightning")

    def read() -> dict[str, str]:
        text = [message for message in caplog.messages if "\nepochs " in message][-1]
        rows = [line.rsplit("  ", 1) for line in text.splitlines() if line]
        return {name.strip(): value.strip() for name, value in rows}

    yield read
    logger.removeHandler(caplog.handler)


Table = Callable[[], dict[str, str]]


def epochs_of(config: dict[str, Any], **changes: Any) -> int:
    """Train, and tell how many epochs the run has had."""
    done: int = Trainer.from_config(config, **changes).train()["epochs_run"]
    return done


def test_a_run_says_that_its_epochs_are_done_and_where_it_was_resumed(
    tiny: Make, tmp_path: Path, table: Table
) -> None:
    config = tiny(save_last=True, resume="auto")
    Trainer.from_config(config).train()
    assert (table()["epochs"], table()["ended"]) == ("2 of 2", "all epochs are done")
    assert "resumed" not in table()
    Trainer.from_config(config, epochs=3).train()
    assert table()["resumed"] == f"at epoch 2, from {tmp_path}/runs/tiny/last.pt"


def test_a_run_says_that_it_was_stopped_early(tiny: Make, table: Table) -> None:
    Trainer.from_config(tiny(early_stopper=STOPS, epochs=9)).train()
    assert table()["epochs"] == "2 of 9"
    assert table()["ended"] == "early stopping: no better val_loss, patience 1"


def test_a_run_says_which_limit_ended_it_and_where(tiny: Make, table: Table) -> None:
    config = tiny(epochs=9, resume="auto")
    limits = {**config["lightning"], "max_steps": 6}
    Trainer.from_config(config, lightning=limits).train()
    assert table()["epochs"] == "1 of 9"
    assert (
        table()["ended"]
        == "stopped by lightning.max_steps in epoch 1, batch 2; resume: auto continues"
    )
    Trainer.from_config(config, lightning=limits).train()
    assert table()["ended"].startswith("nothing was left to train: stopped by lightning.max_steps")


def test_a_limit_of_time_counts_from_each_start(tiny: Make, table: Table) -> None:
    config = tiny(epochs=3, resume="auto")
    Trainer.from_config(
        config, lightning={**config["lightning"], "max_time": timedelta(microseconds=1)}
    ).train()
    assert (
        table()["ended"]
        == "stopped by lightning.max_time in epoch 0, batch 1; resume: auto continues"
    )
    trainer = Trainer.from_config(
        config, lightning={**config["lightning"], "max_time": timedelta(hours=1)}
    )
    callbacks: Any = trainer.lightning.callbacks  # type: ignore[attr-defined]  # set by Lightning
    timer: Any
    (timer,) = (callback for callback in callbacks if isinstance(callback, Timer))
    trainer.train()
    assert table()["ended"] == "all epochs are done"
    assert timer.time_elapsed() == timer.end_time() - timer.start_time()


@pytest.mark.parametrize(
    "change",
    [
        {"early_stopper": {**STOPS, "patience": 50}},
        {"early_stopper": None},
        {"early_stopper": {**STOPS, "min_delta": 0.0, "patience": 3}},
        {"early_stopper": {**STOPS, "monitor": "lr", "min_delta": -1.0}},
    ],
    ids=["more patience", "no stopper", "another difference", "another value"],
)
@pytest.mark.parametrize("save_last", [True, False])
def test_a_run_that_was_stopped_early_goes_on_where_its_stopper_has_changed(
    tiny: Make, change: dict[str, Any], save_last: bool
) -> None:
    config = tiny(early_stopper=STOPS, epochs=4, save_last=save_last)
    assert epochs_of(config) == 2
    assert epochs_of(config, resume="auto") == 2
    assert epochs_of(config, resume="auto", **change) == 4
    assert epochs_of(config, resume="auto", **change) == 4


@pytest.mark.parametrize("stopper", [LossEarlyStopping, partial(EarlyStopping, "val_loss")])
def test_the_same_with_objects(tiny: Make, stopper: Callable[..., EarlyStopping]) -> None:
    def run(patience: int, epochs: int = 4) -> int:
        config = tiny(epochs=epochs, save_last=True, resume="auto")
        return epochs_of(config, early_stopper=stopper(patience=patience, min_delta=10.0))

    assert run(patience=1) == 2
    assert run(patience=50) == 4
    assert run(patience=50, epochs=5) == 5  # the stop is forgotten


def test_a_complete_run_says_so_last_with_what_differs(
    tiny: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, table: Table
) -> None:
    config = tiny(resume="auto")
    Trainer.from_config(config).train()
    Trainer.from_config(config, **{"val_dataset.folds": [2], "test_dataset.folds": [1]}).train()
    assert table()["epochs"] == "2 of 2"
    assert caplog.messages[-1] == (
        f"nothing is left to train: {tmp_path}/runs/tiny is complete, and its stored result is "
        "returned; val_dataset.folds is [2], was [1]; test_dataset.folds is [1], was [2]; raise "
        "epochs to continue it, or choose another run_name, with weights: "
        f"{tmp_path}/runs/tiny/best.pt to start from its weights"
    )


def test_a_snapshot_with_all_its_epochs_starts_nothing_in_a_new_folder(
    tiny: Make, tmp_path: Path
) -> None:
    Trainer.from_config(tiny(save_last=True)).train()
    last = tmp_path / "runs/tiny/last.pt"
    trainer = Trainer.from_snapshot(last, run_name="new")
    with pytest.raises(
        ConfigError, match=r"nothing is left to train: raise epochs, or set weights: "
    ):
        trainer.train()
    assert not (tmp_path / "runs/new").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"info": {}}'])
def test_a_damaged_result_is_made_anew_from_the_snapshots(
    tiny: Make, tmp_path: Path, text: str, contents: Contents
) -> None:
    config = tiny(resume="auto", save_last=True)
    info = Trainer.from_config(config).train()
    before = contents(tmp_path)
    (tmp_path / "runs/tiny/result.json").write_text(text, encoding="utf-8")
    assert Trainer.from_config(config).train() == info
    changed = {name for name, value in contents(tmp_path).items() if before[name] != value}
    assert changed <= {f"runs/tiny/{name}" for name in ("result.json", "environment.json")}


def test_lines_and_a_table_count_epochs_alike(
    tiny: Make, table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny(epochs=5)
    Trainer.from_config(config, lightning={"enable_progress_bar": True, "max_steps": 6}).train()
    lines = list(dict.fromkeys(m for m in caplog.messages if m.startswith("epoch ")))
    assert [line.partition("  train_loss")[0] for line in lines] == ["epoch 1/5", "epoch 2/5"]
    assert ["cut short after batch" in line for line in lines] == [False, True]
    assert table()["epochs"] == "1 of 5"
    caplog.clear()
    Trainer.from_config(config, resume="auto", lightning={"enable_progress_bar": True}).train()
    lines = [message for message in caplog.messages if message.startswith("epoch ")]
    assert all("  lr 0.01 " in line for line in lines)
    assert lines[0].startswith("epoch 2/5")
