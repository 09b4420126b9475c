"""Dice, IoU, precision and recall at a threshold, from the confusion matrix."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable

import torch
from torch import Tensor

from lis2_lightning.base.labelled import labelled_pixels, on_cpu
from lis2_lightning.errors import ConfigError
from lis2_lightning.metrics.pixel_metric import PixelMetric


class CountMetric(PixelMetric):
    """A metric of the counts of true and false positives, false and true negatives.

    Args:
        threshold: A pixel is predicted positive where its probability is at least this, in [0, 1].
    """

    def __init__(self, *, threshold: float = 0.5) -> None:
        super().__init__((4,))
        if not 0 <= threshold <= 1:
            raise ConfigError(f"threshold must lie in [0, 1], got {threshold}")
        self.threshold = threshold

    @property
    def family(self) -> Hashable:
        """Metrics of one threshold share the counts."""
        return "counts", self.threshold

    def count(self, probs: Tensor, target: Tensor, labelled: Tensor | None = None) -> Tensor:
        """The four counts of one batch, see :meth:`PixelMetric.count`."""
        if labelled is not None and on_cpu(labelled):
            probs, target = labelled_pixels(probs, target, labelled)
            labelled = None
        predicted, positive = probs.float() >= self.threshold, target >= 0.5
        if labelled is None:
            num_pixels = torch.full((), positive.numel(), device=positive.device)
        else:
            predicted, positive = predicted & labelled, positive & labelled
            num_pixels = labelled.count_nonzero()
        true_positive = (predicted & positive).count_nonzero()
        num_predicted, num_positive = predicted.count_nonzero(), positive.count_nonzero()
        return torch.stack(
            [
                true_positive,
                num_predicted - true_positive,
                num_positive - true_positive,
                num_pixels - num_predicted - num_positive + true_positive,
            ]
        )

    def evaluate(self, sums: Tensor) -> Tensor:
        """The value of the four counts: a ``float64`` scalar on the CPU."""
        value = self.value(*map(int, sums[:3].tolist()))
        return torch.tensor(value, dtype=torch.float64)

    @abstractmethod
    def value(self, tp: int, fp: int, fn: int) -> float:
        """The value of the counts of true and false positives and false negatives."""


class Dice(CountMetric):
    """Dice of predicted and true map, ``2 tp / (2 tp + fp + fn)``, also known as F1.

    1 if both maps are empty, as in LIS², and without labelled pixels. (scikit-learn's ``f1_score``
    returns 0, unless ``zero_division=1``.)

    >>> metric = Dice(threshold=0.3)
    >>> metric.update(torch.tensor([0.1, 0.4, 0.3]), torch.tensor([0.0, 0.0, 1.0]))
    >>> f"{metric.compute():.4f}"
    '0.6667'
    """

    name = "dice"

    def value(self, tp: int, fp: int, fn: int) -> float:
        """In [0, 1]."""
        return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0


class IoU(CountMetric):
    """Intersection over union, ``tp / (tp + fp + fn)``; 1 if both maps are empty."""

    name = "iou"

    def value(self, tp: int, fp: int, fn: int) -> float:
        """In [0, 1]."""
        return tp / (tp + fp + fn) if tp + fp + fn else 1.0


class Precision(CountMetric):
    """The share of true among the predicted positive pixels, ``tp / (tp + fp)``.

    Without predicted positives: 1 if no pixel is positive either, as for Dice, else 0 (as in
    scikit-learn).
    """

    name = "precision"

    def value(self, tp: int, fp: int, fn: int) -> float:
        """In [0, 1]."""
        return tp / (tp + fp) if tp + fp else float(fn == 0)


class Recall(CountMetric):
    """The share of the positive pixels that are predicted, ``tp / (tp + fn)``.

    Without positives: 1 if none is predicted either, as for Dice, else 0 (as in scikit-learn).
    """

    name = "recall"

    def value(self, tp: int, fp: int, fn: int) -> float:
        """In [0, 1]."""
        return tp / (tp + fn) if tp + fn else float(fp == 0)
