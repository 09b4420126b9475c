"""Callbacks: what LIS2 specifies and Lightning does otherwise or not at all."""

from lis2_lightning.callbacks.checkpoints import (
    BestSnapshot,
    EpochEnd,
    EverySnapshot,
    LastSnapshot,
)
from lis2_lightning.callbacks.early_stopping import LossEarlyStopping
from lis2_lightning.callbacks.epoch_log import EpochLog
from lis2_lightning.callbacks.finite import StopOnNonFiniteLoss
from lis2_lightning.callbacks.inside_epoch import SnapshotInsideEpoch
from lis2_lightning.callbacks.progress_bars import ProgressBars
from lis2_lightning.callbacks.run_folder import RunFolder, is_trial, make_folder
from lis2_lightning.callbacks.seeding import SeedEachBatch
from lis2_lightning.callbacks.shared_folder import SharedFolder
from lis2_lightning.callbacks.test_results import TestResults
from lis2_lightning.callbacks.tile_pictures import TilePictures
from lis2_lightning.callbacks.tracking import Tracking

__all__ = [
    "BestSnapshot",
    "EpochEnd",
    "EpochLog",
    "EverySnapshot",
    "LastSnapshot",
    "LossEarlyStopping",
    "ProgressBars",
    "RunFolder",
    "SeedEachBatch",
    "SharedFolder",
    "SnapshotInsideEpoch",
    "StopOnNonFiniteLoss",
    "TestResults",
    "TilePictures",
    "Tracking",
    "is_trial",
    "make_folder",
]
