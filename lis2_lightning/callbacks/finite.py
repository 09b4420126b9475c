"""A run whose loss is NaN or infinite ends at once."""

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

    The losses stay on the device, and are looked at every 100 steps and before each snapshot.
    """

    def __init__(self) -> None:
        self._losses: dict[int, Tensor] = {}  # by batch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin an epoch in which every loss has been finite."""
        self._losses.clear()

    on_train_start = on_train_epoch_start  # a run may be resumed inside an epoch

    def check(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise a TrainingError where the loss of a step so far, or a weight, is not finite."""
        self._check(trainer)
        if not all(bool(torch.isfinite(p).all()) for p in pl_module.parameters()):
            raise TrainingError(
                f"a weight became NaN or infinite in epoch {trainer.current_epoch}: {_ADVICE}"
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """Remember the loss of the step."""
        outputs, _, batch_idx = args
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        if loss is None:
            return
        self._losses[batch_idx] = loss.detach()
        if batch_idx % CHECK_EVERY == CHECK_EVERY - 1:
            self._check(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the whole epoch."""
        self._check(trainer)

    def _check(self, trainer: pl.Trainer) -> None:
        steps, losses = list(self._losses), list(self._losses.values())
        self._losses.clear()
        bad = (~torch.isfinite(torch.stack(losses))).nonzero() if losses else torch.empty(0)
        own = steps[int(bad[0])] if len(bad) else -1
        # of any process: if one stopped alone, the others would wait for it
        device = trainer.strategy.root_device
        step = int(trainer.strategy.reduce(torch.tensor(own, device=device), reduce_op="max"))
        if step >= 0:
            raise TrainingError(
                f"the training loss became NaN or infinite in epoch {trainer.current_epoch}, step "
                f"{step}: {_ADVICE}"
            )
