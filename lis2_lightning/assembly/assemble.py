"""Documented keys → Lightning objects: the only place where the rooms meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping

from lis2_lightning.assembly.lightning_trainer import build_lightning
from lis2_lightning.assembly.settings import Settings
from lis2_lightning.base.signals import Signals
from lis2_lightning.callbacks import (
    BestSnapshot,
    EpochEnd,
    EpochLog,
    EverySnapshot,
    LastSnapshot,
    LossEarlyStopping,
    RunFolder,
    SeedEachBatch,
    SharedFolder,
    SnapshotInsideEpoch,
    StopOnNonFiniteLoss,
    TestResults,
    TilePictures,
    Tracking,
)
from lis2_lightning.config import to_lis2
from lis2_lightning.data import SegmentationData, TileDataset, check_no_shared_pixels
from lis2_lightning.inference import Segmenter
from lis2_lightning.parallel.exchange import Exchange
from lis2_lightning.snapshots import SnapshotIO, position, to_snapshot
from lis2_lightning.training.module import SegmentationModule


@dataclass(frozen=True)
class Assembly:
    """What the settings became."""

    module: SegmentationModule
    data: SegmentationData
    lightning: pl.Trainer
    log: EpochLog
    best: BestSnapshot
    segmenter: Segmenter
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
    segmenter = Segmenter(
        data.predict.image_shape if isinstance(data.predict, TileDataset) else None
    )
    test_results = TestResults(settings.run_dir / "test_results.csv")
    early_stopper = settings.early_stopper
    if isinstance(early_stopper, bool):
        early_stopper = LossEarlyStopping() if early_stopper else None
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
        tracking,
        log,
        TilePictures(settings.run_dir),
        test_results,
        segmenter,
        *snapshots,
    ]
    callbacks += [early_stopper] if early_stopper is not None else []
    io = SnapshotIO(partial(_snapshot, config, best), config)
    return Assembly(
        module=_module(settings, exchange),
        data=data,
        lightning=build_lightning(settings, config, callbacks, io),
        log=log,
        best=best,
        segmenter=segmenter,
        test_results=test_results,
        early_stopper=early_stopper,
        signals=signals,
        tracking=tracking,
    )


def _module(settings: Settings, exchange: Exchange) -> SegmentationModule:
    return SegmentationModule(
        settings.model,
        loss=settings.loss,
        optimizer=settings.optimizer,
        scheduler=settings.scheduler,
        scheduler_interval=settings.scheduler_interval,
        metrics=settings.chosen_metrics(),
        compile_model=settings.compile,
        exchange=exchange,
    )


def _data(settings: Settings, seed: int) -> SegmentationData:
    train, val, test = settings.train_dataset, settings.val_dataset, settings.test_dataset
    splits = {"train_dataset": train, "val_dataset": val, "test_dataset": test}
    check_no_shared_pixels({k: v for k, v in splits.items() if isinstance(v, TileDataset)})
    shown = next(dataset for dataset in (test, val, train) if dataset is not None)
    return SegmentationData(
        train=train,
        val=val,
        test=test,
        predict=shown.whole_image() if isinstance(shown, TileDataset) else shown,
        batch_size=settings.batch_size,
        num_workers=settings.num_workers,
        seed=seed,
    )


def _snapshots(
    settings: Settings, finite: StopOnNonFiniteLoss, signals: Signals, exchange: Exchange
) -> tuple[BestSnapshot, EverySnapshot, LastSnapshot, SnapshotInsideEpoch]:
    """The callbacks that write snapshots, in the order in which Lightning must call them."""
    folder, minutes = settings.run_dir, settings.save_every_minutes
    end = EpochEnd(finite, exchange)
    # they register with EpochEnd in the order in which they are made
    best = BestSnapshot(folder, end, monitor=settings.monitor, mode=settings.mode)
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


def _snapshot(
    config: Mapping[str, Any], best: BestSnapshot, checkpoint: Mapping[str, Any]
) -> dict[str, Any]:
    next_epoch, next_batch = position(checkpoint)
    return to_snapshot(
        checkpoint,
        model_config=to_lis2("model", config["model"]),
        global_config=config,
        best_loss=best.best_loss,
        next_epoch=next_epoch,
        next_batch=next_batch,
    )
