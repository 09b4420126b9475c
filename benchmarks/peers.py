"""What stands beside ours in several benchmarks: a bare trainer of Lightning's, a plain loss."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import lightning.pytorch as pl
from torch import Tensor
from torch.nn import functional


def bare_trainer(times: pl.Callback, folder: str | Path, *, bar: bool = False) -> pl.Trainer:
    """A trainer for one epoch, which writes nothing."""
    return pl.Trainer(
        default_root_dir=folder,
        max_epochs=1,
        callbacks=[times],
        enable_progress_bar=bar,
        enable_checkpointing=False,
        logger=False,
        enable_model_summary=False,
        accelerator="cpu",
    )


def loss_of(output: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """The mean over the labelled pixels."""
    labelled = batch["labelled"]
    values = functional.binary_cross_entropy(
        output, batch["target"], labelled.float(), reduction="sum"
    )
    return values / labelled.sum().clamp(min=1)
