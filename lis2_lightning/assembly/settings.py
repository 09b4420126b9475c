"""The documented keys as objects, with their ranges checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any, Final, Literal

from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger
from torch import nn
from torchmetrics import Metric

from lis2_lightning.callbacks import LossEarlyStopping
from lis2_lightning.data import AnyDataset, BalancedSampler
from lis2_lightning.errors import ConfigError
from lis2_lightning.metrics import default_metrics
from lis2_lightning.metrics.collection import metric_name
from lis2_lightning.trackers import Tracker
from lis2_lightning.training.map_scores import OF_MAP
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

_LONGEST_NAME: Final = 255  # bytes, on every common file system


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, Integral) and int(value) >= least


def _is_folder_name(name: Any) -> bool:
    if not isinstance(name, str) or name in {"", ".", ".."} or set(name) & {"/", "\\"}:
        return False
    return name.isprintable() and len(name.encode()) <= _LONGEST_NAME


_RANGES: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "batch_size": (lambda num: _is_whole(num, 1), "a whole number of at least 1"),
    "epochs": (lambda num: _is_whole(num, 0), "a whole number of at least 0"),
    "save_interval": (lambda num: _is_whole(num, 0), "a whole number of at least 0"),
    "seed": (lambda seed: seed is None or 0 <= seed < 2**32, "from 0 to 4294967295"),
    "num_workers": (lambda num: num == "auto" or num >= 0, "'auto' or at least 0"),
    "save_every_n_steps": (lambda num: num is None or num >= 1, "null or at least 1"),
    "save_every_minutes": (lambda num: num is None or num > 0, "null or more than 0"),
    "ema": (lambda decay: decay is None or 0 < decay < 1, "null or between 0 and 1"),
    "output_dir": (lambda path: "\0" not in str(path), "a path without a NUL character"),
    "run_name": (
        _is_folder_name,
        "the name of a folder: up to 255 bytes of printable text without / and \\, not '.' or '..'",
    ),
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
    sampler: BalancedSampler | None
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
    mode: Literal["min", "max"] | None
    validate_on: Literal["tiles", "map"]
    resume: bool | str
    weights: str | Path | None
    compile: bool
    ema: float | None
    tta: bool
    channels_last: bool
    trackers: Sequence[Tracker | Logger]
    metrics: Sequence[Metric] | None
    report: bool
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
        # the program may change its folder later
        _ = self.run_dir, self.resume_path, self.weights_path

    def chosen_metrics(self) -> list[Metric]:
        """The configured metrics, or the default ones."""
        return default_metrics() if self.metrics is None else list(self.metrics)

    @property
    def best_mode(self) -> Literal["min", "max"]:
        """Whether the best monitored value is the smallest or the largest."""
        return self.mode or self.direction(self.monitor) or "min"

    def direction(self, name: str) -> Literal["min", "max"] | None:
        """Whether a logged value is better when it is smaller or larger; null where unknown."""
        split, _, score = name.partition("_")
        if split not in {"train", "val"}:
            return None
        if score == "loss":
            return "min"
        of_map = default_metrics() if score.startswith(OF_MAP) else None
        metrics = {metric_name(metric): metric for metric in of_map or self.chosen_metrics()}
        is_larger = getattr(metrics.get(score.removeprefix(OF_MAP)), "higher_is_better", None)
        return None if is_larger is None else "max" if is_larger else "min"

    def chosen_stopper(self) -> EarlyStopping | None:
        """The early stopping callback, if there is to be one."""
        stopper = self.early_stopper
        if isinstance(stopper, bool):
            return LossEarlyStopping() if stopper else None
        if isinstance(stopper, LossEarlyStopping):
            stopper.follow(self.direction(stopper.monitor))
        return stopper

    @cached_property
    def run_dir(self) -> Path:
        """Everything is written below it; absolute."""
        return Path(self.output_dir).absolute() / self.run_name

    @property
    def named(self) -> dict[str, Path]:
        """The files of the snapshots that have a name."""
        return {name: self.run_dir / f"{name}.pt" for name in ("best", "last")}

    @cached_property
    def resume_path(self) -> Path | None:
        """The snapshot to resume from, where ``resume`` names one; absolute."""
        if isinstance(self.resume, bool) or self.resume == "auto":
            return None
        return self.named.get(self.resume, Path(self.resume).absolute())

    @cached_property
    def weights_path(self) -> Path | None:
        """The file whose weights a new run starts from; absolute."""
        return None if self.weights is None else Path(self.weights).absolute()
