"""An epoch's values: computed once, shown to every callback, one row for every tracker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import lightning.pytorch as pl
import torch
from torch import Tensor

from lis2_lightning.base.position import epoch_is_whole, inside_epoch
from lis2_lightning.data import SegmentationData
from lis2_lightning.trackers.csv_rows import CsvRows
from lis2_lightning.training.module import SegmentationModule, Split

Row = dict[str, float | None]


class EpochLog(pl.Callback):
    """Divides the sums when an epoch ends, and writes one row for it.

    The row is ``epoch, train_loss, val_loss, lr, train_<metric>…, val_<metric>…``; ``lr`` is the
    rate at the epoch's start. Callbacks that Lightning calls later find the same values in
    ``trainer.callback_metrics``, in double precision, where ``log`` keeps single.
    """

    def __init__(self) -> None:
        self.row: Row = {}
        self.epochs_run = 0
        self._lr: float | None = None
        self._val: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """The last row, and what the running epoch's row has so far."""
        row, val = dict(self.row), dict(self._val)
        return {"row": row, "epochs_run": self.epochs_run, "lr": self._lr, "val": val}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.row = dict(state_dict["row"])
        self.epochs_run = state_dict["epochs_run"]
        self._lr = state_dict["lr"]
        self._val = dict(state_dict["val"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read earlier rows; show other callbacks the validation of an interrupted epoch."""
        for logger in trainer.loggers:
            if isinstance(logger, CsvRows) and trainer.is_global_zero:
                logger.check()
        if inside_epoch(trainer):
            trainer.callback_metrics.update(_tensors(self._val))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the rate before any scheduler changes it."""
        self._val = {}
        groups = trainer.optimizers[0].param_groups if trainer.optimizers else []
        self._lr = float(groups[0]["lr"]) if groups else None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Divide the validation sums."""
        self._val = _scores(pl_module, "val")
        cast("SegmentationModule", pl_module).choose_threshold()

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Divide the test sums, and measure at the threshold that the validation has chosen."""
        _scores(pl_module, "test")
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, SegmentationData) and data.test is not data.val:
            scores = cast("SegmentationModule", pl_module).scores_at_threshold()
            pl_module.log_dict(scores, on_step=False, on_epoch=True, logger=False, batch_size=1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Divide the training sums and write the row."""
        train = _scores(pl_module, "train")
        self.row = {
            "epoch": trainer.current_epoch,
            "train_loss": train["train_loss"],
            "val_loss": self._val.get("val_loss"),
            "lr": self._lr,
            **train,
            **self._val,
        }
        # an epoch that max_steps or max_time cut short has a row, and is resumed
        self.epochs_run = trainer.current_epoch + int(epoch_is_whole(trainer))
        known = {key: value for key, value in self.row.items() if value is not None}
        # not the epoch: a ModelCheckpoint that saves after validation would take the last number
        trainer.callback_metrics.update(_tensors({k: v for k, v in known.items() if k != "epoch"}))
        for logger in trainer.loggers:
            # a table has a column for what is not known yet; services refuse a None
            row = self.row if isinstance(logger, CsvRows) else known
            logger.log_metrics(cast("dict[str, float]", row), step=trainer.current_epoch)


def _scores(module: pl.LightningModule, split: Split) -> dict[str, float]:
    values = cast("SegmentationModule", module).scores(split).compute()
    scores = {f"{split}_{name}": float(value) for name, value in values.items()}
    if split != "train":  # Lightning's own validate and test return what is logged
        # the same in all processes: the sums were reduced already
        module.log_dict(scores, on_step=False, on_epoch=True, logger=False, batch_size=1)
    return scores


def _tensors(values: Mapping[str, float]) -> dict[str, Tensor]:
    return {key: torch.tensor(value, dtype=torch.float64) for key, value in values.items()}
