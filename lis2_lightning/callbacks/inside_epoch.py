"""``last.pt`` inside an epoch: every few steps or minutes, and where a signal or a limit stops."""

from __future__ import annotations

import time
from collections.abc import Mapping
from signal import Signals as Number
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lis2_lightning.base.position import batches_done, epoch_is_whole, inside_epoch
from lis2_lightning.base.signals import Signals, requested
from lis2_lightning.callbacks.checkpoints import EpochEnd, LastSnapshot
from lis2_lightning.callbacks.finite import StopOnNonFiniteLoss
from lis2_lightning.callbacks.run_folder import is_trial
from lis2_lightning.errors import Interrupted
from lis2_lightning.parallel.exchange import Exchange
from lis2_lightning.snapshots import NAMES, settle


class SnapshotInsideEpoch(Checkpoint):
    """Writes ``last.pt`` between two optimizer steps, and stops the run where a signal asks for it.

    Requests are looked at after each step and each validation batch. Those of one process reach
    the others with the next step's count of labelled pixels, so all act after the same step.

    Args:
        last: Whose file is written.
        end: Knows which files are due at an epoch's end, and whether a signal came there.
        finite: Knows whether the loss and the weights are finite.
        signals: Knows whether a signal asks this process to stop.
        exchange: Knows what any process is asked for.
        every_n_steps: Write it every so many optimizer steps; null for never.
        every_s: Write it every so many seconds; null for never.
    """

    def __init__(
        self,
        last: LastSnapshot,
        end: EpochEnd,
        finite: StopOnNonFiniteLoss,
        signals: Signals,
        exchange: Exchange,
        *,
        every_n_steps: int | None = None,
        every_s: float | None = None,
    ) -> None:
        self._last = last
        self._end = end
        self._finite = finite
        self._signals = signals
        self._exchange = exchange
        exchange.asked = self._requests
        self.every_n_steps = every_n_steps
        self.every_s = every_s
        self._last_step = 0
        self._last_time = time.monotonic()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the names that share the bytes; mark an epoch that is not over in the counters."""
        checkpoint[NAMES] = self._end.names
        if inside_epoch(trainer) or not epoch_is_whole(trainer):
            settle(checkpoint["loops"], validate=trainer.validating)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count steps and minutes from here."""
        self._last_step, self._last_time = trainer.global_step, time.monotonic()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Write ``last.pt`` before a batch where it is due, or where the run is to stop."""
        if is_trial(trainer) or not _is_between_steps(trainer):
            return
        requests = self._exchange.requests()
        signal, is_late = requested(requests), any(requests[-1:])
        every, step = self.every_n_steps, trainer.global_step
        has_stepped = step != self._last_step
        is_nth = every is not None and step % every == 0
        if signal or (has_stepped and (is_nth or is_late)):
            self._write(trainer)
        self._stop(trainer, signal)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write ``last.pt`` where a limit stops the run inside an epoch."""
        has_steps = trainer.max_steps == -1 or trainer.global_step < trainer.max_steps
        if is_trial(trainer) or (has_steps and not trainer.should_stop):
            return
        if not epoch_is_whole(trainer) and _is_between_steps(trainer):
            self._write(trainer)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write ``last.pt`` where the run is to stop; a resumed one validates from the start."""
        fits = trainer.state.fn == TrainerFn.FITTING and not is_trial(trainer)
        signal = requested(self._exchange.requests()) if fits else 0
        if signal and _is_between_steps(trainer):
            self._write(trainer)
            self._stop(trainer, signal)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the epoch's end: what is saved from here on is a file of its own."""
        if self._last.path.name in self._end.names:
            self.on_train_start(trainer, pl_module)
        self._end.names = []
        self._stop(trainer, self._end.signal)

    def _requests(self) -> list[int]:
        """What this process is asked for now: a signal, or a snapshot because time has passed."""
        is_late = self.every_s and time.monotonic() - self._last_time >= self.every_s
        return [*self._signals.requests(), int(bool(is_late))]

    def _write(self, trainer: pl.Trainer) -> None:
        self._finite.check(trainer, trainer.lightning_module)
        trainer.save_checkpoint(self._last.path, weights_only=False)
        self._last_step, self._last_time = trainer.global_step, time.monotonic()

    def _stop(self, trainer: pl.Trainer, signal: int) -> None:
        if signal:
            epoch, batch = trainer.current_epoch, batches_done(trainer)
            inside = f"in epoch {epoch}, batch {batch}"
            where = inside if inside_epoch(trainer) else f"after epoch {epoch}"
            raise Interrupted(
                f"{Number(signal).name} {where}: saved {self._last.path}. Run the same command "
                "with resume: auto to continue",
                signal,
            )


def _is_between_steps(trainer: pl.Trainer) -> bool:
    """Whether no gradients wait for an optimizer step."""
    is_after_all = trainer.validating and epoch_is_whole(trainer)
    return batches_done(trainer) % trainer.accumulate_grad_batches == 0 or is_after_all
