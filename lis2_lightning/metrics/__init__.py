"""Metrics over the labelled pixels of a whole data set, in constant memory."""

from lis2_lightning.metrics.collection import PixelMetrics, default_metrics
from lis2_lightning.metrics.counts import Dice, IoU, Precision, Recall
from lis2_lightning.metrics.histogram import (
    AveragePrecision,
    BestDice,
    BestThreshold,
    CalibrationError,
    RocAuc,
    calibration_curve,
)
from lis2_lightning.metrics.ssim import MaskedSSIM

__all__ = [
    "AveragePrecision",
    "BestDice",
    "BestThreshold",
    "CalibrationError",
    "Dice",
    "IoU",
    "MaskedSSIM",
    "PixelMetrics",
    "Precision",
    "Recall",
    "RocAuc",
    "calibration_curve",
    "default_metrics",
]
