"""A trainer that is built from a snapshot has that snapshot's weights, and uses them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor

from lis2_lightning import ConfigError, SnapshotError, Trainer
from lis2_lightning.snapshots import read_snapshot

pytestmark = pytest.mark.usefixtures("no_pictures")
Make = Callable[..., dict[str, Any]]
Contents = Callable[[Path], dict[str, bytes]]
Finished = tuple[Path, dict[str, Any]]


def assert_weights(trainer: Trainer, path: Path) -> None:
    """The network has the weights of a snapshot."""
    stored = read_snapshot(path)["MODEL"]["MODEL_STATE"]
    own = trainer.model.state_dict()
    assert own.keys() == stored.keys()
    assert all(torch.equal(value, stored[name]) for name, value in own.items())


def test_the_network_has_the_weights_and_the_trainer_the_figures_at_once(
    finished: Finished,
) -> None:
    path = finished[0] / "save_2.pt"
    trainer = Trainer.from_snapshot(path)
    info = read_snapshot(path)["TRAIN_INFO"]
    assert_weights(trainer, path)
    assert (trainer.epochs_run, trainer.best_loss) == (3, info["BEST_LOSS"])
    before = trainer.get_final_info()
    assert (before["epochs_run"], before["best_loss"]) == (3, info["BEST_LOSS"])
    assert before["metrics_val"].keys() == finished[1]["metrics_val"].keys()


@pytest.mark.parametrize("loop", ["validate", "predict"])
def test_loops_use_that_snapshot_and_not_the_best_of_the_folder(
    finished: Finished, tmp_path: Path, loop: str
) -> None:
    path = Path(shutil.copy(finished[0] / "save_2.pt", tmp_path / "mine.pt"))
    shutil.copytree(finished[0], tmp_path / "tiny")  # whose best snapshot is another one
    trainer = Trainer.from_snapshot(path, output_dir=str(tmp_path))
    getattr(trainer, loop)()
    assert_weights(trainer, path)
    getattr(trainer, loop)("best")
    assert_weights(trainer, tmp_path / "tiny/best.pt")


def test_after_training_the_best_snapshot_is_used(tiny: Make, tmp_path: Path) -> None:
    Trainer.from_config(tiny(epochs=1, save_last=True)).train()
    trainer = Trainer.from_snapshot(tmp_path / "runs/tiny/last.pt", epochs=3)
    trainer.train()
    trainer.validate()
    assert_weights(trainer, tmp_path / "runs/tiny/best.pt")
    assert trainer.epochs_run == 3


def test_a_run_that_has_taken_the_folder_since_is_left_as_it_is(
    tiny: Make, tmp_path: Path, contents: Contents
) -> None:
    Trainer.from_config(tiny()).train()
    (tmp_path / "runs/tiny").rename(tmp_path / "backup")
    Trainer.from_config(tiny(seed=2)).train()
    before = contents(tmp_path / "runs")
    trainer = Trainer.from_snapshot(tmp_path / "backup/best.pt", epochs=3)
    for write in (trainer.train, trainer.test):
        with pytest.raises(ConfigError, match=r"tiny holds another run than .*best.pt: choose"):
            write()
    trainer.validate()
    assert_weights(trainer, tmp_path / "backup/best.pt")
    assert contents(tmp_path / "runs") == before


def test_a_copy_of_a_snapshot_continues_the_run_that_wrote_it(tiny: Make, tmp_path: Path) -> None:
    Trainer.from_config(tiny(save_last=True)).train()
    path = shutil.copy(tmp_path / "runs/tiny/last.pt", tmp_path / "copy.pt")
    assert Trainer.from_snapshot(path, epochs=3).train()["epochs_run"] == 3
    rows = (tmp_path / "runs/tiny/logs_train.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["0", "1", "2"]


def test_a_snapshot_of_another_network_is_refused_at_once(finished: Finished) -> None:
    wider: dict[str, Any] = {"model.features": 3}
    with pytest.raises(SnapshotError, match=r"does not fit the network: .*of another shape: "):
        Trainer.from_snapshot(finished[0] / "best.pt", **wider)


def test_callbacks_that_were_objects_do_not_keep_a_snapshot_from_being_opened(
    tiny: Make, tmp_path: Path
) -> None:
    lightning = {**tiny()["lightning"], "callbacks": [LearningRateMonitor()]}
    Trainer.from_config(tiny(lightning=lightning, epochs=1)).train()
    path = tmp_path / "runs/tiny/best.pt"

    assert Trainer.from_snapshot(path, epochs=2).train()["epochs_run"] == 2
    again = Trainer.from_snapshot(path, lightning=lightning)
    callbacks = vars(again.lightning)["callbacks"]
    assert any(isinstance(callback, LearningRateMonitor) for callback in callbacks)
