"""What is asked for now wins over what a snapshot says, and one line tells what that changes."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from lis2_lightning import ConfigError, SnapshotError, Trainer
from lis2_lightning.snapshots import differences, read_snapshot

pytestmark = pytest.mark.usefixtures("no_pictures")
Make = Callable[..., dict[str, Any]]
Log = Callable[[Path], list[dict[str, float]]]


class Ends(pl.Callback):
    """Ends a run before one batch."""

    def __init__(self, epoch: int, batch: int) -> None:
        self.place = epoch, batch

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:
        if (trainer.current_epoch, args[-1]) == self.place:
            signal.raise_signal(signal.SIGTERM)


class Sees(pl.Callback):
    """The batches that are trained, with the optimizer's rate."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int, int]] = []

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:
        batch, index = args
        self.batches.append((trainer.current_epoch, index, len(batch["patch"])))


@pytest.fixture
def message(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """The one line that says where a run goes on."""
    logger = logging.getLogger("lis2_lightning")
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, "lis2_lightning")
    yield lambda: next(m for m in caplog.messages if m.startswith("resuming from"))
    logger.removeHandler(caplog.handler)


@pytest.fixture
def halfway(tiny: Make, tmp_path: Path) -> Path:
    """The snapshot of a run which a signal ended before the third batch of its second epoch."""
    config = tiny(scheduler={"type": "StepLR", "step_size": 1, "gamma": 0.5}, epochs=3)
    trainer = Trainer.from_config(config)
    trainer.lightning.callbacks.insert(0, Ends(1, 2))  # type: ignore[attr-defined]
    with pytest.raises(SystemExit):
        trainer.train()
    return tmp_path / "runs/tiny/last.pt"


def go_on(path: Path, **overrides: Any) -> tuple[Trainer, Sees]:
    """Go on from a snapshot, and look at the batches."""
    trainer, sees = Trainer.from_snapshot(path, **overrides), Sees()
    trainer.lightning.callbacks.append(sees)  # type: ignore[attr-defined]
    trainer.train()
    return trainer, sees


def test_the_same_values_are_not_worth_a_word(halfway: Path, message: Callable[[], str]) -> None:
    _, sees = go_on(halfway)
    assert message() == f"resuming from {halfway} at epoch 1, batch 2"
    assert sees.batches[0][:2] == (1, 2)


def test_another_learning_rate_wins_and_the_schedule_keeps_its_course(
    halfway: Path, message: Callable[[], str], read_log: Log
) -> None:
    trainer, sees = go_on(halfway, **{"optimizer.lr": 0.1})
    assert "optimizer.lr is 0.1, was 0.01" in message()
    rates = [row["lr"] for row in read_log(halfway.with_name("logs_train.csv"))]
    assert rates == pytest.approx([0.01, 0.005, 0.025])
    assert sees.batches[0][:2] == (1, 2)
    assert trainer.optimizer is not None
    assert trainer.optimizer.param_groups[0]["initial_lr"] == 0.1


def test_another_argument_of_the_optimizer_wins(halfway: Path, message: Callable[[], str]) -> None:
    trainer, _ = go_on(halfway, **{"optimizer.weight_decay": 0.25})
    assert "optimizer.weight_decay is 0.25, was 0" in message()
    assert trainer.optimizer is not None
    assert trainer.optimizer.param_groups[0]["weight_decay"] == 0.25


def test_another_optimizer_begins_afresh(halfway: Path, message: Callable[[], str]) -> None:
    trainer, _ = go_on(halfway, optimizer={"type": "SGD", "lr": 0.1})
    assert "another optimizer: it starts anew" in message()
    assert isinstance(trainer.optimizer, torch.optim.SGD)


def test_another_scheduler_begins_afresh(
    halfway: Path, message: Callable[[], str], read_log: Log
) -> None:
    go_on(halfway, scheduler={"type": "StepLR", "step_size": 1, "gamma": 0.1})
    assert "another scheduler: it starts anew" in message()
    rates = [row["lr"] for row in read_log(halfway.with_name("logs_train.csv"))]
    # that of an epoch is the rate of its first batch
    assert rates == pytest.approx([0.01, 0.005, 0.001])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"scheduler.T_max": 4}, [0.01, 0.005, 0.01, 0.00853553]),
        ({"scheduler": None}, [0.01, 0.005, 0.01, 0.01]),
        ({"scheduler": None, "optimizer.lr": 0.02}, [0.01, 0.005, 0.02, 0.02]),
        (
            {"scheduler": {"type": "LinearLR", "start_factor": 0.1, "total_iters": 1}},
            [0.01, 0.005, 0.001, 0.01],
        ),
    ],
)
def test_a_rate_that_has_fallen_to_0_begins_again_with_another_scheduler(
    tiny: Make, read_log: Log, changes: dict[str, Any], expected: list[float]
) -> None:
    config = tiny(scheduler={"type": "CosineAnnealingLR", "T_max": 2}, save_last=True)
    path = Path(Trainer.from_config(config).train()["last_model_path"])
    go_on(path, epochs=4, **changes)
    rates = [row["lr"] for row in read_log(path.with_name("logs_train.csv"))]
    assert rates == pytest.approx(expected)


def test_the_first_rate_is_known_after_any_number_of_schedulers(tiny: Make, read_log: Log) -> None:
    cosine = {"type": "CosineAnnealingLR", "T_max": 2}
    path = Path(
        Trainer.from_config(tiny(scheduler=cosine, save_last=True)).train()["last_model_path"]
    )
    go_on(path, epochs=3, **{"scheduler.T_max": 1})
    go_on(path, epochs=4, scheduler=None)
    rates = [row["lr"] for row in read_log(path.with_name("logs_train.csv"))]
    assert rates == pytest.approx([0.01, 0.005, 0.01, 0.01])


def test_an_epoch_begins_again_where_its_batches_are_others(
    halfway: Path, message: Callable[[], str]
) -> None:
    _, sees = go_on(halfway, batch_size=5)
    assert "batch_size is 5, was 4" in message()
    assert [batch for batch in sees.batches if batch[0] == 1] == [(1, 0, 5), (1, 1, 5), (1, 2, 3)]


def test_other_data_are_named(tiny: Make, message: Callable[[], str]) -> None:
    config = tiny(save_last=True)
    Trainer.from_config(config).train()
    changes = {"val_dataset.seed": 4, "train_dataset.folds": [0, 2], "test_dataset": None}
    trainer = Trainer.from_config({**config, "resume": "auto"}, epochs=3, **changes)
    trainer.train()
    assert message().endswith(
        "; train_dataset.folds is [0, 2], was [0]; val_dataset.seed is 4, was 3; test_dataset is "
        "none, was lis2_lightning.data.SyntheticDataset"
    )


def test_a_network_of_another_size_is_named_before_it_is_refused(
    tiny: Make, message: Callable[[], str]
) -> None:
    Trainer.from_config(tiny(save_last=True)).train()
    other = Trainer.from_config(tiny(resume="auto", epochs=3), **{"model.features": 3})
    with pytest.raises(SnapshotError, match="does not fit the network"):
        other.train()
    assert message().endswith("; model.features is 3, was 2")


@pytest.mark.parametrize(
    ("written", "now", "phrases"),
    [
        ({"model": {"type": "gone"}}, {"model": {"type": "unet"}}, "model is lis2_lightning"),
        ({"model": {"object": "a.Net"}}, {"model": {"type": "unet"}}, "model differs"),
        ({"model": {"object": "a.Net"}}, {"model": {"object": "a.Net"}}, ""),
        ({"loss": {"type": "BCELoss"}}, {"loss": {"class_path": "torch.nn.BCELoss"}}, ""),
        ({"val_dataset": {"type": "TileDataset", "image": "a" * 99}}, {"val_dataset": None}, "val"),
    ],
)
def test_configurations_are_compared_whatever_they_name(
    written: dict[str, Any], now: dict[str, Any], phrases: str
) -> None:
    found = differences(written, now)
    assert len(found) == bool(phrases)
    assert "".join(found).startswith(phrases)
    assert all(len(phrase) < 200 for phrase in found)


def test_another_monitor_begins_to_look_for_the_best_anew(tiny: Make, tmp_path: Path) -> None:
    Trainer.from_config(tiny(save_last=True)).train()
    trainer = Trainer.from_snapshot(
        tmp_path / "runs/tiny/last.pt", epochs=3, monitor="train_dice", mode="max"
    )
    info = trainer.train()
    assert info["best_loss"] == info["metrics_train"]["dice"]


def test_a_run_that_goes_on_in_another_folder_has_its_best_there(
    tiny: Make, tmp_path: Path
) -> None:
    Trainer.from_config(tiny(save_last=True)).train()
    first = tmp_path / "runs/tiny"
    trainer = Trainer.from_snapshot(
        first / "last.pt", image=None, epochs=3, run_name="other", **{"optimizer.lr": 1e9}
    )
    info = trainer.train()
    written = read_snapshot(first / "best.pt")["MODEL"]["MODEL_STATE"]
    best = read_snapshot(Path(info["final_model_path"]))["MODEL"]["MODEL_STATE"]
    assert Path(info["final_model_path"]).parent.name == "other"
    assert all(torch.equal(written[name], best[name]) for name in written)


def test_fewer_epochs_than_are_done_are_refused(tiny: Make, tmp_path: Path) -> None:
    Trainer.from_config(tiny(save_last=True)).train()
    (tmp_path / "runs/tiny/result.json").unlink()
    trainer = Trainer.from_snapshot(tmp_path / "runs/tiny/last.pt", epochs=1)
    with pytest.raises(
        ConfigError, match=r"last\.pt was written after 2 epochs, and epochs is 1: set"
    ):
        trainer.train()


def test_a_run_without_a_seed_goes_on_with_the_one_it_drew(tiny: Make, tmp_path: Path) -> None:
    config = tiny(seed=None, save_last=True, resume="auto")
    Trainer.from_config(config).train()
    drawn = read_snapshot(tmp_path / "runs/tiny/last.pt")["GLOBAL_CONFIG"]["seed"]
    trainer = Trainer.from_config(config, epochs=3)
    assert trainer.data.seed == drawn
    trainer.train()
    assert read_snapshot(tmp_path / "runs/tiny/last.pt")["GLOBAL_CONFIG"]["seed"] == drawn
