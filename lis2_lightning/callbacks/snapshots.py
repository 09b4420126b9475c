"""When snapshots are written: best, every n epochs, last, by LIS2's rules."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint

from lis2_lightning.callbacks.epoch_log import EpochLog
from lis2_lightning.callbacks.run_folder import is_trial
from lis2_lightning.errors import ConfigError, TrainingError, did_you_mean
from lis2_lightning.snapshots import link_snapshot


class Snapshots(Checkpoint):
    """Writes ``best.pt``, ``save_{epoch}.pt`` and ``last.pt``.

    What differs from Lightning's ``ModelCheckpoint``: epochs are counted from 0 and none is saved
    at 0 by the interval; ``last.pt`` is written after every epoch, whatever else was; the names
    never get a version; a value that is no number is never the best, and a network with such a
    weight is not written at all.

    Args:
        folder: The run's folder.
        log: Knows the epoch's values in double precision; Lightning keeps them in single.
        monitor: The logged value that ``best.pt`` follows.
        mode: Whether the best value is the smallest or the largest.
        save_interval: Write ``save_{epoch}.pt`` every so many epochs; 0 for never.
        save_last: Write ``last.pt`` after every epoch.
    """

    def __init__(
        self,
        folder: Path,
        log: EpochLog,
        *,
        monitor: str = "train_loss",
        mode: Literal["min", "max"] = "min",
        save_interval: int = 10,
        save_last: bool = False,
    ) -> None:
        self.folder = folder
        self._log = log
        self.monitor = monitor
        self.mode = mode
        self.save_interval = save_interval
        self.save_last = save_last
        self.best_loss = math.inf if mode == "min" else -math.inf

    @property
    def best_model_path(self) -> str:
        """``best.pt`` where it has been written, else empty (as Lightning's callback has it)."""
        return str(self.best_path) if self.best_path.is_file() else ""

    @property
    def best_path(self) -> Path:
        """Where the best snapshot lies."""
        return self.folder / "best.pt"

    @property
    def last_path(self) -> Path:
        """Where the last snapshot lies."""
        return self.folder / "last.pt"

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {"best_loss": self.best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best value."""
        self.best_loss = float(state_dict["best_loss"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what this epoch calls for; the bytes go to the disk once."""
        if is_trial(trainer):
            return
        if not _finite(pl_module):
            raise TrainingError(
                f"a weight became NaN or infinite in epoch {trainer.current_epoch}: lower the "
                "learning rate or set lightning.gradient_clip_val; earlier files are whole"
            )
        targets = self._due(trainer)
        if not targets:
            return
        trainer.save_checkpoint(targets[0], weights_only=False)  # all of it, not only the weights
        if trainer.is_global_zero:
            for target in targets[1:]:
                link_snapshot(targets[0], target)

    def _due(self, trainer: pl.Trainer) -> list[Path]:
        epoch = trainer.current_epoch
        due = {
            self.best_path: self._is_best(trainer),
            self.folder / f"save_{epoch}.pt": bool(self.save_interval)
            and epoch > 0
            and epoch % self.save_interval == 0,
            self.last_path: self.save_last,
        }
        return [path for path, is_due in due.items() if is_due]

    def _is_best(self, trainer: pl.Trainer) -> bool:
        values = {**trainer.callback_metrics, **self._log.row}
        value = values.get(self.monitor)
        if value is None:
            return self._not_logged(trainer, list(values))
        value = float(value)
        better = value < self.best_loss if self.mode == "min" else value > self.best_loss
        if not (better and math.isfinite(value)):
            return False
        self.best_loss = value
        return True

    def _not_logged(self, trainer: pl.Trainer, logged: list[str]) -> bool:
        if self.monitor.startswith("val_") and trainer.check_val_every_n_epoch != 1:
            return False  # no validation in this epoch
        raise ConfigError(
            f"monitor {self.monitor!r} was not logged: {did_you_mean(self.monitor, logged)}"
        )


def _finite(module: pl.LightningModule) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in module.parameters())
