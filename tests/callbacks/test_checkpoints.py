"""The snapshots as a user of Lightning knows them: three ``ModelCheckpoint`` callbacks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import Logger

from lis2_lightning import SnapshotError, Trainer
from lis2_lightning.callbacks.checkpoints import BestSnapshot, EverySnapshot, LastSnapshot
from lis2_lightning.snapshots import io, link_snapshot, read_snapshot

pytestmark = pytest.mark.usefixtures("no_pictures")
Make = Callable[..., dict[str, Any]]
Log = Callable[[Path], list[dict[str, float]]]
# three epochs, so that the last one is due under all three names
ALL = {"epochs": 3, "save_interval": 2, "save_last": True}
FALLS = {"scheduler": {"type": "StepLR", "step_size": 1, "gamma": 0.5}, "monitor": "lr"}
ALWAYS_BETTER = {**FALLS, "mode": "min"}
NEVER_BETTER = {**FALLS, "mode": "max"}


class Notes(Logger):
    """A logger that notes what it is told of checkpoints."""

    name = "notes"
    version = 0

    def __init__(self) -> None:
        super().__init__()
        self.saved: list[tuple[type, str]] = []

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    def log_metrics(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        path = Path(checkpoint_callback.best_model_path)
        assert path.is_file()
        self.saved.append((checkpoint_callback.__class__, path.name))


def best_of(trainer: Trainer) -> BestSnapshot:
    """What Lightning takes for the checkpoint callback."""
    best = trainer.lightning.checkpoint_callback
    assert isinstance(best, BestSnapshot)
    return best


def test_lightning_has_three_model_checkpoints_and_an_early_stopping(tiny: Make) -> None:
    trainer = Trainer.from_config(tiny(early_stopper=True)).lightning
    ours = [
        callback
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint)
    ]
    assert [type(callback) for callback in ours] == [BestSnapshot, EverySnapshot, LastSnapshot]
    assert len(trainer.early_stopping_callbacks) == 1
    assert isinstance(trainer.early_stopping_callback, EarlyStopping)


def test_best_model_score_and_path_are_those_of_the_run(
    tiny: Make, tmp_path: Path, read_log: Log
) -> None:
    config = tiny(save_last=True)
    trainer = Trainer.from_config(config)
    best = best_of(trainer)
    assert (best.best_model_score, best.best_model_path, best.best_loss) == (None, "", math.inf)
    info = trainer.train()
    assert best.best_model_score is not None
    losses = [row["train_loss"] for row in read_log(tmp_path / "runs/tiny/logs_train.csv")]
    assert float(best.best_model_score) == info["best_loss"] == min(losses)  # all of its digits
    assert best.best_model_path == info["final_model_path"]

    # a moved folder: nothing in a snapshot says where it was written
    (tmp_path / "runs").rename(tmp_path / "moved")
    config = {**config, "output_dir": str(tmp_path / "moved"), "epochs": 3, "resume": "auto"}
    moved = Trainer.from_config(config)
    assert best_of(moved).best_model_path == str(tmp_path / "moved/tiny/best.pt")
    moved.fit(tmp_path / "moved/tiny/last.pt")
    assert best_of(moved).best_loss <= info["best_loss"]
    assert best_of(moved).best_model_path == str(tmp_path / "moved/tiny/best.pt")


def test_the_files_of_one_epoch_are_one_file_that_lists_its_names(
    tiny: Make, tmp_path: Path
) -> None:
    Trainer.from_config(tiny(**ALL, **ALWAYS_BETTER)).train()
    folder = tmp_path / "runs/tiny"
    names = ["best.pt", "save_2.pt", "last.pt"]
    assert len({(folder / name).stat().st_ino for name in names}) == 1
    checkpoint = read_snapshot(folder / "best.pt")["LIGHTNING"]["checkpoint"]
    assert checkpoint["names"] == names
    assert set(checkpoint["callbacks"]) == {"EpochLog", "BestSnapshot"}
    assert checkpoint["callbacks"]["BestSnapshot"] == {
        "best_loss": 0.25 * tiny()["optimizer"]["lr"],
        "monitor": "lr",
        "mode": "min",
    }
    assert str(tmp_path) not in repr(checkpoint)


def test_only_what_is_due_shares_the_bytes(tiny: Make, tmp_path: Path) -> None:
    Trainer.from_config(tiny(**ALL, **NEVER_BETTER)).train()  # the first epoch stays the best
    folder = tmp_path / "runs/tiny"
    assert read_snapshot(folder / "best.pt")["LIGHTNING"]["next_epoch"] == 1
    assert read_snapshot(folder / "last.pt")["LIGHTNING"]["next_epoch"] == 3
    assert (folder / "save_2.pt").samefile(folder / "last.pt")
    assert not (folder / "best.pt").samefile(folder / "last.pt")


def test_a_name_that_a_crash_left_out_is_made_good(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(source: Path, target: Path) -> None:
        if (
            target.name == "last.pt"
            and "save_2.pt" in read_snapshot(source)["LIGHTNING"]["checkpoint"]["names"]
        ):
            raise SnapshotError(str(target))
        link_snapshot(source, target)

    config = tiny(**{**ALL, "epochs": 4}, **ALWAYS_BETTER)
    crashing = Trainer.from_config(config)
    monkeypatch.setattr(io, "link_snapshot", dies)
    with pytest.raises(SnapshotError):
        crashing.train()
    monkeypatch.undo()
    folder = tmp_path / "runs/tiny"
    assert read_snapshot(folder / "last.pt")["LIGHTNING"]["next_epoch"] == 2
    going_on = Trainer.from_config(config, resume="auto")
    going_on.lightning.limit_train_batches = 0  # nothing more is trained
    going_on.train()
    assert (folder / "last.pt").samefile(folder / "best.pt")


@pytest.mark.filterwarnings("ignore:.*configured with multiple `ModelCheckpoint` callbacks")
@pytest.mark.filterwarnings("ignore:.*LeafSpec", "ignore:.*does not have many workers")
@pytest.mark.parametrize("name", ["best", "last"])
def test_lightning_finds_best_and_last_itself(tiny: Make, tmp_path: Path, name: str) -> None:
    # by another trainer than the one that has written them
    config = tiny(**ALL, **NEVER_BETTER)
    Trainer.from_config(config).train()
    trainer = Trainer.from_config({**config, "resume": "auto", "epochs": 4})
    weights = trainer.model.state_dict()
    for loop in (trainer.lightning.validate, trainer.lightning.test):
        loop(trainer.module, datamodule=trainer.data, ckpt_path=name, verbose=False)
        snapshot = read_snapshot(tmp_path / f"runs/tiny/{name}.pt")
        assert all(
            weights[key].equal(value) for key, value in snapshot["MODEL"]["MODEL_STATE"].items()
        )
    assert trainer.epochs_run == 0  # a run's own figures are no business of a test

    trainer.lightning.fit(trainer.module, datamodule=trainer.data, ckpt_path=name)
    assert trainer.epochs_run == 4
    rows = (tmp_path / "runs/tiny/logs_train.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["0", "1", "2", "3"]


def test_loggers_are_notified_of_each_file(tiny: Make) -> None:
    trainer, notes = Trainer.from_config(tiny(**ALL, **ALWAYS_BETTER)), Notes()
    trainer.lightning.loggers.append(notes)
    trainer.train()
    best, last = (BestSnapshot, "best.pt"), (LastSnapshot, "last.pt")
    assert notes.saved == [best, last, best, last, best, (EverySnapshot, "save_2.pt"), last]


def test_nothing_is_warned_of_and_nothing_removed_where_a_run_is_resumed(
    tiny: Make, tmp_path: Path
) -> None:
    config = tiny(**ALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Trainer.from_config(config).train()
        before = {path.name for path in (tmp_path / "runs/tiny").iterdir()}
        Trainer.from_config({**config, "resume": "auto", "epochs": 5}).train()
    after = {path.name for path in (tmp_path / "runs/tiny").iterdir()}
    assert after == before | {"save_4.pt"}


def test_another_monitor_begins_with_no_best_value(tiny: Make, tmp_path: Path) -> None:
    config = tiny(save_last=True, **ALWAYS_BETTER)
    Trainer.from_config(config).train()
    other = Trainer.from_config({**config, "resume": "auto", "epochs": 3, "mode": "max"})
    other.train()
    assert other.best_loss == 0.25 * config["optimizer"]["lr"]
    assert read_snapshot(tmp_path / "runs/tiny/best.pt")["LIGHTNING"]["next_epoch"] == 3


def test_what_a_user_saves_is_a_file_of_its_own(tiny: Make, tmp_path: Path) -> None:
    class Saves(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
            if trainer.global_step == 6:
                trainer.save_checkpoint(tmp_path / "runs/tiny/last.pt", weights_only=False)
                self.next_batch = read_snapshot(tmp_path / "runs/tiny/last.pt")["LIGHTNING"][
                    "next_batch"
                ]

    trainer, saves = Trainer.from_config(tiny(save_last=True)), Saves()
    trainer.lightning.callbacks.append(saves)  # type: ignore[attr-defined]  # set by Lightning
    trainer.train()
    assert saves.next_batch == 2
