"""A run whose loss is NaN or infinite is over: better now than at the end of the night."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import lightning.pytorch as pl
import torch
from torch import Tensor

from lis2_lightning.errors import TrainingError

CHECK_EVERY: Final = 100
_ADVICE: Final = (
    "lower the learning rate or set lightning.gradient_clip_val; earlier files are whole"
)


class StopOnNonFiniteLoss(pl.Callback):
    """End a run whose loss is NaN or infinite, naming the epoch and the step.

    The first such step is kept on the device and read back every 100 steps and at each epoch's
    end, before anything of that epoch is written.
    """

    def __init__(self) -> None:
        self._first_bad: Tensor | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin an epoch in which nothing is wrong."""
        self._first_bad = torch.full((), -1, device=pl_module.device)

    on_train_start = on_train_epoch_start  # a run may be resumed inside an epoch

    def check(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the loss of all steps so far, and at every weight.

        Raises:
            TrainingError: One of them is NaN or infinite.
        """
        self._check(trainer)
        if not all(bool(torch.isfinite(p).all()) for p in pl_module.parameters()):
            raise TrainingError(
                f"a weight became NaN or infinite in epoch {trainer.current_epoch}: {_ADVICE}"
            )

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Remember the first step whose loss is not finite."""
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        if loss is None or self._first_bad is None:
            return
        is_first = ~torch.isfinite(loss) & (self._first_bad < 0)
        self._first_bad = self._first_bad.masked_fill(is_first, batch_idx)
        if batch_idx % CHECK_EVERY == CHECK_EVERY - 1:
            self._check(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the whole epoch."""
        self._check(trainer)

    def _check(self, trainer: pl.Trainer) -> None:
        if self._first_bad is None:
            return
        # of any process: if one stopped alone, the others would wait for it
        step = int(trainer.strategy.reduce(self._first_bad.clone(), reduce_op="max"))
        if step >= 0:
            raise TrainingError(
                f"the training loss became NaN or infinite in epoch {trainer.current_epoch}, step "
                f"{step}: {_ADVICE}"
            )
