"""When snapshots are written: best, every n epochs and last by LIS2's rules, and before a stop."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import Signals as Number
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lis2_lightning.base.position import batches_done, epoch_is_whole, inside_epoch
from lis2_lightning.base.signals import Signals, requested
from lis2_lightning.callbacks.epoch_log import EpochLog
from lis2_lightning.callbacks.finite import StopOnNonFiniteLoss
from lis2_lightning.callbacks.run_folder import is_trial
from lis2_lightning.errors import ConfigError, Interrupted, did_you_mean
from lis2_lightning.parallel.exchange import Exchange
from lis2_lightning.snapshots import link_snapshot, settle


class Snapshots(Checkpoint):
    """Writes ``best.pt``, ``save_{epoch}.pt`` and ``last.pt``.

    What differs from Lightning's ``ModelCheckpoint``: epochs are counted from 0 and none is saved
    at 0 by the interval; ``last.pt`` is written after every epoch, whatever else was; the names
    never get a version; a value that is no number is never the best, and a network with such a
    weight is not written at all.

    Inside an epoch ``last.pt`` is written between two optimizer steps, when it is due, when a
    signal asks the run to end, or when a limit such as ``max_time`` ends it. Signals are looked at
    after each step and each validation batch. What one process is asked for travels to the others
    with the count of labelled pixels of the next step, so that all act after the same step.

    Args:
        folder: The run's folder.
        log: Knows the epoch's values in double precision; Lightning keeps them in single.
        finite: Knows whether the loss and the weights are numbers.
        signals: Knows whether a signal asks this process to end.
        exchange: Knows what any process is asked for.
        monitor: The logged value that ``best.pt`` follows.
        mode: Whether the best value is the smallest or the largest.
        save_interval: Write ``save_{epoch}.pt`` every so many epochs; 0 for never.
        save_last: Write ``last.pt`` after every epoch.
        every_n_steps: Write ``last.pt`` every so many optimizer steps, too.
        every_s: Write ``last.pt`` every so many seconds, too.
    """

    def __init__(
        self,
        folder: Path,
        log: EpochLog,
        finite: StopOnNonFiniteLoss,
        signals: Signals,
        exchange: Exchange,
        *,
        monitor: str = "train_loss",
        mode: Literal["min", "max"] = "min",
        save_interval: int = 10,
        save_last: bool = False,
        every_n_steps: int | None = None,
        every_s: float | None = None,
    ) -> None:
        self.folder = folder
        self._log = log
        self._finite = finite
        self._signals = signals
        self._exchange = exchange
        exchange.asked = self._requests
        self.monitor = monitor
        self.mode = mode
        self.save_interval = save_interval
        self.save_last = save_last
        self.every_n_steps = every_n_steps
        self.every_s = every_s
        self.best_loss = self._worst
        self._is_temporary = False
        self._names: list[str] = []
        self._last_step = 0
        self._last_time = time.monotonic()

    @property
    def _worst(self) -> float:
        return math.inf if self.mode == "min" else -math.inf

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
        """The best value so far, and what it is a value of."""
        return {
            "best_loss": self.best_loss,
            "monitor": self.monitor,
            "mode": self.mode,
            "is_temporary": self._is_temporary,
            "names": self._names,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best value, unless another one is followed now."""
        same = state_dict["monitor"] == self.monitor and state_dict["mode"] == self.mode
        self.best_loss = float(state_dict["best_loss"]) if same else self._worst
        self._is_temporary = state_dict["is_temporary"]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Say in Lightning's counters that an epoch is not over, where it is not."""
        if inside_epoch(trainer) or not epoch_is_whole(trainer):
            settle(checkpoint["loops"], validate=trainer.validating)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count steps and minutes from here."""
        self._last_step, self._last_time = trainer.global_step, time.monotonic()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Write ``last.pt`` before a batch where it is due, or where the run is to end."""
        if is_trial(trainer) or not _between_steps(trainer):
            return
        signal, is_late = _told(self._exchange.requests())
        is_due = self._is_due_by_step(trainer) or (
            is_late and trainer.global_step != self._last_step
        )
        if signal or is_due:
            self._write_last(trainer, temporary=not is_due)
        self._end_on(signal, trainer)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write ``last.pt`` where a limit ends the run inside an epoch."""
        has_steps = trainer.max_steps == -1 or trainer.global_step < trainer.max_steps
        if is_trial(trainer) or (has_steps and not trainer.should_stop):
            return
        if not epoch_is_whole(trainer) and _between_steps(trainer):
            self._write_last(trainer, temporary=True)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write ``last.pt`` where the run is to end; a resumed one validates from the start."""
        fits = trainer.state.fn == TrainerFn.FITTING and not is_trial(trainer)
        signal, _ = _told(self._exchange.requests()) if fits else (0, False)
        if signal and _between_steps(trainer):
            self._write_last(trainer, temporary=True)
            self._end_on(signal, trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what this epoch calls for; the bytes go to the disk once."""
        if is_trial(trainer):
            return
        self._finite.check(trainer, pl_module)
        signal, _ = _told(self._exchange.requests_now(trainer.strategy.root_device))
        self._write(trainer, self._due(trainer, is_asked=bool(signal)))
        self._end_on(signal, trainer)

    def remove_temporary(self) -> None:
        """Remove a ``last.pt`` that only kept a run which is over now; the main process calls."""
        if self._is_temporary:
            self.last_path.unlink(missing_ok=True)

    def _requests(self) -> list[int]:
        """What this process is asked for now: a signal, or a snapshot because time has passed."""
        is_late = self.every_s and time.monotonic() - self._last_time >= self.every_s
        return [*self._signals.requests(), int(bool(is_late))]

    def _is_due_by_step(self, trainer: pl.Trainer) -> bool:
        steps = trainer.global_step
        if not self.every_n_steps or steps == self._last_step:
            return False
        return steps % self.every_n_steps == 0

    def _write_last(self, trainer: pl.Trainer, *, temporary: bool) -> None:
        self._finite.check(trainer, trainer.lightning_module)
        self._is_temporary = temporary and not self.save_last
        self._write(trainer, [self.last_path])

    def _write(self, trainer: pl.Trainer, targets: list[Path]) -> None:
        if not targets:
            return
        self._names = [target.name for target in targets]
        trainer.save_checkpoint(targets[0], weights_only=False)  # all of it, not only the weights
        if trainer.is_global_zero:
            for target in targets[1:]:
                link_snapshot(targets[0], target)
        if self.last_path in targets:
            self._last_step, self._last_time = trainer.global_step, time.monotonic()

    def _end_on(self, signal: int, trainer: pl.Trainer) -> None:
        if signal:
            epoch, batch = trainer.current_epoch, batches_done(trainer)
            where = (
                f"in epoch {epoch}, batch {batch}"
                if inside_epoch(trainer)
                else f"after epoch {epoch}"
            )
            raise Interrupted(
                f"{Number(signal).name} {where}: {self.last_path} has all of it, and the same "
                "command with resume: auto goes on from there",
                signal,
            )

    def _due(self, trainer: pl.Trainer, *, is_asked: bool) -> list[Path]:
        epoch = trainer.current_epoch
        is_whole = epoch_is_whole(trainer)
        by_interval = bool(self.save_interval) and epoch > 0 and epoch % self.save_interval == 0
        is_over = trainer.should_stop or epoch + 1 == trainer.max_epochs
        due = {
            self.best_path: self._is_best(trainer),
            self.folder / f"save_{epoch}.pt": by_interval and is_whole,
            # a run that is over is still tested: until then the file keeps it
            self.last_path: is_whole and (self.save_last or is_over or is_asked),
        }
        if due[self.last_path]:
            inside = self.every_n_steps or self.every_s
            self._is_temporary = not (self.save_last or (inside and is_over))
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


def _told(requests: Sequence[int]) -> tuple[int, bool]:
    """The signal that any process has received, and whether time has passed for any."""
    return requested(requests), any(requests[-1:])


def _between_steps(trainer: pl.Trainer) -> bool:
    """Whether no gradients wait for an optimizer step."""
    is_after_all = trainer.validating and epoch_is_whole(trainer)
    return batches_done(trainer) % trainer.accumulate_grad_batches == 0 or is_after_all
