"""Curves of a score histogram, ``(2, NUM_CODES)``: negative pixels, positive pixels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.metrics.histogram import code_edges, occurring

Histogram = NDArray[np.int64]
Floats = NDArray[np.float64]


class ScoreCurves(NamedTuple):
    """What each threshold gives, from the highest one down; only those that select more pixels.

    Each is ``(N,)``; ``precision`` and ``recall`` are those of the positive class, and
    ``false_rate`` is the share of the negative pixels that are selected.
    """

    threshold: Floats
    precision: Floats
    recall: Floats
    false_rate: Floats


def score_curves(histogram: Histogram) -> ScoreCurves:
    """The curves of a histogram; NaN where a class has no pixel.

    >>> from lis2_lightning.metrics import RocAuc
    >>> import torch
    >>> metric = RocAuc()
    >>> metric.update(torch.tensor([0.125, 0.25, 0.375]), torch.tensor([0.0, 1.0, 1.0]))
    >>> curves = score_curves(metric.sums.numpy())
    >>> curves.threshold.tolist(), curves.recall.tolist()
    ([0.375, 0.25, 0.125], [0.5, 1.0, 1.0])
    """
    codes, counts = occurring(histogram)
    negatives, positives = counts[:, ::-1].cumsum(axis=1, dtype=np.float64)
    num_negative, num_positive = counts.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return ScoreCurves(
            threshold=code_edges()[codes[::-1]].astype(np.float64),
            precision=positives / (positives + negatives),
            recall=positives / num_positive,
            false_rate=negatives / num_negative,
        )
