"""Curves and counts of a score histogram, ``(2, NUM_CODES)``: negative pixels, positive pixels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.metrics.histogram import code_edges

Histogram = NDArray[np.int64]
Floats = NDArray[np.float64]


class Confusion(NamedTuple):
    """How many labelled pixels are predicted right and wrong at a threshold."""

    tp: int
    fp: int
    fn: int
    tn: int


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
    chosen = np.flatnonzero(histogram.any(axis=0))[::-1]
    negatives, positives = histogram[:, chosen].cumsum(axis=1, dtype=np.float64)
    num_negative, num_positive = histogram.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return ScoreCurves(
            threshold=code_edges()[chosen].astype(np.float64),
            precision=positives / (positives + negatives),
            recall=positives / num_positive,
            false_rate=negatives / num_negative,
        )


def confusion(histogram: Histogram, threshold: float) -> Confusion:
    """The counts of the map ``probs >= threshold``; a threshold is a lower edge of a score code.

    >>> histogram = np.zeros((2, len(code_edges())), np.int64)
    >>> histogram[:, 0], histogram[:, -1] = (5, 1), (2, 7)
    >>> confusion(histogram, 0.5)
    Confusion(tp=7, fp=2, fn=1, tn=5)
    """
    first = int(np.searchsorted(code_edges(), np.float32(threshold)))
    (tn, fn), (fp, tp) = histogram[:, :first].sum(axis=1), histogram[:, first:].sum(axis=1)
    return Confusion(int(tp), int(fp), int(fn), int(tn))
