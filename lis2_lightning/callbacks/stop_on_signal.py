"""A signal during a test, a validation or a prediction of its own: nothing is to be saved."""

from __future__ import annotations

from signal import Signals as Number
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn

from lis2_lightning.errors import Interrupted
from lis2_lightning.signals import Signals


class StopOnSignal(pl.Callback):
    """End a loop that trains nothing at the next batch; what is written is whole.

    Training ends in :class:`~lis2_lightning.callbacks.Snapshots`, which writes ``last.pt`` first.

    Args:
        signals: Knows whether a signal asks the run to end.
    """

    def __init__(self, signals: Signals) -> None:
        self._signals = signals

    def _stop(self, trainer: pl.Trainer) -> None:
        doing = trainer.state.fn
        if self._signals.received and doing is not None and doing != TrainerFn.FITTING:
            name = Number(self._signals.received).name
            raise Interrupted(
                f"{name} during {doing.value}: what is written is whole; start the same command "
                "again",
                self._signals.received,
            )

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
