"""Documented keys → Lightning objects: the only place where the rooms meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping
from torchmetrics import Metric

from lis2_lightning.assembly.lightning_trainer import build_lightning
from lis2_lightning.assembly.settings import Settings
from lis2_lightning.base.signals import Signals
from lis2_lightning.callbacks import LossEarlyStopping
from lis2_lightning.callbacks.checkpoints import BestSnapshot, EpochEnd, EverySnapshot, LastSnapshot
from lis2_lightning.callbacks.epoch_log import EpochLog
from lis2_lightning.callbacks.finite import StopOnNonFiniteLoss
from lis2_lightning.callbacks.inside_epoch import SnapshotInsideEpoch
from lis2_lightning.callbacks.run_folder import RunFolder, SharedFolder
from lis2_lightning.callbacks.seeding import SeedEachBatch
from lis2_lightning.callbacks.test_results import TestResults
from lis2_lightning.callbacks.tile_pictures import TilePictures
from lis2_lightning.callbacks.tracking import Tracking
from lis2_lightning.config import to_lis2
from lis2_lightning.data import AnyDataset, SegmentationData, TileDataset, check_no_shared_pixels
from lis2_lightning.inference import Segmenter
from lis2_lightning.metrics import default_metrics
from lis2_lightning.parallel.exchange import Exchange
from lis2_lightning.snapshots import SnapshotIO, position, to_snapshot
from lis2_lightning.training.module import SegmentationModule


@dataclass(frozen=True)
class Assembly:
    """What came of the settings."""

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
    snapshots = build_snapshots(settings, finite, signals, exchange)
    best = snapshots[0]
    segmenter = Segmenter(image_shape(data.predict))
    test_results = TestResults(settings.run_dir / "test_results.csv")
    early_stopper = build_early_stopper(settings.early_stopper)
    tracking = build_tracking(settings, config, log, best)
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
    io = SnapshotIO(snapshot_writer(config, best), config)
    trainer = build_lightning(settings, config, callbacks, io)
    return Assembly(
        module=build_module(settings, exchange),
        data=data,
        lightning=trainer,
        log=log,
        best=best,
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
    finite: StopOnNonFiniteLoss,
    signals: Signals,
    exchange: Exchange,
) -> tuple[BestSnapshot, EverySnapshot, LastSnapshot, SnapshotInsideEpoch]:
    """The callbacks that write snapshots, in the order in which Lightning is to call them."""
    folder, minutes = settings.run_dir, settings.save_every_minutes
    end = EpochEnd(finite, exchange)
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


def snapshot_writer(
    config: Mapping[str, Any], best: BestSnapshot
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What turns a checkpoint of this run into a snapshot."""

    def write(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
        next_epoch, next_batch = position(checkpoint)
        return to_snapshot(
            checkpoint,
            model_config=to_lis2("model", config["model"]),
            global_config=config,
            best_loss=best.best_loss,
            next_epoch=next_epoch,
            next_batch=next_batch,
        )

    return write


def build_tracking(
    settings: Settings, config: Mapping[str, Any], log: EpochLog, best: BestSnapshot
) -> Tracking:
    """The callback which tells trackers of the run."""

    def summary() -> dict[str, float]:
        return {"best_loss": best.best_loss, "epochs_run": log.epochs_run}

    return Tracking(settings.run_dir, config, summary)
