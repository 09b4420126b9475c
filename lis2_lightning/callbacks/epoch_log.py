"""An epoch's values: reduced once, shown to every callback, sent to every tracker as one row."""

from __future__ import annotations

from typing import Any, cast

import lightning.pytorch as pl
from torch import Tensor

from lis2_lightning.module import SegmentationModule, Split
from lis2_lightning.trackers import CsvRows

Row = dict[str, float | None]


class EpochLog(pl.Callback):
    """Divides the sums when an epoch ends, and writes one row for it.

    It stands first among the callbacks, so that the others find ``train_loss``, ``val_loss`` and
    the metrics in ``trainer.callback_metrics``. The row is ``epoch, train_loss, val_loss, lr,
    train_<metric>…, val_<metric>…``; ``lr`` is the rate that the epoch began with.
    """

    def __init__(self) -> None:
        self.row: Row = {}
        self._lr: float | None = None
        self._val: dict[str, float] = {}

    @property
    def epochs_run(self) -> int:
        """How many epochs are done."""
        return int(self.row["epoch"] or 0) + 1 if self.row else 0

    def state_dict(self) -> dict[str, Any]:
        """The last row."""
        return {"row": dict(self.row)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the last row."""
        self.row = dict(state_dict["row"])

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the rate before any scheduler changes it."""
        self._val = {}
        self._lr = trainer.optimizers[0].param_groups[0]["lr"] if trainer.optimizers else None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Divide the validation sums."""
        self._val = _log(cast("SegmentationModule", pl_module), "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Divide the test sums."""
        _log(cast("SegmentationModule", pl_module), "test")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Divide the training sums and write the row."""
        train = _log(cast("SegmentationModule", pl_module), "train")
        self.row = {
            "epoch": trainer.current_epoch,
            "train_loss": train.pop("train_loss"),
            "val_loss": self._val.pop("val_loss", None),
            "lr": None if self._lr is None else float(self._lr),
            **train,
            **self._val,
        }
        known = {key: value for key, value in self.row.items() if value is not None}
        for logger in trainer.loggers:
            # a table has a column for what is not there yet; services refuse a None
            row = self.row if isinstance(logger, CsvRows) else known
            logger.log_metrics(cast("dict[str, float]", row), step=trainer.current_epoch)


def _log(module: SegmentationModule, split: Split) -> dict[str, float]:
    values: dict[str, Tensor] = module.scores(split).compute()
    named = {f"{split}_{name}": value.float() for name, value in values.items()}
    # one number for each name, the same in all processes: the sums were reduced already
    module.log_dict(named, on_step=False, on_epoch=True, logger=False, batch_size=1)
    return {f"{split}_{name}": float(value) for name, value in values.items()}
