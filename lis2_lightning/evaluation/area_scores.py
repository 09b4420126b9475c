"""What a method scores on labelled pixels, area by area, and how sure that is.

Pixels beside one another are no independent observations: the areas, which are dealt to folds as a
whole, are what a bootstrap draws from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray

from lis2_lightning.metrics import AveragePrecision, Dice, RocAuc
from lis2_lightning.metrics.histogram import code_edges, score_codes

Interval = tuple[float, float]
FIGURES: Final = ("dice", "dice_at_threshold", "average_precision", "roc_auc")
_PERCENT: Final = (2.5, 97.5)
_DICE, _PRECISION, _ROC = Dice(), AveragePrecision(), RocAuc()


# 256 MB of cells; scores are rounded before there are more, so that a huge image fits
MOST_CELLS: Final = 1 << 24
_KIND_BITS: Final = 32  # of area and class, below those of the score


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """How many pixels have a score, an area and a class, ``(N,)``, where there are any."""

    keys: NDArray[np.int64]
    """Ascending: the bits of the score, which ascend with it, then twice the area plus the class.
    """
    numbers: NDArray[np.int64]

    @classmethod
    def of(cls, scores: NDArray[np.float32], kinds: NDArray[np.int64]) -> Self:
        """Count pixels with scores in [0, 1]; ``kinds`` are twice the area plus the class."""
        keys = (scores.view(np.int32).astype(np.int64) << _KIND_BITS) | kinds
        return cls(*np.unique(keys, return_counts=True))

    @classmethod
    def joined(cls, parts: Sequence[_Cells]) -> Self:
        """Those of all parts."""
        keys = np.concatenate([part.keys for part in parts])
        order = np.argsort(keys, kind="stable")  # fast where parts ascend
        keys = keys[order]
        begins = np.flatnonzero(np.diff(keys, prepend=-1))
        if not len(begins):
            return cls(keys, keys)
        numbers = np.concatenate([part.numbers for part in parts])[order]
        return cls(keys[begins], np.add.reduceat(numbers, begins))

    @property
    def kinds(self) -> NDArray[np.int64]:
        """Twice the area plus the class."""
        return self.keys & ((1 << _KIND_BITS) - 1)

    def rounded(self) -> _Cells:
        """The same with scores rounded down to the lower edge of their score code."""
        scores = (self.keys >> _KIND_BITS).astype(np.int32).view(np.float32)
        edges = code_edges()[score_codes(torch.from_numpy(scores)).numpy()]
        keys = (edges.view(np.int32).astype(np.int64) << _KIND_BITS) | self.kinds
        return _Cells.joined([_Cells(keys, self.numbers)])


class AreaScores:
    """The labelled pixels of a method: how many of each area and class have which score.

    Figures are exact for scores in ``float32``. Memory is 16 bytes for each score that occurs in an
    area and a class. Above :data:`MOST_CELLS` of these, all scores are rounded down to score codes,
    at the cost in precision that :mod:`lis2_lightning.metrics.histogram` describes; Dice stays
    exact.

    Args:
        num_areas: Number of areas, of all images together.
    """

    def __init__(self, num_areas: int) -> None:
        self.num_areas = num_areas
        self._counts = np.zeros((num_areas, 2, 4), np.int64)  # at one half, and at the threshold
        nothing = np.zeros(0, np.int64)
        self._parts = [_Cells(nothing, nothing)]
        self._held = 0
        self._is_rounded = False

    def add(
        self,
        areas: NDArray[np.integer],
        probs: NDArray[np.floating],
        is_cut: NDArray[np.bool_],
        positive: NDArray[np.bool_],
    ) -> None:
        """Add labelled pixels, ``(N,)`` each.

        Args:
            areas: The area of each.
            probs: Its score in [0, 1]; what lies outside counts as 0 or 1, NaN as 0.
            is_cut: Whether it is positive at the threshold of its fold.
            positive: Whether it truly is.
        """
        probs = probs.astype(np.float32)
        for number, predicted in enumerate((probs >= np.float32(0.5), is_cut)):
            kinds = 2 * predicted + positive + 4 * areas.astype(np.int64)
            counts = np.bincount(kinds, minlength=4 * self.num_areas).reshape(-1, 4)
            self._counts[:, number] += counts
        # fmax takes 0 for NaN, and -0.0 + 0.0 is 0.0: bits then ascend with the score
        scores = np.fmin(np.fmax(probs, np.float32(0)), np.float32(1)) + np.float32(0)
        part = _Cells.of(scores, 2 * areas.astype(np.int64) + positive)
        self._parts.append(part.rounded() if self._is_rounded else part)
        self._held += len(part.keys)
        if self._held > 2 * len(self._parts[0].keys) + (1 << 20):
            self._merge()

    def _merge(self) -> _Cells:
        if len(self._parts) > 1:
            cells = _Cells.joined(self._parts)
            if len(cells.keys) > MOST_CELLS and not self._is_rounded:
                cells, self._is_rounded = cells.rounded(), True
            self._parts, self._held = [cells], len(cells.keys)
        return self._parts[0]

    @property
    def num_pixels(self) -> NDArray[np.int64]:
        """Labelled pixels of each area."""
        total: NDArray[np.int64] = self._counts[:, 0].sum(axis=-1)
        return total

    @property
    def num_positive(self) -> NDArray[np.int64]:
        """Labelled positive pixels of each area."""
        total: NDArray[np.int64] = self._counts[:, 0, 1::2].sum(axis=-1)
        return total

    def figures(self, weights: NDArray[np.integer]) -> dict[str, float]:
        """The figures of areas that count so often, ``(num_areas,)``."""
        return self._figures(weights[None], self._merge())[0]

    def intervals(self, draws: NDArray[np.integer]) -> dict[str, Interval]:
        """The 95 % interval of each figure over draws of areas, ``(D, num_areas)``.

        Of rounded scores, for speed: an interval is wider than what that changes by far.
        """
        rows = self._figures(draws, self._merge().rounded())
        return {name: interval(np.array([row[name] for row in rows])) for name in FIGURES}

    def _figures(self, weights: NDArray[np.integer], cells: _Cells) -> list[dict[str, float]]:
        has_part = weights.any(axis=0).repeat(2)[cells.kinds]
        kinds, numbers = cells.kinds[has_part], cells.numbers[has_part]
        column = np.cumsum(np.diff(cells.keys[has_part] >> _KIND_BITS, prepend=-1) > 0) - 1
        num_scores = int(column[-1]) + 1 if len(column) else 0
        areas, column = kinds >> 1, column + num_scores * (kinds & 1)
        counts = np.tensordot(weights.astype(np.int64), self._counts, axes=1)
        rows = []
        for weight, (at_half, at_threshold) in zip(weights, counts, strict=True):
            histogram = np.bincount(column, weight[areas] * numbers, 2 * num_scores)
            histogram = histogram.astype(np.int64).reshape(2, num_scores)
            values = (
                _dice(at_half),
                _dice(at_threshold),
                _PRECISION.value(histogram) if num_scores else np.nan,
                _ROC.value(histogram) if num_scores else np.nan,
            )
            rows.append(dict(zip(FIGURES, map(float, values), strict=True)))
        return rows

    def dice_of(self, draws: NDArray[np.integer]) -> NDArray[np.float64]:
        """The Dice at the threshold in each draw, ``(D,)``."""
        counts = np.tensordot(draws.astype(np.int64), self._counts[:, 1], axes=1)
        return np.array([_dice(row) for row in counts])


def _dice(counts: NDArray[np.int64]) -> float:
    """Of true and false negatives, false and true positives as :meth:`AreaScores.add` has them."""
    _, missed, false, hit = counts.tolist()
    return _DICE.value(hit, false, missed)


def draw_areas(has_labels: NDArray[np.bool_], *, num_draws: int, seed: int) -> NDArray[np.int64]:
    """How often each area comes in each bootstrap draw, ``(num_draws, num_areas)``.

    As many labelled areas as there are, drawn with replacement.

    >>> draw_areas(np.array([True, False, True]), num_draws=2, seed=1).sum(axis=1).tolist()
    [2, 2]
    """
    labelled = np.flatnonzero(has_labels)
    draws = np.zeros((num_draws, len(has_labels)), np.int64)
    if len(labelled):
        shares = np.full(len(labelled), 1 / len(labelled))
        rng = np.random.default_rng(seed)
        draws[:, labelled] = rng.multinomial(len(labelled), shares, size=num_draws)
    return draws


def interval(values: NDArray[np.float64]) -> Interval:
    """The 95 % interval of a bootstrap's values; NaN where there are none.

    >>> interval(np.arange(1001.0))
    (25.0, 975.0)
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.percentile(finite, _PERCENT)
    return float(low), float(high)
