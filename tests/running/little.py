"""A world of four samples, whose training is refused or told of before it begins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import Dataset

from lis2_lightning import ConfigError, DataError, Trainer

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
LOGITS = nn.BCEWithLogitsLoss
Function = Callable[[Tensor], Tensor]


class Noise(Dataset[dict[str, Tensor]]):
    """Four noisy samples, a third of whose pixels are 1; none where there is no ``truth``."""

    def __init__(self, channels: int = 1, *, truth: bool = True) -> None:
        self.channels, self.truth = channels, truth

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        patch = torch.randn(self.channels, 8, 8, generator=torch.Generator().manual_seed(index))
        return {"patch": patch, "target": (self.truth * (patch > 0.4)).float()}


class Net(nn.Module):
    """A convolution and batch statistics, and a function of their output."""

    def __init__(self, last: Function = lambda x: x, *, scale: float = 9.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 1, 3, padding=1))
        self.last, self.scale = last, scale

    def forward(self, patch: Tensor) -> Tensor:
        return self.last(self.scale * self.layers(patch))


class Own(nn.Module):
    """A loss of a user's own that says nothing of what it expects."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(output, target)


def build(folder: Path, model: nn.Module | None = None, **changes: Any) -> Trainer:
    """A trainer of objects; its network gives probabilities unless another is given."""
    arguments: dict[str, Any] = {
        "model": Net(torch.sigmoid) if model is None else model,
        "train_dataset": Noise(),
        "val_dataset": Noise(),
        "epochs": 3,
        "batch_size": 2,
        "num_workers": 0,
        "seed": 1,
        **changes,
    }
    arguments["lightning"] = {**QUIET, **changes.get("lightning", {})}
    return Trainer(folder / "runs", "run", **arguments)


def refusal(trainer: Trainer) -> str:
    """The sentence with which training is refused, before anything is written."""
    with pytest.raises((ConfigError, DataError)) as caught:
        trainer.train()
    assert not Path(trainer.config["output_dir"]).exists()
    return str(caught.value)
