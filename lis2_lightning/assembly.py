"""Documented keys → Lightning objects: the only place where the rooms meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, ProgressBar
from lightning.pytorch.plugins import LayerSync
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from torchmetrics import Metric

from lis2_lightning.callbacks import (
    EpochLog,
    LossEarlyStopping,
    ProgressBars,
    RunFolder,
    SeedEachBatch,
    SharedFolder,
    Snapshots,
    StopOnNonFiniteLoss,
    StopOnSignal,
    TestResults,
    TilePictures,
    Tracking,
)
from lis2_lightning.config import to_lis2
from lis2_lightning.data import AnyDataset, SegmentationData, TileDataset, check_no_shared_pixels
from lis2_lightning.errors import ConfigError
from lis2_lightning.handover import Handovers
from lis2_lightning.inference import Segmenter
from lis2_lightning.metrics import default_metrics
from lis2_lightning.module import SegmentationModule
from lis2_lightning.parallel.batchnorm import SharedBatchNorm
from lis2_lightning.parallel.devices import check_launch, left_to_launcher
from lis2_lightning.parallel.exchange import Exchange
from lis2_lightning.parallel.launcher import end_together
from lis2_lightning.parallel.notebook import launch_by_forks, refusal, strategy_here
from lis2_lightning.parallel.parent import watch_parent
from lis2_lightning.parallel.sharded import ShardedStrategy
from lis2_lightning.parallel.strategies import strategy_of
from lis2_lightning.settings import Settings
from lis2_lightning.signals import Signals
from lis2_lightning.snapshots import SnapshotIO, position, to_snapshot
from lis2_lightning.trackers.services import start_all


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
    signals: Signals
    tracking: Tracking


def assemble(settings: Settings, config: Mapping[str, Any], *, seed: int) -> Assembly:
    """Build everything a run needs.

    Args:
        settings: The documented keys.
        config: The same as plain values, for the snapshots and ``config.yaml``.
        seed: The run's seed, also where none is configured.

    Raises:
        ConfigError: A value does not fit.
        DataError: The data sets share pixels.
    """
    config = {**config, "seed": seed}  # so that a run without a seed can be told and resumed, too
    data = build_data(settings, seed)
    log, finite, signals, exchange = EpochLog(), StopOnNonFiniteLoss(), Signals(), Exchange()
    snapshots = build_snapshots(settings, log, finite, signals, exchange)
    segmenter = Segmenter(image_shape(data.predict))
    test_results = TestResults(settings.run_dir / "test_results.csv")
    early_stopper = build_early_stopper(settings.early_stopper)
    tracking = build_tracking(settings, config, log, snapshots)
    callbacks: list[pl.Callback] = [
        SharedFolder(settings.run_dir),
        SeedEachBatch(),
        finite,
        StopOnSignal(exchange),
        RunFolder(settings.run_dir, config),
        tracking,
        log,
        TilePictures(settings.run_dir),
        test_results,
        segmenter,
        snapshots,
    ]
    callbacks += [early_stopper] if early_stopper is not None else []
    io = SnapshotIO(snapshot_writer(config, snapshots), config)
    trainer = build_lightning(settings, config, callbacks, io)
    # in a notebook the loops run in forked processes, and what they leave there would be lost
    launch_by_forks(trainer, signals, Handovers(trainer, segmenter, tracking))
    return Assembly(
        module=build_module(settings, exchange),
        data=data,
        lightning=trainer,
        log=log,
        snapshots=snapshots,
        segmenter=segmenter,
        test_results=test_results,
        early_stopper=early_stopper,
        signals=signals,
        tracking=tracking,
    )


def build_module(settings: Settings, exchange: Exchange) -> SegmentationModule:
    """The network with its loss, metrics, optimizer and scheduler."""
    return SegmentationModule(
        settings.model,
        loss=settings.loss,
        optimizer=settings.optimizer,
        scheduler=settings.scheduler,
        scheduler_interval=settings.scheduler_interval,
        metrics=chosen_metrics(settings),
        compile_model=settings.compile,
        exchange=exchange,
    )


def chosen_metrics(settings: Settings) -> list[Metric]:
    """The metrics that were asked for, or the usual ones."""
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


def build_snapshots(
    settings: Settings,
    log: EpochLog,
    finite: StopOnNonFiniteLoss,
    signals: Signals,
    exchange: Exchange,
) -> Snapshots:
    """The callback which writes the snapshots."""
    minutes = settings.save_every_minutes
    return Snapshots(
        settings.run_dir,
        log,
        finite,
        signals,
        exchange,
        monitor=settings.monitor,
        mode=settings.mode,
        save_interval=settings.save_interval,
        save_last=settings.save_last,
        every_n_steps=settings.save_every_n_steps,
        every_s=None if minutes is None else 60 * minutes,
    )


def snapshot_writer(
    config: Mapping[str, Any], snapshots: Snapshots
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What turns a checkpoint of this run into a snapshot."""

    def write(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
        next_epoch, next_batch = position(checkpoint)
        return to_snapshot(
            checkpoint,
            model_config=to_lis2("model", config["model"]),
            global_config=config,
            best_loss=snapshots.best_loss,
            next_epoch=next_epoch,
            next_batch=next_batch,
        )

    return write


def build_tracking(
    settings: Settings, config: Mapping[str, Any], log: EpochLog, snapshots: Snapshots
) -> Tracking:
    """The callback which tells trackers of the run."""

    def summary() -> dict[str, float]:
        return {"best_loss": snapshots.best_loss, "epochs_run": log.epochs_run}

    return Tracking(settings.run_dir, config, summary)


def build_lightning(
    settings: Settings,
    config: Mapping[str, Any],
    callbacks: Sequence[pl.Callback],
    io: SnapshotIO,
) -> pl.Trainer:
    """The Lightning trainer.

    Raises:
        ConfigError: Lightning refuses an argument, or ``torchrun`` or SLURM have started other
            processes than it counts on.
    """
    watch_parent()  # the command line does it earlier; a user's script comes here first
    arguments = {**settings.lightning, **left_to_launcher(settings.lightning)}
    arguments["strategy"] = strategy_of(strategy_here(arguments.get("strategy") or "auto"))
    theirs = _as_list(arguments.pop("callbacks", None))
    shown = arguments.get("enable_progress_bar", True)
    ours = shown and not any(isinstance(callback, ProgressBar) for callback in theirs)
    bars = [ProgressBars()] if ours else []
    plugins = [*_as_list(arguments.pop("plugins", None)), io]
    plugins += shared_batchnorm(plugins, wanted=bool(arguments.get("sync_batchnorm")))
    described = config.get("trackers") or []
    loggers = start_all(settings.trackers, described, settings.run_dir, settings.run_name)
    fixed = {
        "max_epochs": settings.epochs,
        "default_root_dir": settings.run_dir,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
        # gathered weights outlive a validation, and could not be trained after it
        "inference_mode": not isinstance(arguments["strategy"], ShardedStrategy),
    }
    try:
        trainer = pl.Trainer(
            logger=loggers,
            callbacks=[*callbacks, *theirs, *bars],
            plugins=plugins,
            **{**fixed, **arguments},
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        told = " ".join(str(error).split())
        refused = refusal(error, arguments["strategy"])
        raise ConfigError(refused or f"lightning refuses its arguments: {told}") from error
    check_launch(settings.lightning, devices=trainer.num_devices, num_nodes=trainer.num_nodes)
    trainer._signal_connector = _NoHandlers(trainer)  # noqa: SLF001 - see there
    # Lightning's epoch would wait for its own flag in each step, and hide that a process is gone
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]  # noqa: SLF001 - it has no switch
    end_together(trainer.strategy)
    return trainer


def shared_batchnorm(plugins: Sequence[Any], *, wanted: bool) -> list[SharedBatchNorm]:
    """What synchronises batch normalisation, unless the user has a plugin for it."""
    is_theirs = any(isinstance(plugin, LayerSync) for plugin in plugins)
    return [] if is_theirs else [SharedBatchNorm("always" if wanted else "possible")]


class _NoHandlers(_SignalConnector):
    """Leaves the signals to us.

    Lightning's handlers end a process with code 0 and without a snapshot, talk to other processes
    inside the handler, which hangs them, and have no switch.
    """

    def register_signal_handlers(self) -> None:
        self.received_sigterm = False


def _nothing() -> None:
    """Stand for a method that is not wanted."""


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
