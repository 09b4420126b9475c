"""What follows from an epoch's validation loss: early stopping, the best snapshot, the rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.cli import ReduceLROnPlateau
from torch import Tensor, nn
from torch.utils.data import Dataset

from lis2_lightning import Trainer
from lis2_lightning.callbacks import LossEarlyStopping
from lis2_lightning.snapshots import read_snapshot

pytestmark = pytest.mark.usefixtures("no_pictures")
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
Log = Callable[[Path], list[dict[str, float]]]


class Dark(Dataset[dict[str, Tensor]]):
    """Samples whose target is 0 everywhere."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"patch": torch.ones(1, 4, 4), "target": torch.zeros(1, 4, 4)}


class Scripted(nn.Module):
    """A network with given validation losses: its output, where loss is L1 and all targets 0."""

    def __init__(self, losses: Sequence[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.losses = losses
        self.epoch = 0

    def forward(self, patch: Tensor) -> Tensor:
        if self.training:
            return patch * self.weight
        return torch.full_like(patch, self.losses[self.epoch])


class TellsEpoch(pl.Callback):
    """Tells a scripted network which epoch it is."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module.model, Scripted)
        pl_module.model.epoch = trainer.current_epoch


def scripted(folder: Path, losses: Sequence[float], **changes: Any) -> Trainer:
    """A trainer whose validation losses are given."""
    arguments: dict[str, Any] = {
        "model": Scripted(losses),
        "train_dataset": Dark(),
        "val_dataset": Dark(),
        "optimizer": partial(torch.optim.SGD, lr=0.5),
        "loss": nn.L1Loss(),
        "metrics": [],
        "epochs": len(losses),
        "num_workers": 0,
        "lightning": {**QUIET, "callbacks": [TellsEpoch()]},
    }
    return Trainer(folder, "run", **{**arguments, **changes})


@pytest.mark.parametrize(
    ("losses", "patience", "min_delta", "epochs"),
    [
        ([5, 4, 3, 2, 1, 0], 1, 0.0, 6),  # always better
        ([3, 3, 3, 3, 3, 3], 2, 0.0, 3),  # equal is no improvement
        ([3, 4, 4, 2, 4, 4], 2, 0.0, 3),  # gone before it gets better
        ([3, 4, 2, 4, 1, 9], 2, 0.0, 6),  # an improvement forgives
        ([3.0, 2.6, 2.2, 1.8, 1.4, 1.0], 2, 0.5, 6),  # 0.4 + 0.4 is more than 0.5
        ([3.0, 2.5, 2.0, 1.5, 1.0, 0.5], 1, 0.5, 2),  # not more than min_delta
        ([3, math.nan, math.nan, 2, 1, 0], 2, 0.0, 3),  # NaN is an epoch without improvement
        ([math.nan, 3, 2, 1, 0, 0], 2, 0.0, 6),
    ],
)
def test_early_stopping_by_hand(
    tmp_path: Path, losses: list[float], patience: int, min_delta: float, epochs: int
) -> None:
    stopper = LossEarlyStopping(patience=patience, min_delta=min_delta)
    assert scripted(tmp_path, losses, early_stopper=stopper).train()["epochs_run"] == epochs


def test_early_stopper_true_bears_ten_epochs(tmp_path: Path) -> None:
    info = scripted(tmp_path, [1.0] * 30, early_stopper=True).train()
    assert info["epochs_run"] == 11


def test_epochs_without_validation_wear_out_no_patience(tmp_path: Path) -> None:
    every_second = {**QUIET, "callbacks": [TellsEpoch()], "check_val_every_n_epoch": 2}
    losses = [9, 3, 9, 2, 9, 1, 9, 0]
    stopper = LossEarlyStopping(patience=1)
    plateau = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0)
    trainer = scripted(
        tmp_path, losses, early_stopper=stopper, scheduler=plateau, lightning=every_second
    )
    assert trainer.train()["epochs_run"] == 8
    assert trainer.optimizer is not None
    assert trainer.optimizer.param_groups[0]["lr"] == 0.5


def test_reduce_on_plateau_sees_the_validation_loss(tmp_path: Path, read_log: Log) -> None:
    scheduler = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, factor=0.1)
    scripted(tmp_path, [3, 2, 2, 1, 4, 0], scheduler=scheduler).train()
    rows = read_log(tmp_path / "run" / "logs_train.csv")
    assert [row["val_loss"] for row in rows] == [3, 2, 2, 1, 4, 0]
    assert [row["lr"] for row in rows] == pytest.approx([0.5, 0.5, 0.5, 0.05, 0.05, 0.005])


@pytest.mark.parametrize(
    ("mode", "losses", "best"),
    [("min", [3, 3, 2, 2, 5], 2), ("max", [1, 4, 4, 2, 3], 1), ("min", [2, math.nan, 9, 9, 9], 0)],
)
def test_best_is_written_where_the_value_is_strictly_best(
    tmp_path: Path, mode: str, losses: list[float], best: int
) -> None:
    info = scripted(tmp_path, losses, monitor="val_loss", mode=mode).train()
    snapshot = read_snapshot(info["final_model_path"])
    assert snapshot["TRAIN_INFO"]["EPOCHS_RUN"] == best
    assert snapshot["TRAIN_INFO"]["BEST_LOSS"] == info["best_loss"] == losses[best]


def test_a_resumed_run_has_the_patience_that_is_configured_now(tmp_path: Path) -> None:
    losses = [1.0] * 9
    scripted(
        tmp_path, losses, epochs=2, save_last=True, early_stopper=LossEarlyStopping(patience=2)
    ).train()
    stopper = LossEarlyStopping(patience=5)
    resumed = scripted(tmp_path, losses, early_stopper=stopper, resume="auto")
    assert resumed.train()["epochs_run"] == 6


@pytest.mark.parametrize(
    ("values", "min_delta", "epochs"),
    [
        ([1, 2, 3, 4, 5], 0.0, 5),  # always better
        ([5, 4, 6, 5, 5, 9], 0.0, 5),
        ([1, 1.5, 2, 2.5, 9], 1.0, 3),  # not more than min_delta
    ],
)
def test_a_stopper_may_wait_for_larger_values(
    tmp_path: Path, values: list[float], min_delta: float, epochs: int
) -> None:
    set_so = {"patience": 2, "min_delta": min_delta, "monitor": "val_loss", "mode": "max"}
    stopper = LossEarlyStopping(**set_so)  # type: ignore[arg-type]  # of several types
    assert scripted(tmp_path, values, early_stopper=stopper).train()["epochs_run"] == epochs


def test_a_stopper_without_a_mode_takes_the_metrics_direction_and_one_with_a_mode_keeps_it() -> (
    None
):
    def parts(stopper: LossEarlyStopping) -> tuple[Any, ...]:
        return stopper.mode, stopper.min_delta, stopper.best_score.item(), stopper.state_dict()

    options: dict[str, Any] = {"monitor": "val_dice", "min_delta": 0.1}
    larger, smaller = (LossEarlyStopping(**options, mode=mode) for mode in ("max", "min"))
    stopper = LossEarlyStopping(**options)
    stopper.follow(None)
    assert parts(stopper) == parts(smaller)
    stopper.follow("max")
    stopper.follow("max")
    assert parts(stopper) == parts(larger)
    smaller.follow("max")
    assert smaller.mode == "min"


def test_a_count_of_smaller_values_says_nothing_of_larger_ones() -> None:
    before = LossEarlyStopping(monitor="val_dice", mode="min")
    before.wait_count, before.best_score = 7, torch.tensor(0.25)
    after, same = (LossEarlyStopping(monitor="val_dice", mode=mode) for mode in ("max", "min"))
    after.load_state_dict(before.state_dict())
    same.load_state_dict(before.state_dict())
    assert (after.wait_count, after.best_score.item()) == (0, -math.inf)
    assert (same.wait_count, same.best_score.item()) == (7, 0.25)


@pytest.mark.parametrize(
    ("monitor", "mode", "last"),
    [("val_loss", "min", 0.05), ("val_loss", "max", 0.5), ("train_loss", "min", 0.05)],
)
def test_a_plateau_of_lightnings_follows_what_it_names(
    tmp_path: Path, read_log: Log, monitor: str, mode: str, last: float
) -> None:
    options: dict[str, Any] = {"monitor": monitor, "mode": mode, "patience": 0, "factor": 0.1}
    # the training loss stays at 0
    losses = [3, 4, 5] if monitor == "val_loss" else [3, 2, 1]
    scripted(tmp_path, losses, scheduler=partial(ReduceLROnPlateau, **options)).train()
    rates = [row["lr"] for row in read_log(tmp_path / "run/logs_train.csv")]
    assert rates == pytest.approx([0.5, 0.5, last])
