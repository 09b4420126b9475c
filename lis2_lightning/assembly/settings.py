"""The documented keys as objects, with their ranges checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from lis2_lightning.metrics import default_metrics
from lis2_lightning.trackers import Tracker
from lis2_lightning.training.module import OptimizerCallable, SchedulerCallable

# Arguments of the Lightning trainer that have a documented key or that our promises rest on.
RESERVED: Final[Mapping[str, str]] = {
    "max_epochs": "set epochs instead",
    "logger": "set trackers instead",
    "default_root_dir": "set output_dir and run_name instead",
    "enable_checkpointing": "set save_interval and save_last instead",
    "num_sanity_val_steps": "a validation before training would enter the metrics",
    "overfit_batches": "set limit_train_batches instead",
    "use_distributed_sampler": "the data sets are dealt out so that no sample is counted twice",
}

# What the Lightning trainer gets where the user does not set it.
FIXED: Final[Mapping[str, Any]] = {
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,
    "enable_model_summary": False,
    "log_every_n_steps": 1,
}


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, Integral) and int(value) >= least


_RANGES: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "batch_size": (lambda num: _is_whole(num, 1), "a whole number of at least 1"),
    "epochs": (lambda num: _is_whole(num, 0), "a whole number of at least 0"),
    "save_interval": (lambda num: _is_whole(num, 0), "a whole number of at least 0"),
    "seed": (lambda seed: seed is None or 0 <= seed < 2**32, "from 0 to 4294967295"),
    "num_workers": (lambda num: num == "auto" or num >= 0, "'auto' or at least 0"),
    "save_every_n_steps": (lambda num: num is None or num >= 1, "null or at least 1"),
    "save_every_minutes": (lambda num: num is None or num > 0, "null or more than 0"),
    "run_name": (lambda name: name and Path(name).name == name, "the name of a folder"),
    "early_stopper": (
        lambda value: isinstance(value, bool | EarlyStopping | None),
        "true, false or a callback (Trainer.from_config builds one from a mapping)",
    ),
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
            ConfigError: A value is out of range, or an argument of Lightning is reserved.
        """
        for key, (is_allowed, allowed) in _RANGES.items():
            value = getattr(self, key)
            if not is_allowed(value):
                raise ConfigError(f"{key} must be {allowed}, got {value!r}")
        if reserved := [key for key in self.lightning if key in RESERVED]:
            reasons = "; ".join(f"lightning.{key}: {RESERVED[key]}" for key in reserved)
            raise ConfigError(f"these are not set under lightning: {reasons}")

    def chosen_metrics(self) -> list[Metric]:
        """The configured metrics, or the default ones."""
        return default_metrics() if self.metrics is None else list(self.metrics)

    @property
    def run_dir(self) -> Path:
        """Everything is written below it."""
        return Path(self.output_dir) / self.run_name
