"""``best.pt``, ``save_{epoch}.pt`` and ``last.pt``: Lightning's checkpoints under LIS2's rules."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lis2_lightning.base.position import epoch_is_whole
from lis2_lightning.base.signals import requested
from lis2_lightning.callbacks.finite import StopOnNonFiniteLoss
from lis2_lightning.callbacks.run_folder import is_trial
from lis2_lightning.errors import ConfigError, did_you_mean
from lis2_lightning.parallel.exchange import Exchange


@dataclass(eq=False)
class EpochEnd:
    """Decides which files the end of an epoch calls for, before the first is written.

    They are one file with several names, and that file lists the names.
    """

    finite: StopOnNonFiniteLoss
    exchange: Exchange
    snapshots: list[Snapshot] = field(default_factory=list)  # in the order they are called
    names: list[str] = field(default_factory=list)  # what is due; empty but at an epoch's end
    signal: int = 0  # which asks the run to stop; 0 for none

    def decide(self, trainer: pl.Trainer) -> None:
        """Note which files are due, unless the loss or a weight is NaN or infinite."""
        self.finite.check(trainer, trainer.lightning_module)
        self.signal = requested(self.exchange.requests_now(trainer.strategy.root_device))
        self.names = [s.name_at(trainer) for s in self.snapshots if s.is_due(trainer)]


class Snapshot(ModelCheckpoint):
    """What the snapshots of an epoch's end share: fixed names, and no path in their state."""

    FILE_EXTENSION = ".pt"
    on_train_batch_end = pl.Callback.on_train_batch_end  # nothing is due after a step

    def __init__(self, folder: Path, end: EpochEnd, filename: str, **options: Any) -> None:
        super().__init__(
            filename=filename,
            auto_insert_metric_name=False,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
            **options,
        )
        self.dirpath = str(folder)  # as an argument, Lightning would expand a ~ in it
        self.best_model_path = self._existing()
        self._end = end
        end.snapshots.append(self)

    def _existing(self) -> str:
        path = self.format_checkpoint_name({})
        return path if Path(path).is_file() else ""

    @property
    def state_key(self) -> str:
        """The class's name alone: a resumed run may have other options."""
        return type(self).__name__

    def state_dict(self) -> dict[str, Any]:
        """Nothing: Lightning's state is the paths of files, and a run's folder may be moved."""
        return {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Do nothing: the folder is known, and Lightning would warn that it is not empty."""

    def name_at(self, trainer: pl.Trainer) -> str:
        """The file's name in the running epoch."""
        epoch = torch.tensor(trainer.current_epoch)
        return Path(self.format_checkpoint_name({"epoch": epoch})).name

    def is_due(self, trainer: pl.Trainer) -> bool:
        """Whether the end of this epoch calls for the file."""
        raise NotImplementedError

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file where it is due."""
        if is_trial(trainer):
            return
        if self is self._end.snapshots[0]:
            self._end.decide(trainer)
        if self.name_at(trainer) in self._end.names:
            super().on_train_epoch_end(trainer, pl_module)


class BestSnapshot(Snapshot):
    """Writes ``best.pt`` when the monitored value is finite and strictly the best so far."""

    def __init__(
        self, folder: Path, end: EpochEnd, *, monitor: str, mode: Literal["min", "max"]
    ) -> None:
        super().__init__(folder, end, "best", monitor=monitor, mode=mode)

    @property
    def best_loss(self) -> float:
        """The best value so far; before the first the worst infinity."""
        if self.best_model_score is None:
            return math.inf if self.mode == "min" else -math.inf
        return float(self.best_model_score)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, and what it is a value of."""
        return {"best_loss": self.best_loss, "monitor": self.monitor, "mode": self.mode}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best value, unless another one is followed now."""
        if (state_dict["monitor"], state_dict["mode"]) == (self.monitor, self.mode):
            self.best_model_score = torch.tensor(state_dict["best_loss"], dtype=torch.float64)
            self.best_model_path = self._existing()

    def is_due(self, trainer: pl.Trainer) -> bool:
        """Whether this epoch's value is finite and strictly the best."""
        monitor, logged = str(self.monitor), trainer.callback_metrics
        skips_validation = trainer.check_val_every_n_epoch != 1 and monitor.startswith("val_")
        if monitor not in logged and not skips_validation:
            raise ConfigError(
                f"monitor {monitor!r} was not logged: {did_you_mean(monitor, list(logged))}"
            )
        return self.check_monitor_top_k(trainer, logged.get(monitor))

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Whether a value is finite and strictly the best: Lightning takes the first of any."""
        value = math.nan if current is None else float(current)
        is_better = value < self.best_loss if self.mode == "min" else value > self.best_loss
        return is_better and math.isfinite(value)


class EverySnapshot(Snapshot):
    """Writes ``save_{epoch}.pt`` where ``epoch % save_interval == 0`` and ``epoch > 0``.

    Epochs are counted from 0 (Lightning's ``every_n_epochs`` counts from 1); 0 is never.
    """

    def __init__(self, folder: Path, end: EpochEnd, *, save_interval: int) -> None:
        super().__init__(folder, end, "save_{epoch}", save_top_k=-1)
        self.save_interval = save_interval

    def is_due(self, trainer: pl.Trainer) -> bool:
        """Whether the epoch is whole and its number a multiple of the interval."""
        epoch = trainer.current_epoch
        is_multiple = bool(self.save_interval) and epoch > 0 and epoch % self.save_interval == 0
        return is_multiple and epoch_is_whole(trainer)


class LastSnapshot(Snapshot):
    """Writes ``last.pt`` after every epoch, or only where the run ends, to resume or test it."""

    def __init__(self, folder: Path, end: EpochEnd, *, every_epoch: bool) -> None:
        super().__init__(folder, end, "last")
        self.path = folder / "last.pt"
        self.every_epoch = every_epoch

    def is_due(self, trainer: pl.Trainer) -> bool:
        """Whether the epoch is whole and either each one is saved, or the run ends with it."""
        is_over = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        is_wanted = self.every_epoch or is_over or bool(self._end.signal)
        return is_wanted and epoch_is_whole(trainer)
