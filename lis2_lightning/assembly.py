"""Documented keys → Lightning objects: the only place where the rooms meet."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral
from pathlib import Path
from typing import Any, Final, Literal

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, ProgressBar
from lightning.pytorch.loggers import Logger
from torch import nn
from torchmetrics import Metric

from lis2_lightning.callbacks import (
    EpochLog,
    LossEarlyStopping,
    ProgressBars,
    RunFolder,
    SeedEachEpoch,
    Snapshots,
    StopOnNonFiniteLoss,
    TestResults,
)
from lis2_lightning.config import describe, to_lis2
from lis2_lightning.data import AnyDataset, SegmentationData, TileDataset, check_no_shared_pixels
from lis2_lightning.errors import ConfigError
from lis2_lightning.inference import Segmenter
from lis2_lightning.metrics import default_metrics
from lis2_lightning.module import OptimizerCallable, SchedulerCallable, SegmentationModule
from lis2_lightning.snapshots import SnapshotIO, to_snapshot
from lis2_lightning.trackers import CsvLogger, Tracker

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

    def _check_lightning(self) -> None:
        reserved = [key for key in self.lightning if key in _RESERVED]
        if reserved:
            told = "; ".join(f"lightning.{key}: {_RESERVED[key]}" for key in reserved)
            raise ConfigError(f"these are not set under lightning: {told}")
        for key in ("save_every_n_steps", "save_every_minutes"):
            if getattr(self, key) is not None:
                raise ConfigError(f"{key} is not supported yet: use save_last for every epoch")

    @property
    def run_dir(self) -> Path:
        """Everything is written below it."""
        return Path(self.output_dir) / self.run_name


@dataclass(frozen=True)
class Assembly:
    """What came of the settings."""

    module: SegmentationModule
    data: SegmentationData
    lightning: pl.Trainer
    log: EpochLog
    snapshots: Snapshots
    segmenter: Segmenter
    test_results: TestResults
    early_stopper: EarlyStopping | None


def assemble(settings: Settings, config: Mapping[str, Any]) -> Assembly:
    """Build everything a run needs.

    Args:
        settings: The documented keys.
        config: The same as plain values, for the snapshots and ``config.yaml``.

    Raises:
        ConfigError: A value does not fit.
        DataError: The data sets share pixels.
    """
    seed = secrets.randbits(32) if settings.seed is None else settings.seed
    config = {**config, "seed": seed}  # so that a run without a seed can be told and resumed, too
    data = build_data(settings, seed)
    log = EpochLog()
    snapshots = build_snapshots(settings, log)
    segmenter = Segmenter(image_shape(data.predict))
    test_results = TestResults(settings.run_dir / "test_results.csv")
    early_stopper = build_early_stopper(settings.early_stopper)
    callbacks: list[pl.Callback] = [
        SeedEachEpoch(),
        StopOnNonFiniteLoss(),
        RunFolder(settings.run_dir, config),
        log,
        test_results,
        segmenter,
        snapshots,
    ]
    callbacks += [early_stopper] if early_stopper is not None else []
    io = SnapshotIO(snapshot_writer(config, log, snapshots))
    return Assembly(
        module=build_module(settings),
        data=data,
        lightning=build_lightning(settings, callbacks, io),
        log=log,
        snapshots=snapshots,
        segmenter=segmenter,
        test_results=test_results,
        early_stopper=early_stopper,
    )


def build_module(settings: Settings) -> SegmentationModule:
    """The network with its loss, metrics, optimizer and scheduler."""
    return SegmentationModule(
        settings.model,
        loss=settings.loss,
        optimizer=settings.optimizer,
        scheduler=settings.scheduler,
        scheduler_interval=settings.scheduler_interval,
        metrics=_metrics(settings),
        compile_model=settings.compile,
    )


def _metrics(settings: Settings) -> list[Metric]:
    return default_metrics() if settings.metrics is None else list(settings.metrics)


def build_data(settings: Settings, seed: int) -> SegmentationData:
    """The data sets and their loaders.

    Raises:
        DataError: Two of the splits share a pixel.
    """
    splits = {
        "train_dataset": settings.train_dataset,
        "val_dataset": settings.val_dataset,
        "test_dataset": settings.test_dataset,
    }
    check_no_shared_pixels({k: v for k, v in splits.items() if isinstance(v, TileDataset)})
    given = [settings.test_dataset, settings.val_dataset, settings.train_dataset]
    shown = next(dataset for dataset in given if dataset is not None)
    return SegmentationData(
        train=settings.train_dataset,
        val=settings.val_dataset,
        test=settings.test_dataset,
        predict=shown.whole_image() if isinstance(shown, TileDataset) else shown,
        batch_size=settings.batch_size,
        num_workers=settings.num_workers,
        seed=seed,
    )


def image_shape(dataset: AnyDataset | None) -> tuple[int, int] | None:
    """Height and width of the one image that a data set cuts, or null."""
    return dataset.image_shape if isinstance(dataset, TileDataset) else None


def build_early_stopper(given: bool | EarlyStopping | None) -> EarlyStopping | None:  # noqa: FBT001 - as the key has it
    """LIS2's early stopping for ``true``, a callback as it is."""
    if isinstance(given, EarlyStopping):
        return given
    return LossEarlyStopping() if given else None


def build_snapshots(settings: Settings, log: EpochLog) -> Snapshots:
    """The callback which writes the snapshots."""
    return Snapshots(
        settings.run_dir,
        log,
        monitor=settings.monitor,
        mode=settings.mode,
        save_interval=settings.save_interval,
        save_last=settings.save_last,
    )


def snapshot_writer(
    config: Mapping[str, Any], log: EpochLog, snapshots: Snapshots
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What turns a checkpoint of this run into a snapshot."""

    def write(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
        return to_snapshot(
            checkpoint,
            model_config=to_lis2("model", config["model"]),
            global_config=config,
            best_loss=snapshots.best_loss,
            next_epoch=log.epochs_run,
        )

    return write


def build_lightning(
    settings: Settings, callbacks: Sequence[pl.Callback], io: SnapshotIO
) -> pl.Trainer:
    """The Lightning trainer.

    Raises:
        ConfigError: Lightning refuses an argument.
    """
    arguments = dict(settings.lightning)
    theirs = _as_list(arguments.pop("callbacks", None))
    shown = arguments.get("enable_progress_bar", True)
    ours = shown and not any(isinstance(callback, ProgressBar) for callback in theirs)
    bars = [ProgressBars()] if ours else []
    plugins = [*_as_list(arguments.pop("plugins", None)), io]
    trackers = [t for t in settings.trackers if not isinstance(t, CsvLogger)]
    csv = next((t for t in settings.trackers if isinstance(t, CsvLogger)), CsvLogger())
    loggers = [
        t.start(settings.run_dir, settings.run_name) if isinstance(t, Tracker) else t
        for t in [csv, *trackers]
    ]
    fixed = {
        "max_epochs": settings.epochs,
        "default_root_dir": settings.run_dir,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    }
    try:
        return pl.Trainer(
            logger=loggers,
            callbacks=[*callbacks, *theirs, *bars],
            plugins=plugins,
            **{**fixed, **arguments},
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        told = " ".join(str(error).split())
        raise ConfigError(f"lightning refuses its arguments: {told}") from error


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


# Which object each documented key becomes; ``{}`` stands for its value.
_PLAN: Final[Mapping[str, str]] = {
    "output_dir": "lightning.pytorch.Trainer(default_root_dir={}/<run_name>)",
    "run_name": "the run's folder and its name in every tracker",
    "model": "SegmentationModule(model={})",
    "train_dataset": "SegmentationData(train={})",
    "val_dataset": "SegmentationData(val={})",
    "test_dataset": "SegmentationData(test={})",
    "optimizer": "SegmentationModule.configure_optimizers() -> {}",
    "scheduler": "SegmentationModule.configure_optimizers() -> {}",
    "scheduler_interval": "lr_scheduler interval={}",
    "loss": "MaskedLoss({})",
    "early_stopper": "callbacks.LossEarlyStopping where true, or the callback given: {}",
    "batch_size": "torch.utils.data.DataLoader(batch_size={})",
    "num_workers": "torch.utils.data.DataLoader(num_workers={})",
    "epochs": "lightning.pytorch.Trainer(max_epochs={})",
    "save_interval": "callbacks.Snapshots(save_interval={})",
    "save_last": "callbacks.Snapshots(save_last={})",
    "save_every_n_steps": "last.pt inside an epoch: {}",
    "save_every_minutes": "last.pt inside an epoch: {}",
    "monitor": "callbacks.Snapshots(monitor={})",
    "mode": "callbacks.Snapshots(mode={})",
    "resume": "lightning.pytorch.Trainer.fit(ckpt_path=...): {}",
    "compile": "torch.compile(model): {}",
    "trackers": "lightning.pytorch.Trainer(logger=...): CSV, and {}",
    "metrics": "SegmentationModule(metrics={})",
    "seed": "lightning.pytorch.seed_everything({}), shuffling, augmentation",
}


def plan(settings: Settings, config: Mapping[str, Any]) -> str:
    """Which Lightning object, with which arguments, each key became; a line for each."""
    used = {**config, "metrics": describe(_metrics(settings))}
    told = {
        field.name: _PLAN[field.name].format(_short(used.get(field.name)))
        for field in fields(settings)
        if field.name != "lightning"
    }
    told |= {
        f"lightning.{key}": f"lightning.pytorch.Trainer({key}={_short(describe(value))})"
        for key, value in settings.lightning.items()
    }
    width = max(map(len, told)) + 2
    return "\n".join(f"{key:<{width}}{text}" for key, text in told.items())


def _short(value: Any) -> str:
    if isinstance(value, Mapping) and "class_path" in value:
        arguments = value.get("init_args") or {}
        inside = ", ".join(f"{key}={_short(item)}" for key, item in arguments.items())
        return f"{value['class_path']}({inside})"
    if isinstance(value, Mapping) and "object" in value:
        return f"<{value['object']}>"
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    return "none" if value is None else str(value)
