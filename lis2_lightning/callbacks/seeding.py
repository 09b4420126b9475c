"""Random numbers of training depend on the seed, epoch, batch and process alone."""

from __future__ import annotations

import random
import struct
from hashlib import blake2b
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import torch

from lis2_lightning.data import SegmentationData


class SeedEachBatch(pl.Callback):
    """Seed the global random generators at the start of each epoch and of each training batch.

    A resumed run then draws what an uninterrupted one draws, and no random state is saved.
    """

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed Python, NumPy and torch for what is drawn before the first batch."""
        _seed(trainer, 0)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed them for the batch."""
        _seed(trainer, batch_idx + 1)


def _seed(trainer: pl.Trainer, step: int) -> None:
    seed = cast("SegmentationData", cast("Any", trainer).datamodule).seed
    words = struct.pack("<4Q", seed, trainer.current_epoch, trainer.global_rank, step)
    key = int.from_bytes(blake2b(words, digest_size=8).digest(), "little")
    random.seed(key)
    np.random.seed(key & 0xFFFF_FFFF)  # noqa: NPY002 - models of others use the global one
    device = trainer.strategy.root_device
    if device.type in {"cpu", "cuda"}:  # a fiftieth of the cost of torch.manual_seed
        torch.default_generator.manual_seed(key)
        if device.type == "cuda":
            torch.cuda.default_generators[device.index or 0].manual_seed(key)
    else:
        torch.manual_seed(key)
