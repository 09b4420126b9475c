"""LIS2's early stopping: Lightning's callback, set up for it."""

from __future__ import annotations

from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping

from lis2_lightning.training.module import validates


class LossEarlyStopping(EarlyStopping):
    """Stop after ``patience`` epochs without an improvement of more than ``min_delta``.

    It follows the validation loss, or the training loss where there is no validation. Unlike
    Lightning's, it counts a NaN as an epoch without improvement, and a run that it has stopped
    stays stopped when it is resumed.

    Args:
        patience: Epochs without improvement to tolerate.
        min_delta: By how much the value must improve to count as an improvement.
        monitor: Another logged value to follow.
        mode: Whether its best value is the smallest or the largest; by default the metric says.
    """

    def __init__(
        self,
        patience: int = 10,
        min_delta: float = 0.0,
        monitor: str | None = None,
        mode: Literal["min", "max"] | None = None,
    ) -> None:
        super().__init__(
            monitor=monitor or "val_loss",
            min_delta=min_delta,
            patience=patience,
            mode=mode or "min",
            check_finite=False,
            check_on_train_epoch_end=True,
        )
        self._mode_is_open = mode is None
        self.follows_validation = monitor is None
        self._followed = f"{monitor or 'the loss'} by {min_delta:g}"
        self._validates = False
        self._has_validated = False

    def follow(self, direction: Literal["min", "max"] | None) -> None:
        """Take the direction in which the monitored value improves, where no mode is set."""
        if self._mode_is_open and direction not in {None, self.mode}:
            self.mode = direction
            self.min_delta, self.best_score = -self.min_delta, -self.best_score

    @property
    def _counts(self) -> str:
        return self._followed if self.mode == "min" else f"{self._followed}, the larger the better"

    @property
    def state_key(self) -> str:
        """One name whatever the options: a resumed run may have another patience."""
        return "LossEarlyStopping"

    def state_dict(self) -> dict[str, Any]:
        """The count, what it counts, the best loss, and whether this epoch has been validated."""
        own = {"counts": self._counts, "has_validated": self._has_validated}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the count and the best loss, unless another value or difference counts now."""
        self._has_validated = state_dict.get("has_validated", False)
        if state_dict.get("counts", self._counts) != self._counts:
            return
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Choose the loss to follow; stop a resumed run at once if it had been stopped."""
        self._validates = validates(trainer)
        if self.follows_validation:
            self.monitor = "val_loss" if self._validates else "train_loss"
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that this epoch has a validation loss of its own."""
        super().on_validation_end(trainer, pl_module)
        self._has_validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the loss; where validation is followed, an epoch without one does not count."""
        waits = self._validates and self.monitor.startswith("val_") and not self._has_validated
        self._has_validated = False
        if not waits:
            super().on_train_epoch_end(trainer, pl_module)
