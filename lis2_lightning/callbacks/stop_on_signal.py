"""A signal during a test, a validation or a prediction of its own: nothing is to be saved."""

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
    """End a loop that trains nothing at the next batch; what is written is whole.

    Training ends in :class:`~lis2_lightning.callbacks.Snapshots`, which writes ``last.pt`` first.
    In every loop without a gradient this sends off, before each batch, what its process was asked
    for, so that all of them end after the same batch.

    Args:
        exchange: Knows whether a signal asks any process to end.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def _start(self, trainer: pl.Trainer) -> None:
        device = trainer.strategy.root_device
        self._exchange.start(torch.zeros((), dtype=torch.int64, device=device))

    def _stop(self, trainer: pl.Trainer) -> None:
        doing = trainer.state.fn
        if doing is None or doing == TrainerFn.FITTING:
            return
        if signal := requested(self._exchange.requests()):
            raise Interrupted(
                f"{Number(signal).name} during {doing.value}: what is written is whole; start the "
                "same command again",
                signal,
            )

    def on_validation_batch_start(  # noqa: D102 - Lightning's hook
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        self._start(trainer)

    def on_test_batch_start(  # noqa: D102 - Lightning's hook
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        self._start(trainer)

    def on_predict_batch_start(  # noqa: D102 - Lightning's hook
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        self._start(trainer)

    def on_validation_batch_end(  # noqa: D102 - Lightning's hook
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        self._stop(trainer)

    def on_test_batch_end(  # noqa: D102 - Lightning's hook
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        self._stop(trainer)

    def on_predict_batch_end(  # noqa: D102 - Lightning's hook
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        self._stop(trainer)
