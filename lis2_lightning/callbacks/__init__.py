"""Lightning callbacks, one purpose each: what LIS2 specifies and Lightning does not do."""

from lis2_lightning.callbacks.early_stopping import LossEarlyStopping
from lis2_lightning.callbacks.epoch_log import EpochLog
from lis2_lightning.callbacks.finite import StopOnNonFiniteLoss
from lis2_lightning.callbacks.seeding import SeedEachBatch

# those that a configuration may name
__all__ = ["EpochLog", "LossEarlyStopping", "SeedEachBatch", "StopOnNonFiniteLoss"]
