"""A signal during a validation, test or prediction of its own: there is nothing to save."""

from __future__ import annotations

from signal import Signals as Number
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn

from lis2_lightning.base.signals import requested
from lis2_lightning.errors import Interrupted
from lis2_lightning.parallel.exchange import Exchange


class StopOnSignal(pl.Callback):
    """Stops a loop that trains nothing at the next batch; the files written so far are whole.

    Training is stopped by :class:`~lis2_lightning.callbacks.SnapshotInsideEpoch`, which writes
    ``last.pt`` first. In every loop without gradients, the validation inside training included,
    this sends off each process's requests before a batch, so that all stop after the same one.

    Args:
        exchange: Knows whether a signal asks any process to stop.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Send off what this process is asked for."""
        device = trainer.strategy.root_device
        self._exchange.start(torch.zeros((), dtype=torch.int64, device=device))

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Stop where any process was asked to."""
        loop = trainer.state.fn
        if loop is None or loop == TrainerFn.FITTING:
            return
        if signal := requested(self._exchange.requests()):
            raise Interrupted(
                f"{Number(signal).name} during {loop.value}: the files written so far are whole. "
                "Run the same command again",
                signal,
            )

    on_test_batch_start = on_predict_batch_start = on_validation_batch_start
    on_test_batch_end = on_predict_batch_end = on_validation_batch_end
