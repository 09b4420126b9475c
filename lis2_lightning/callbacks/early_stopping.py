"""LIS2's early stopping, as Lightning's callback set up for it."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping


class LossEarlyStopping(EarlyStopping):
    """Stop after ``patience`` epochs without an improvement of more than ``min_delta``.

    It sees the validation loss, or the training loss where there is no validation. Unlike
    Lightning's, it counts a NaN as an epoch without improvement, and a run that it has stopped
    stays stopped when it is resumed.

    Args:
        patience: How many such epochs are borne.
        min_delta: How much lower the loss must be to count as lower.
        monitor: Another logged value to follow; it is to become small.
    """

    def __init__(
        self, patience: int = 10, min_delta: float = 0.0, monitor: str | None = None
    ) -> None:
        super().__init__(
            monitor=monitor or "val_loss",
            min_delta=min_delta,
            patience=patience,
            mode="min",
            check_finite=False,
            check_on_train_epoch_end=True,
        )
        self._follows_validation = monitor is None

    @property
    def state_key(self) -> str:
        """One name whatever the options: a resumed run may have another patience."""
        return "LossEarlyStopping"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Choose the loss to follow."""
        super().setup(trainer, pl_module, stage)
        if self._follows_validation:
            validates = trainer.fit_loop.epoch_loop.val_loop._data_source.is_defined()  # noqa: SLF001
            self.monitor = "val_loss" if validates else "train_loss"

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop a resumed run at once that had been stopped."""
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience
