"""Metrics over the labelled pixels of a whole data set, in constant memory."""

from lis2_lightning.metrics.collection import PixelMetrics, default_metrics
from lis2_lightning.metrics.counts import CountMetric, Dice, IoU, Precision, Recall
from lis2_lightning.metrics.histogram import (
    AveragePrecision,
    BestDice,
    BestThreshold,
    CalibrationError,
    RocAuc,
    ScoreMetric,
    calibration_curve,
    code_edges,
    score_codes,
)
from lis2_lightning.metrics.pixel_metric import PixelMetric
from lis2_lightning.metrics.ssim import MaskedSSIM

__all__ = [
    "AveragePrecision",
    "BestDice",
    "BestThreshold",
    "CalibrationError",
    "CountMetric",
    "Dice",
    "IoU",
    "MaskedSSIM",
    "PixelMetric",
    "PixelMetrics",
    "Precision",
    "Recall",
    "RocAuc",
    "ScoreMetric",
    "calibration_curve",
    "code_edges",
    "default_metrics",
    "score_codes",
]
