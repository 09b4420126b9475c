"""``last.pt`` inside an epoch, and what stops a loop: signals, and limits such as ``max_time``."""

from __future__ import annotations

import time
from signal import Signals as Number
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from lis2_lightning.base.files import shown
from lis2_lightning.base.position import batches_done, epoch_is_whole, inside_epoch
from lis2_lightning.base.signals import Signals, requested
from lis2_lightning.callbacks.checkpoints import EpochEnd, LastSnapshot
from lis2_lightning.callbacks.run_folder import is_trial
from lis2_lightning.errors import Interrupted
from lis2_lightning.snapshots import NAMES, settle


class SnapshotInsideEpoch(Checkpoint):
    """Writes ``last.pt`` between two optimizer steps, and stops every loop on a signal.

    Requests of a process reach the others with the next step's count of labelled pixels, or are
    sent off as a batch without gradients begins; so all processes act after the same batch.
    """

    def __init__(
        self,
        last: LastSnapshot,
        end: EpochEnd,
        signals: Signals,
        *,
        every_n_steps: int | None,
        every_s: float | None,
    ) -> None:
        self._last = last
        self._end = end
        self._signals = signals
        end.exchange.asked = self._requests
        self.every_n_steps = every_n_steps
        self.every_s = every_s
        self._last_step = 0
        self._last_time = time.monotonic()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the file's other names, and mark an unfinished epoch in the counters."""
        checkpoint[NAMES] = self._end.names
        if inside_epoch(trainer) or not epoch_is_whole(trainer):
            settle(checkpoint["loops"], validate=trainer.validating)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Have early stopping go on with the patience that is configured now."""
        for stopper in trainer.early_stopping_callbacks:
            state = checkpoint["callbacks"].get(stopper.state_key)
            if state is not None:  # Lightning would restore the patience, too
                state["patience"] = stopper.patience
                if state["wait_count"] < stopper.patience:
                    state["stopped_epoch"] = 0  # it was stopped, and is no longer

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count steps and minutes from here."""
        self._last_step, self._last_time = trainer.global_step, time.monotonic()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Write ``last.pt`` before a batch where it is due, or where the run is to stop."""
        if is_trial(trainer) or not _is_between_steps(trainer):
            return
        requests = self._end.exchange.requests()
        signal, is_late = requested(requests), any(requests[-1:])
        every, step = self.every_n_steps, trainer.global_step
        has_stepped = step != self._last_step
        is_nth = every is not None and step % every == 0
        if signal or (has_stepped and (is_nth or is_late)):
            self._write(trainer)
        self._stop(trainer, signal)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Write ``last.pt`` where a limit stops the run inside an epoch."""
        has_steps = trainer.max_steps == -1 or trainer.global_step < trainer.max_steps
        if is_trial(trainer) or (has_steps and not trainer.should_stop):
            return
        if not epoch_is_whole(trainer) and _is_between_steps(trainer):
            self._write(trainer)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Send off what this process is asked for."""
        device = trainer.strategy.root_device
        self._end.exchange.start(torch.zeros((), dtype=torch.int64, device=device))

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Stop where a process was asked to; a resumed run repeats the validation."""
        signal = requested(self._end.exchange.requests())
        if trainer.state.fn != TrainerFn.FITTING:
            self._stop(trainer, signal)
        elif signal and _is_between_steps(trainer) and not is_trial(trainer):
            self._write(trainer)
            self._stop(trainer, signal)

    on_test_batch_start = on_predict_batch_start = on_validation_batch_start
    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What is saved from here on is a file of its own."""
        if self._last.path.name in self._end.names:
            self.on_train_start(trainer, pl_module)
        self._end.names = []
        self._stop(trainer, self._end.signal)

    def _requests(self) -> list[int]:
        is_late = self.every_s and time.monotonic() - self._last_time >= self.every_s
        return [*self._signals.requests(), int(bool(is_late))]

    def _write(self, trainer: pl.Trainer) -> None:
        self._end.finite.check(trainer, trainer.lightning_module)
        trainer.save_checkpoint(self._last.path, weights_only=False)
        self._last_step, self._last_time = trainer.global_step, time.monotonic()

    def _stop(self, trainer: pl.Trainer, signal: int) -> None:
        if not signal:
            return
        loop, epoch = trainer.state.fn, trainer.current_epoch
        where = f"after epoch {epoch}"
        advice = (
            f"saved {shown(self._last.path)}. Run the same command with resume: auto to continue"
        )
        if loop is not None and loop != TrainerFn.FITTING:
            where = f"during {loop.value}"
            advice = "the files written so far are whole. Run the same command again"
        elif inside_epoch(trainer):
            where = f"in epoch {epoch}, batch {batches_done(trainer)}"
        raise Interrupted(f"{Number(signal).name} {where}: {advice}", signal)


def _is_between_steps(trainer: pl.Trainer) -> bool:
    """Whether no gradients wait for an optimizer step."""
    is_after_all = trainer.validating and epoch_is_whole(trainer)
    return batches_done(trainer) % trainer.accumulate_grad_batches == 0 or is_after_all
