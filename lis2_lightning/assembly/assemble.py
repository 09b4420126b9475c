"""Documented keys → Lightning objects: the only place where the rooms meet."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, ProgressBar
from lightning.pytorch.plugins import LayerSync
from torch import nn

from lis2_lightning.assembly.settings import FIXED, Settings
from lis2_lightning.base.private_names import leave_signals_alone, never_broadcast_sigterm
from lis2_lightning.base.signals import Signals
from lis2_lightning.callbacks.averaging import MovingAverage
from lis2_lightning.callbacks.checkpoints import BestSnapshot, EpochEnd, EverySnapshot, LastSnapshot
from lis2_lightning.callbacks.epoch_log import EpochLog
from lis2_lightning.callbacks.finite import StopOnNonFiniteLoss
from lis2_lightning.callbacks.idle_hooks import skip_idle_hooks
from lis2_lightning.callbacks.inside_epoch import SnapshotInsideEpoch
from lis2_lightning.callbacks.progress_bars import ProgressBars
from lis2_lightning.callbacks.run_events import RunEvents
from lis2_lightning.callbacks.run_folder import RunFolder, SharedFolder
from lis2_lightning.callbacks.seeding import SeedEachBatch
from lis2_lightning.callbacks.test_results import TestResults
from lis2_lightning.callbacks.tile_pictures import TilePictures
from lis2_lightning.callbacks.tracking import Tracking
from lis2_lightning.config import as_list, to_lis2
from lis2_lightning.data import (
    SegmentationData,
    check_no_shared_pixels,
    is_one_image,
    warn_of_labels,
)
from lis2_lightning.errors import ConfigError, one_line
from lis2_lightning.inference import Predictions
from lis2_lightning.models import UNet
from lis2_lightning.parallel.batchnorm import SharedBatchNorm
from lis2_lightning.parallel.children import watch_parent
from lis2_lightning.parallel.devices import (
    check_processes,
    check_strategy,
    has_bfloat16,
    left_to_launcher,
    needs_a_script,
)
from lis2_lightning.parallel.exchange import Exchange
from lis2_lightning.snapshots import COMPILED, position, to_snapshot
from lis2_lightning.snapshots.io import SnapshotIO
from lis2_lightning.trackers.journal_logger import start_all
from lis2_lightning.training.map_scores import MapScores
from lis2_lightning.training.module import SegmentationModule

_log = logging.getLogger("lis2_lightning")


@dataclass(frozen=True)
class Assembly:
    """What the settings became."""

    module: SegmentationModule
    data: SegmentationData
    lightning: pl.Trainer
    log: EpochLog
    best: BestSnapshot
    predictions: Predictions
    test_results: TestResults
    early_stopper: EarlyStopping | None
    signals: Signals
    tracking: Tracking


def assemble(settings: Settings, config: Mapping[str, Any], *, seed: int) -> Assembly:
    """Build everything a run needs; ``config`` holds the settings as plain values.

    Raises:
        ConfigError: A value does not fit.
        DataError: The data sets share pixels.
    """
    config = {**config, "seed": seed}  # so that a run without a configured seed can be resumed
    data = _data(settings, seed)
    log, finite, signals, exchange = EpochLog(), StopOnNonFiniteLoss(), Signals(), Exchange()
    snapshots = _snapshots(settings, finite, signals, exchange)
    best = snapshots[0]
    predictions = Predictions()
    test_results = TestResults(settings.run_dir / "test_results.csv")
    early_stopper = settings.chosen_stopper()
    tracking = Tracking(
        settings.run_dir,
        config,
        lambda: {"best_loss": best.best_loss, "epochs_run": log.epochs_run},
    )
    callbacks: list[pl.Callback] = [
        SharedFolder(settings.run_dir),
        SeedEachBatch(),
        finite,
        RunFolder(settings.run_dir, config),
        RunEvents(settings.run_dir, {"train": data.train, "val": data.val, "test": data.test}),
        tracking,
        log,
        TilePictures(settings.run_dir),
        test_results,
        predictions,
        *snapshots,
    ]
    callbacks += [early_stopper] if early_stopper is not None else []
    callbacks += [MovingAverage(settings.ema)] if settings.ema is not None else []
    network = model_config(settings.model, config["model"])
    io = SnapshotIO(partial(_snapshot, config, network, best), config)
    return Assembly(
        module=_module(settings, exchange, data),
        data=data,
        lightning=_lightning(settings, config, callbacks, io),
        log=log,
        best=best,
        predictions=predictions,
        test_results=test_results,
        early_stopper=early_stopper,
        signals=signals,
        tracking=tracking,
    )


def _module(settings: Settings, exchange: Exchange, data: SegmentationData) -> SegmentationModule:
    module = SegmentationModule(
        settings.model,
        loss=settings.loss,
        optimizer=settings.optimizer,
        scheduler=settings.scheduler,
        scheduler_interval=settings.scheduler_interval,
        metrics=settings.chosen_metrics(),
        compile_model=settings.compile,
        tta=settings.tta,
        channels_last=settings.channels_last,
        exchange=exchange,
    )
    module.test_scores.map = MapScores.of(data.test)
    if settings.validate_on == "map":
        module.val_scores.map = MapScores.of(data.val)
        if module.val_scores.map is None:
            raise ConfigError(
                "validate_on: map needs a val_dataset of tiles, got "
                f"{'none' if data.val is None else type(data.val).__name__}: use a TileDataset, or "
                "validate_on: tiles"
            )
    return module


def _data(settings: Settings, seed: int) -> SegmentationData:
    train, val, test = settings.train_dataset, settings.val_dataset, settings.test_dataset
    splits = {"train_dataset": train, "val_dataset": val, "test_dataset": test}
    check_no_shared_pixels(splits)
    warn_of_labels(splits)
    shown = next(dataset for dataset in (test, val, train) if dataset is not None)
    return SegmentationData(
        train=train,
        val=val,
        test=test,
        predict=shown.whole_image() if is_one_image(shown) else shown,
        batch_size=settings.batch_size,
        num_workers=settings.num_workers,
        seed=seed,
        sampler=settings.sampler,
    )


def _snapshots(
    settings: Settings, finite: StopOnNonFiniteLoss, signals: Signals, exchange: Exchange
) -> tuple[BestSnapshot, EverySnapshot, LastSnapshot, SnapshotInsideEpoch]:
    """The callbacks that write snapshots, in the order in which Lightning must call them."""
    folder, minutes = settings.run_dir, settings.save_every_minutes
    end = EpochEnd(finite, exchange)
    # they register with EpochEnd in the order in which they are made
    best = BestSnapshot(folder, end, monitor=settings.monitor, mode=settings.best_mode)
    every = EverySnapshot(folder, end, save_interval=settings.save_interval)
    last = LastSnapshot(folder, end, every_epoch=settings.save_last)
    inside = SnapshotInsideEpoch(
        last,
        end,
        signals,
        every_n_steps=settings.save_every_n_steps,
        every_s=None if minutes is None else 60 * minutes,
    )
    return best, every, last, inside


def model_config(model: nn.Module, described: Any) -> dict[str, Any]:
    """The network as LIS2 finds it in a snapshot, whether it was an object or in any spelling."""
    spelled: dict[str, Any] = to_lis2("model", described)
    # torch.compile wraps a network, and weights in snapshots are without its prefix
    network = dict(model.named_children()).get(COMPILED.rstrip("."), model)
    if type(network) is not UNet:
        return spelled
    return {**{k: v for k, v in spelled.items() if k == "encoder"}, **network.lis2_config}


def _snapshot(
    config: Mapping[str, Any],
    network: Mapping[str, Any],
    best: BestSnapshot,
    checkpoint: Mapping[str, Any],
) -> dict[str, Any]:
    next_epoch, next_batch = position(checkpoint)
    return to_snapshot(
        checkpoint,
        model_config=network,
        global_config=config,
        best_loss=best.best_loss,
        next_epoch=next_epoch,
        next_batch=next_batch,
    )


def _lightning(
    settings: Settings,
    config: Mapping[str, Any],
    callbacks: Sequence[pl.Callback],
    io: SnapshotIO,
) -> pl.Trainer:
    """The Lightning trainer; the user's callbacks come after ours.

    Raises:
        ConfigError: Lightning refuses an argument, or the processes are not those it expects.
    """
    watch_parent()  # the command line does it earlier; a user's script comes here first
    arguments = {**settings.lightning, **left_to_launcher(settings.lightning)}
    arguments["strategy"] = arguments.get("strategy") or "auto"
    check_strategy(arguments["strategy"])
    theirs = as_list(arguments.pop("callbacks", None))
    shown = arguments.get("enable_progress_bar", True)
    ours = shown and not any(isinstance(callback, ProgressBar) for callback in theirs)
    bars = [ProgressBars()] if ours else []
    plugins = [*as_list(arguments.pop("plugins", None)), io]
    if not any(isinstance(plugin, LayerSync) for plugin in plugins):
        plugins.append(SharedBatchNorm("always" if arguments.get("sync_batchnorm") else "possible"))
    described = config.get("trackers") or []
    loggers = start_all(settings.trackers, described, settings.run_dir, settings.run_name)
    try:
        trainer = pl.Trainer(
            logger=loggers,
            callbacks=[*callbacks, *theirs, *bars],
            plugins=plugins,
            max_epochs=settings.epochs,
            default_root_dir=settings.run_dir,
            **{**FIXED, **arguments},
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        if "not compatible with an interactive" in str(error):
            raise ConfigError(needs_a_script(settings.run_dir)) from error
        raise ConfigError(f"lightning refuses its arguments: {one_line(error)}") from error
    _warn_of_precision(trainer, str(arguments.get("precision") or trainer.precision))
    check_strategy(trainer.strategy)
    check_processes(settings.lightning, trainer, settings.run_dir)
    leave_signals_alone(trainer)
    never_broadcast_sigterm(trainer)
    skip_idle_hooks(trainer.callbacks)  # type: ignore[attr-defined]  # set by a connector
    return trainer


def _warn_of_precision(trainer: pl.Trainer, precision: str) -> None:
    """Say where a precision does not exist, or makes the training slower."""
    if not str(trainer.precision).startswith(precision):  # 16 is short for 16-mixed
        where = type(trainer.accelerator).__name__.removesuffix("Accelerator")
        _log.warning(
            "lightning.precision %s does not exist on the %s: %s is used",
            *(precision, where, trainer.precision),
        )
    if precision.startswith("bf16") and not has_bfloat16(trainer.strategy.root_device):
        _log.warning(
            "lightning.precision %s: this processor computes bfloat16 in software, which is many "
            "times slower than float32; leave it out (lis2 speed tries what is faster)",
            precision,
        )
