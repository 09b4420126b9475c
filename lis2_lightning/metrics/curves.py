"""Average precision, ROC AUC, best Dice and calibration of a histogram of scores.

A histogram is ``(2, N)`` ``int64``: the negative (row 0) and positive (row 1) pixels of each score
code, in ascending order of scores. Ties and degenerate cases are treated as in scikit-learn,
without its warnings.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def average_precision(histogram: NDArray[np.int64]) -> float:
    """The step-wise area under precision over recall, as in ``average_precision_score``.

    In [0, 1]; 0 without positive pixels (as in scikit-learn), NaN without pixels.

    >>> average_precision(np.array([[1, 1, 0], [0, 1, 1]]))  # 1/2 at 1/1, then 1/2 at 2/3
    0.8333333333333333
    """
    positives = histogram[1, ::-1]
    true, selected = positives.cumsum(), histogram.sum(axis=0)[::-1].cumsum()
    if selected[-1] == 0:
        return float("nan")
    if true[-1] == 0:
        return 0.0
    hit = positives.nonzero()[0]  # only where recall steps; never an empty selection
    precision = true[hit] / selected[hit]
    return float((positives[hit] * precision).sum() / true[-1])


def roc_auc(histogram: NDArray[np.int64]) -> float:
    """The probability that a positive pixel scores higher than a negative one, ties one half.

    In [0, 1]; NaN without positive or without negative pixels (as in scikit-learn).

    >>> roc_auc(np.array([[1, 1, 0], [0, 1, 1]]))
    0.875
    """
    negatives, positives = histogram
    num_pairs = float(negatives.sum()) * float(positives.sum())
    if num_pairs == 0:
        return float("nan")
    # twice the negatives below, ties once: integers as long as possible
    won = 2 * negatives.cumsum() - negatives
    return float((positives * won.astype(np.float64)).sum() / (2 * num_pairs))


def best_dice(histogram: NDArray[np.int64]) -> tuple[float, int]:
    """The best Dice over all thresholds, in [0, 1], and the lowest code that it calls positive.

    Of several equally good codes the highest is returned; without positive pixels NaN and the code
    N, which selects nothing.

    >>> best_dice(np.array([[3, 1, 0], [0, 1, 1]]))
    (0.8, 1)
    """
    true = histogram[1, ::-1].cumsum()
    selected = histogram.sum(axis=0)[::-1].cumsum()
    if true[-1] == 0:
        return float("nan"), histogram.shape[1]
    dice = 2 * true / (selected + true[-1])
    best = int(dice.argmax())  # the first, and so the highest, of equals
    return float(dice[best]), histogram.shape[1] - 1 - best


def calibration(
    histogram: NDArray[np.int64], scores: NDArray[np.float64], *, num_bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Mean score and share of positive pixels in bins of equal width over [0, 1].

    Args:
        histogram: ``(2, N)``.
        scores: The score of each code, ``(N,)``, ascending.
        num_bins: Number of bins; a score on an edge belongs to the lower bin, as in
            ``sklearn.calibration.calibration_curve``.

    Returns:
        Mean score, share of positive pixels (both NaN in an empty bin) and number of pixels, each
        ``(num_bins,)``.

    >>> calibration(np.array([[3, 0], [1, 2]]), np.array([0.3, 0.9]), num_bins=2)
    (array([0.3, 0.9]), array([0.25, 1.  ]), array([4, 2]))
    """
    bins = np.searchsorted(np.linspace(0, 1, num_bins + 1)[1:-1], scores)
    totals = histogram.sum(axis=0)
    # exact integer sums; bincount's weights would be rounded
    num_pixels = np.zeros(num_bins, dtype=np.int64)
    num_positive = np.zeros(num_bins, dtype=np.int64)
    np.add.at(num_pixels, bins, totals)
    np.add.at(num_positive, bins, histogram[1])
    score_sums = np.bincount(bins, weights=totals * scores, minlength=num_bins)
    num = np.where(num_pixels == 0, np.nan, num_pixels)
    return score_sums / num, num_positive / num, num_pixels
