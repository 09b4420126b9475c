"""Dropout and the like begin each epoch from a state that follows from (seed, epoch, process)."""

from __future__ import annotations

import random
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import torch

from lis2_lightning.data import SegmentationData


class SeedEachEpoch(pl.Callback):
    """Seed the global random generators at the start of each epoch.

    A resumed run then draws what the uninterrupted one drew, and no random state need be kept.
    """

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed Python, NumPy and torch."""
        seed = cast("SegmentationData", cast("Any", trainer).datamodule).seed
        words = np.random.SeedSequence((seed, trainer.current_epoch, trainer.global_rank))
        key = int(words.generate_state(1, np.uint64)[0])
        random.seed(key)
        np.random.seed(key & 0xFFFF_FFFF)  # noqa: NPY002 - models of others use the global one
        torch.manual_seed(key)
