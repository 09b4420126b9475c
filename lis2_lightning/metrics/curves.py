"""What follows from a histogram of scores: pure functions of two rows of integers.

A histogram is ``(2, N)`` ``int64``: row 0 counts the negative, row 1 the positive pixels of each
score code, codes ascending with the score. Pixels of one code are tied, and ties are treated as
scikit-learn treats them. Where scikit-learn warns, these functions return what it returns (said in
each docstring) without the warning.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def average_precision(histogram: NDArray[np.int64]) -> float:
    """The step-wise area under precision over recall, as ``average_precision_score`` defines it.

    Args:
        histogram: ``(2, N)``, see above.

    Returns:
        In [0, 1]; 0 without any positive pixel (as scikit-learn), NaN without any pixel.

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

    Args:
        histogram: ``(2, N)``, see above.

    Returns:
        In [0, 1]; NaN without any positive or without any negative pixel (as scikit-learn).

    >>> roc_auc(np.array([[1, 1, 0], [0, 1, 1]]))
    0.875
    """
    negatives, positives = histogram
    num_pairs = float(negatives.sum()) * float(positives.sum())
    if num_pairs == 0:
        return float("nan")
    # twice the negatives below, counting ties once: integers as long as possible
    won = 2 * negatives.cumsum() - negatives
    return float((positives * won.astype(np.float64)).sum() / (2 * num_pairs))


def best_dice(histogram: NDArray[np.int64]) -> tuple[float, int]:
    """The best Dice of any threshold, and the code from which on pixels are then positive.

    Args:
        histogram: ``(2, N)``, see above.

    Returns:
        Dice in [0, 1] and the code; of several equally good codes the highest. Without any positive
        pixel NaN and the code N, which selects nothing.

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
        histogram: ``(2, N)``, see above.
        scores: ``(N,)``, ascending: the score that stands for each code.
        num_bins: How many bins; a score on an edge belongs to the lower one, as in
            ``sklearn.calibration.calibration_curve``.

    Returns:
        Mean score, share of positive pixels (both NaN in an empty bin) and number of pixels, each
        ``(num_bins,)``.

    >>> calibration(np.array([[3, 0], [1, 2]]), np.array([0.3, 0.9]), num_bins=2)
    (array([0.3, 0.9]), array([0.25, 1.  ]), array([4, 2]))
    """
    bins = np.searchsorted(np.linspace(0, 1, num_bins + 1)[1:-1], scores)
    totals = histogram.sum(axis=0)
    # codes ascend, so a bin is one run of them; an integer sum would be rounded by bincount weights
    num_pixels = np.zeros(num_bins, dtype=np.int64)
    num_positive = np.zeros(num_bins, dtype=np.int64)
    np.add.at(num_pixels, bins, totals)
    np.add.at(num_positive, bins, histogram[1])
    score_sums = np.bincount(bins, weights=totals * scores, minlength=num_bins)
    num = np.where(num_pixels == 0, np.nan, num_pixels)
    return score_sums / num, num_positive / num, num_pixels
