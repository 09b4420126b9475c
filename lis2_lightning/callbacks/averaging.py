"""Moving averages of weights: Lightning's callback, during training alone."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor


class MovingAverage(WeightAveraging):
    """Averages the weights after each optimizer step; validation and snapshots are of the average.

    A snapshot also holds the weights that are trained, to go on from. Unlike Lightning's, it leaves
    alone the weights that are tested or validated after training, which are those of a snapshot,
    and takes those that a snapshot inside a validation exchanges for what they are.

    After n steps, the average keeps ``min(decay, (1 + n) / (10 + n))`` of itself, as TensorFlow's
    ``ExponentialMovingAverage`` with ``num_updates``: a training that is shorter than the average
    reaches back would else end with much of the first weights, and of the first variances of batch
    normalization.

    Args:
        decay: How much of the average a step keeps in the long run, in (0, 1).
    """

    def __init__(self, decay: float) -> None:
        super().__init__(avg_fn=partial(moved, decay=decay))
        self._is_swapped = False

    @property
    def state_key(self) -> str:
        """The class's name alone: a resumed run may have another decay."""
        return type(self).__name__

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate the average."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_start(trainer, pl_module)
            self._is_swapped = True

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Train on with the weights themselves."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_end(trainer, pl_module)
            self._is_swapped = False

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the average where the weights are, and these beside it."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._is_swapped:
            weights, average = checkpoint["state_dict"], checkpoint["current_model_state"]
            checkpoint["state_dict"], checkpoint["current_model_state"] = average, weights

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore both to train on; else the weights are the average already."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


def moved(average: Tensor, value: Tensor, num_averaged: Tensor, *, decay: float) -> Tensor:
    """The average after one more value; nothing is read from the device.

    >>> import torch
    >>> moved(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(8), decay=0.999)  # keeps a half
    tensor(0.5000)
    """
    taken = (9 / (10 + num_averaged)).clamp(min=1 - decay)
    return average + (value - average) * taken
