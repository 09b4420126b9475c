"""The documented keys as objects, with their ranges checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, Final, Literal

from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger
from torch import nn
from torchmetrics import Metric

from lis2_lightning.data import AnyDataset
from lis2_lightning.errors import ConfigError
from lis2_lightning.trackers import Tracker
from lis2_lightning.training.module import OptimizerCallable, SchedulerCallable

# Arguments of the Lightning trainer that have a documented key or that our promises rest on.
_RESERVED: Final[Mapping[str, str]] = {
    "max_epochs": "set epochs instead",
    "logger": "set trackers instead",
    "default_root_dir": "set output_dir and run_name instead",
    "enable_checkpointing": "set save_interval and save_last instead",
    "num_sanity_val_steps": "a validation before training would enter the metrics",
    "overfit_batches": "set limit_train_batches instead",
    "use_distributed_sampler": "the data sets are dealt out so that no sample is counted twice",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The documented keys as objects; their meaning and defaults stand at ``Trainer``."""

    output_dir: str | Path
    run_name: str
    model: nn.Module
    train_dataset: AnyDataset
    val_dataset: AnyDataset | None
    test_dataset: AnyDataset | None
    optimizer: OptimizerCallable
    scheduler: SchedulerCallable | None
    scheduler_interval: Literal["epoch", "step"]
    loss: nn.Module
    early_stopper: bool | EarlyStopping | None
    batch_size: int
    num_workers: int | Literal["auto"]
    epochs: int
    save_interval: int
    save_last: bool
    save_every_n_steps: int | None
    save_every_minutes: float | None
    monitor: str
    mode: Literal["min", "max"]
    resume: bool | str
    compile: bool
    trackers: Sequence[Tracker | Logger]
    metrics: Sequence[Metric] | None
    seed: int | None
    lightning: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Refuse values out of range.

        Raises:
            ConfigError: As said.
        """
        self._check_numbers()
        self._check_lightning()
        if not self.run_name or Path(self.run_name).name != self.run_name:
            raise ConfigError(f"run_name must be the name of a folder, got {self.run_name!r}")
        if not isinstance(self.early_stopper, bool | EarlyStopping | None):
            raise ConfigError(
                f"early_stopper must be true, false or a callback, got {self.early_stopper}: "
                "Trainer.from_config builds one from a mapping"
            )

    def _check_numbers(self) -> None:
        for key, least in (("batch_size", 1), ("epochs", 0), ("save_interval", 0)):
            value = getattr(self, key)
            if not isinstance(value, Integral) or value < least:
                raise ConfigError(f"{key} must be a whole number of at least {least}, got {value}")
        if self.seed is not None and not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed must be from 0 to 4294967295, got {self.seed}")
        if self.num_workers != "auto" and self.num_workers < 0:
            raise ConfigError(f"num_workers must be 'auto' or at least 0, got {self.num_workers}")
        steps, minutes = self.save_every_n_steps, self.save_every_minutes
        if steps is not None and steps < 1:
            raise ConfigError(f"save_every_n_steps must be null or at least 1, got {steps}")
        if minutes is not None and not minutes > 0:
            raise ConfigError(f"save_every_minutes must be null or more than 0, got {minutes}")

    def _check_lightning(self) -> None:
        reserved = [key for key in self.lightning if key in _RESERVED]
        if reserved:
            told = "; ".join(f"lightning.{key}: {_RESERVED[key]}" for key in reserved)
            raise ConfigError(f"these are not set under lightning: {told}")

    @property
    def run_dir(self) -> Path:
        """Everything is written below it."""
        return Path(self.output_dir) / self.run_name
