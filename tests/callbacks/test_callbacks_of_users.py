"""Callbacks and arguments of Lightning, as its users know them, beside ours."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from torch.optim.lr_scheduler import ConstantLR

from lis2_lightning import Trainer

pytestmark = pytest.mark.usefixtures("no_pictures")
Make = Callable[..., dict[str, Any]]
Log = Callable[[Path], list[dict[str, float]]]
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


class Sees(pl.Callback):
    """What a user's callback finds when an epoch ends."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epochs.append({key: float(value) for key, value in trainer.callback_metrics.items()})


class CountsSteps(pl.Callback):
    """Counts batches and optimizer steps."""

    def __init__(self) -> None:
        self.batches = self.steps = 0

    def on_train_batch_end(self, *args: Any) -> None:
        self.batches += 1

    def on_before_optimizer_step(self, *args: Any) -> None:
        self.steps += 1


def build(config: dict[str, Any], **changes: Any) -> Trainer:
    """The trainer of a configuration, in a notebook: of objects, callbacks among them."""
    built = Trainer.from_config(config)
    lr = config["optimizer"]["lr"]
    objects: dict[str, Any] = {
        "model": built.model,
        "train_dataset": built.data.train,
        "val_dataset": built.data.val,
        "test_dataset": built.data.test,
        "optimizer": partial(torch.optim.Adam, lr=lr),
        **{key: config[key] for key in ("epochs", "batch_size", "num_workers", "seed")},
    }
    return Trainer(config["output_dir"], config["run_name"], **{**objects, **changes})


def test_a_callback_sees_the_losses_and_metrics_of_its_epoch(
    tiny: Make, tmp_path: Path, read_log: Log
) -> None:
    sees = Sees()
    build(tiny(), lightning={**QUIET, "callbacks": [sees]}).train()
    rows = read_log(tmp_path / "runs/tiny/logs_train.csv")
    assert len(sees.epochs) == len(rows) == 2
    for seen, row in zip(sees.epochs, rows, strict=True):
        for key, value in row.items():
            if key not in {"epoch", "lr"}:
                assert seen[key] == pytest.approx(value, rel=1e-6)


def test_a_callback_may_be_passed_beside_a_configuration(tiny: Make) -> None:
    sees = Sees()
    Trainer.from_config(tiny(epochs=1), lightning={**QUIET, "callbacks": [sees]}).train()
    assert len(sees.epochs) == 1


def test_a_callback_may_be_named_in_the_configuration(tiny: Make, tmp_path: Path) -> None:
    named = {"class_path": "lightning.pytorch.callbacks.Timer", "init_args": {"interval": "epoch"}}
    trainer = Trainer.from_config(tiny(lightning={**QUIET, "callbacks": [named]}))
    assert any(type(callback).__name__ == "Timer" for callback in callbacks(trainer))
    trainer.train()
    stored = yaml.safe_load((tmp_path / "runs/tiny/config.yaml").read_text(encoding="utf-8"))
    assert stored["lightning"]["callbacks"][0]["class_path"].endswith("Timer")
    assert Trainer.from_config(stored, run_name="again").train()["epochs_run"] == 2


def callbacks(trainer: Trainer) -> list[pl.Callback]:
    """The callbacks of a trainer."""
    attached: list[pl.Callback] = trainer.lightning.callbacks  # type: ignore[attr-defined]
    return attached


def test_lightnings_own_checkpoint_and_rate_monitor_work_beside_ours(
    tiny: Make, tmp_path: Path
) -> None:
    monitor = LearningRateMonitor(logging_interval="epoch")
    checkpoint = ModelCheckpoint(
        dirpath=tmp_path / "theirs",
        filename="{epoch}",
        monitor="val_loss",
        save_top_k=-1,
        save_on_train_epoch_end=False,
    )
    lightning = {**QUIET, "callbacks": [monitor, checkpoint]}
    info = build(tiny(), lightning=lightning, scheduler=ConstantLR).train()
    names = sorted(path.name for path in (tmp_path / "theirs").iterdir())
    assert names == ["epoch=0.ckpt", "epoch=1.ckpt"]
    assert checkpoint.best_model_score is not None
    assert info["epochs_run"] == 2
    header = (tmp_path / "runs/tiny/logs_train.csv").read_text(encoding="utf-8").splitlines()
    assert len(header) == 3  # a rate that is logged apart makes no row of its own


@pytest.mark.parametrize(
    ("arguments", "batches", "steps"),
    [
        ({"limit_train_batches": 3}, 6, 6),
        ({"limit_train_batches": 4, "accumulate_grad_batches": 2}, 8, 4),
        ({"limit_train_batches": 2, "gradient_clip_val": 0.1}, 4, 4),
        ({"max_steps": 3}, 3, 3),
    ],
)
def test_arguments_of_lightning_do_what_they_do_there(
    tiny: Make, arguments: dict[str, Any], batches: int, steps: int
) -> None:
    counts = CountsSteps()
    info = build(tiny(), lightning={**QUIET, **arguments, "callbacks": [counts]}).train()
    assert (counts.batches, counts.steps) == (batches, steps)
    assert math.isfinite(info["best_loss"])


def test_clipping_changes_the_training(tiny: Make) -> None:
    losses = []
    for name, clip in (("free", None), ("clipped", 1e-6)):
        lightning = {**QUIET, "gradient_clip_val": clip}
        optimizer = {"type": "SGD", "lr": 0.1}
        config = tiny(run_name=name, optimizer=optimizer, lightning=lightning)
        losses.append(Trainer.from_config(config).train()["metrics_train"]["loss"])
    assert losses[0] < losses[1]


def test_validation_every_second_epoch_leaves_the_other_rows_empty(
    tiny: Make, tmp_path: Path, read_log: Log
) -> None:
    lightning = {**QUIET, "check_val_every_n_epoch": 2}
    config = tiny(epochs=4, monitor="val_loss", early_stopper=True, lightning=lightning)
    info = Trainer.from_config(config).train()
    rows = read_log(tmp_path / "runs/tiny/logs_train.csv")
    assert [math.isnan(row["val_loss"]) for row in rows] == [True, False, True, False]
    assert [math.isnan(row["val_dice"]) for row in rows] == [True, False, True, False]
    assert info["metrics_val"]["loss"] == rows[3]["val_loss"]
    header = (tmp_path / "runs/tiny/logs_train.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header.split(",")[:4] == ["epoch", "train_loss", "val_loss", "lr"]


def test_no_validation_runs_before_training(tiny: Make) -> None:
    class Notes(pl.Callback):
        seen: tuple[str, ...] = ()

        def on_validation_start(self, *args: Any) -> None:
            self.seen += ("validation",)

        def on_train_batch_start(self, *args: Any) -> None:
            self.seen += ("training",)

    notes = Notes()
    build(tiny(epochs=1), lightning={**QUIET, "callbacks": [notes]}).train()
    assert notes.seen[0] == "training"
    assert notes.seen.count("validation") == 1


def test_a_fast_run_for_development_works(tiny: Make) -> None:
    lightning = {**QUIET, "fast_dev_run": True}
    info = Trainer.from_config(tiny(), lightning=lightning).train()
    assert info["epochs_run"] == 1
