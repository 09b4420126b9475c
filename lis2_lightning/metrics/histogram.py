"""Average precision, ROC AUC, best threshold and calibration from one histogram of scores.

Every labelled pixel is counted by its class and score code, the exponent and the first 12 bits of
the mantissa of p below one half, of 1 - p above: 258,050 codes, 4.1 MB. The resolution is relative
at both ends of [0, 1], where the outputs of trained networks accumulate; with an absolute one of
5e-4, average precision would be 8e-3 to 2e-2 too low for confident networks. Results are exact for
``float16``, and above 2**-41 for ``bfloat16``. For ``float32``, scores with the same code are tied:
compared with the exact value on 20 million pixels, average precision is up to 6e-6 too low,
2e-5 where one pixel in a hundred or fewer is positive, and 2e-4 for an untrained network, whose
scores are all nearly one half.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lis2_lightning.base.labelled import labelled_pixels, on_cpu
from lis2_lightning.errors import ConfigError
from lis2_lightning.metrics.pixel_metric import PixelMetric

KEPT_BITS: Final = 12  # of the 23 of a float32's mantissa; each more halves errors, doubles memory
_SHIFT = 23 - KEPT_BITS
_LOWEST = 86 << KEPT_BITS  # the kept bits of 2**-41
_HALF = (126 << KEPT_BITS) - _LOWEST  # of one half, counted from there
_ONE = (103 << KEPT_BITS) - _LOWEST - 1  # one below those of 2**-24, the least 1 - p above 0
NUM_CODES = 2 * _HALF - _ONE + 1


def score_codes(probs: Tensor) -> Tensor:
    """Map probabilities in [0, 1] to ascending ``int32`` codes in [0, :data:`NUM_CODES`).

    ``float64`` is rounded to ``float32``. Values outside count as 0 or 1, NaN as a value up to 0.5:
    an index outside the histogram would kill the process on a GPU.

    >>> score_codes(torch.tensor([0.0, 1e-6, 0.5, 1 - 1e-6, 1.0])).tolist()
    [0, 86214, 163840, 241408, 258049]
    """
    probs = probs.float()
    # one of the two terms is constant on each side of one half, and both ascend with p
    below = (probs.view(torch.int32) >> _SHIFT).sub_(_LOWEST).clamp_(0, _HALF)
    above = ((1 - probs).view(torch.int32) >> _SHIFT).sub_(_LOWEST).clamp_(_ONE, _HALF)
    return below.sub_(above).add_(_HALF)


@lru_cache(maxsize=1)
def code_edges() -> NDArray[np.float32]:
    """The smallest ``float32`` of each code, ``(NUM_CODES,)``, ascending."""
    bits = (np.arange(_HALF + 1, dtype=np.int32) + _LOWEST) << _SHIFT
    below = bits.view(np.float32).copy()
    below[0] = 0  # everything below 2**-41 shares its code
    # above one half a code is an interval of 1 - p, whose open end is the smallest p
    open_end = 1 - below[_ONE + 1 :][::-1].astype(np.float64)
    above = open_end.astype(np.float32)
    above = np.where(above > open_end, above, np.nextafter(above, np.float32(2)))
    edges = np.concatenate([below, above])
    edges.flags.writeable = False  # one array for all callers
    return edges


def occurring(histogram: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The codes of a histogram that have pixels, ``(K,)``, and these, ``(2, K)``."""
    codes = np.flatnonzero(histogram.any(axis=0))
    return codes, histogram[:, codes]


class ScoreMetric(PixelMetric):
    """A metric of the score histogram, ``(2, NUM_CODES)``: negative pixels, positive pixels."""

    def __init__(self) -> None:
        super().__init__((2, NUM_CODES))

    @property
    def family(self) -> Hashable:
        """All metrics of the histogram share one state."""
        return "histogram"

    def count(self, probs: Tensor, target: Tensor, labelled: Tensor | None = None) -> Tensor:
        """The histogram of one batch, see :meth:`PixelMetric.count`."""
        if labelled is None or on_cpu(labelled):
            probs, target = labelled_pixels(probs, target, labelled)
            labelled = None
        codes = score_codes(probs).add_(target >= 0.5, alpha=NUM_CODES).reshape(-1)
        if on_cpu(codes):
            return torch.bincount(codes, minlength=2 * NUM_CODES).view(2, NUM_CODES)
        # bincount and boolean indexing wait for a GPU; adding zeros and ones does not
        sums = torch.zeros(2 * NUM_CODES, dtype=torch.int64, device=probs.device)
        ones = torch.ones_like(codes) if labelled is None else labelled.reshape(-1)
        return sums.index_add_(0, codes, ones.long()).view(2, NUM_CODES)

    def count_alone(self, probs: Tensor, target: Tensor, labelled: Tensor | None = None) -> Tensor:
        """The codes of one batch, ascending, and the pixels of both classes, ``(3, K)``.

        A histogram of a batch is mostly zeros, and larger than all its pixels.
        """
        probs, target = labelled_pixels(probs, target, labelled)
        keys = score_codes(probs).mul_(2).add_(target >= 0.5).reshape(-1)
        classes, numbers = np.unique(keys.cpu().numpy(), return_counts=True)
        is_new = np.diff(classes >> 1, prepend=-1) > 0
        codes = np.zeros((3, np.count_nonzero(is_new)), np.int64)
        codes[0] = classes[is_new] >> 1
        codes[1 + (classes & 1), is_new.cumsum() - 1] = numbers
        return torch.from_numpy(codes)

    def evaluate(self, sums: Tensor) -> Tensor:
        """The value of a histogram or a batch's codes: a ``float64`` scalar on the CPU."""
        values = sums.cpu().numpy()
        codes, counts = (values[0], values[1:]) if len(values) == 3 else occurring(values)
        return torch.tensor(self.value(counts, codes), dtype=torch.float64)

    @abstractmethod
    def value(self, counts: NDArray[np.int64], codes: NDArray[np.int64], /) -> float:
        """The value of pixels, ``(2, K)``, of ascending score codes, ``(K,)``.

        Degenerate cases are as in scikit-learn.
        """


class AveragePrecision(ScoreMetric):
    """Average precision over the labelled pixels: the step-wise area, ties as in scikit-learn.

    0 without positive pixels, as in scikit-learn; NaN without labelled pixels.

    >>> metric = AveragePrecision()
    >>> metric.update(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0.0, 0.0, 1.0, 1.0]))
    >>> f"{metric.compute():.4f}"
    '0.8333'
    """

    name = "average_precision"

    def value(self, counts: NDArray[np.int64], *_: object) -> float:
        """In [0, 1]."""
        if not counts.any():
            return float("nan")
        positives = counts[1, ::-1]
        true, selected = positives.cumsum(), counts.sum(axis=0)[::-1].cumsum()
        if true[-1] == 0:
            return 0.0
        hit = positives.nonzero()[0]  # only where recall steps; never an empty selection
        precision = true[hit] / selected[hit]
        return float((positives[hit] * precision).sum() / true[-1])


class RocAuc(ScoreMetric):
    """Area under the ROC curve over the labelled pixels; NaN unless both classes are present.

    The probability that a positive pixel scores higher than a negative one; ties count one half.

    >>> metric = RocAuc()
    >>> metric.update(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0.0, 0.0, 1.0, 1.0]))
    >>> metric.compute().item()
    0.75
    """

    name = "roc_auc"

    def value(self, counts: NDArray[np.int64], *_: object) -> float:
        """In [0, 1]."""
        negatives, positives = counts
        num_pairs = float(negatives.sum()) * float(positives.sum())
        if num_pairs == 0:
            return float("nan")
        # twice the negatives below, ties once: integers as long as possible
        won = 2 * negatives.cumsum() - negatives
        return float((positives * won.astype(np.float64)).sum() / (2 * num_pairs))


class BestDice(ScoreMetric):
    """The Dice at the best of all thresholds; NaN without positive pixels."""

    name = "best_dice"

    def value(self, counts: NDArray[np.int64], *_: object) -> float:
        """In [0, 1]."""
        return _best_dice(counts)[0]


class BestThreshold(ScoreMetric):
    """The threshold whose map ``probs >= threshold`` has the best Dice, :class:`BestDice`.

    Of several equally good thresholds the highest, a ``float32`` number, the lower edge of a score
    code; NaN without positive pixels.

    >>> metric = BestThreshold()
    >>> metric.update(torch.tensor([0.125, 0.25, 0.75]), torch.tensor([0.0, 1.0, 1.0]))
    >>> metric.compute().item()
    0.25
    """

    name = "best_threshold"
    higher_is_better = None  # neither: a setting

    def value(self, counts: NDArray[np.int64], codes: NDArray[np.int64], /) -> float:
        """In [0, 1]."""
        place = _best_dice(counts)[1]
        return float("nan") if place is None else float(code_edges()[codes[place]])


def _best_dice(counts: NDArray[np.int64]) -> tuple[float, int | None]:
    """The best Dice and the place of its code; NaN and null without positive pixels."""
    if not counts[1].any():
        return float("nan"), None
    true, selected = counts[1, ::-1].cumsum(), counts.sum(axis=0)[::-1].cumsum()
    dice = 2 * true / (selected + true[-1])
    best = int(dice.argmax())  # the first, and so the highest, of equals
    return float(dice[best]), len(dice) - 1 - best


def best_threshold(histogram: NDArray[np.int64]) -> float | None:
    """The value of :class:`BestThreshold`, or null without positive pixels."""
    codes, counts = occurring(histogram)
    return BestThreshold().value(counts, codes) if histogram[1].any() else None


class Confusion(NamedTuple):
    """How many labelled pixels are predicted right and wrong at a threshold."""

    tp: int
    fp: int
    fn: int
    tn: int


def confusion(histogram: NDArray[np.int64], threshold: float) -> Confusion:
    """The counts of the map ``probs >= threshold``; a threshold is a lower edge of a score code.

    >>> histogram = np.zeros((2, len(code_edges())), np.int64)
    >>> histogram[:, 0], histogram[:, -1] = (5, 1), (2, 7)
    >>> confusion(histogram, 0.5)
    Confusion(tp=7, fp=2, fn=1, tn=5)
    """
    first = int(np.searchsorted(code_edges(), np.float32(threshold)))
    (tn, fn), (fp, tp) = histogram[:, :first].sum(axis=1), histogram[:, first:].sum(axis=1)
    return Confusion(int(tp), int(fp), int(fn), int(tn))


def dice_at(histogram: NDArray[np.int64], threshold: float) -> float:
    """The Dice of the map ``probs >= threshold``, a value of :class:`BestThreshold`.

    1 for two empty maps; NaN without labelled pixels.
    """
    tp, fp, fn, tn = confusion(histogram, threshold)
    if tp + fp + fn == 0:
        return 1.0 if tn else float("nan")
    return 2 * tp / (2 * tp + fp + fn)


class CalibrationError(ScoreMetric):
    """Expected calibration error of the probability of the positive class, in [0, 1].

    The mean over the labelled pixels of ``abs(mean score - share of positive pixels)`` in bins of
    equal width (Naeini et al. 2015, "Obtaining Well Calibrated Probabilities Using Bayesian
    Binning"); NaN without labelled pixels.

    Args:
        num_bins: Number of bins over [0, 1], at least 1.
    """

    name = "calibration_error"
    higher_is_better = False

    def __init__(self, *, num_bins: int = 15) -> None:
        super().__init__()
        if num_bins < 1:
            raise ConfigError(f"CalibrationError needs at least 1 bin, got num_bins={num_bins}")
        self.num_bins = num_bins

    def value(self, counts: NDArray[np.int64], codes: NDArray[np.int64], /) -> float:
        """In [0, 1]."""
        num_pixels = int(counts.sum())
        if num_pixels == 0:
            return float("nan")
        mean, share, num = _calibration(counts, codes, self.num_bins)
        return float(np.nansum(np.abs(mean - share) * num) / num_pixels)


_Calibration = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]


def calibration_curve(histogram: NDArray[np.int64], *, num_bins: int = 10) -> _Calibration:
    """The calibration curve of a score histogram.

    Args:
        histogram: ``(2, NUM_CODES)``, the ``sums`` of a metric such as :class:`RocAuc`.
        num_bins: Number of bins of equal width over [0, 1]; a score on an edge belongs to the
            lower bin, as in scikit-learn.

    Returns:
        Mean score and share of positive pixels (both NaN in an empty bin), number of pixels; each
        ``(num_bins,)``.
    """
    codes, counts = occurring(histogram)
    return _calibration(counts, codes, num_bins)


def _calibration(
    counts: NDArray[np.int64], codes: NDArray[np.int64], num_bins: int
) -> _Calibration:
    edges = np.append(code_edges(), np.float32(1)).astype(np.float64)
    scores = (edges[codes] + edges[codes + 1]) / 2  # the middle of each code's interval
    scores[codes == 0], scores[codes == _HALF] = 0, 0.5  # exact
    bins = np.searchsorted(np.linspace(0, 1, num_bins + 1)[1:-1], scores)
    totals = counts.sum(axis=0)
    # exact integer sums; bincount's weights would be rounded
    num_pixels = np.zeros(num_bins, dtype=np.int64)
    num_positive = np.zeros(num_bins, dtype=np.int64)
    np.add.at(num_pixels, bins, totals)
    np.add.at(num_positive, bins, counts[1])
    score_sums = np.bincount(bins, weights=totals * scores, minlength=num_bins)
    num = np.where(num_pixels == 0, np.nan, num_pixels)
    return score_sums / num, num_positive / num, num_pixels
