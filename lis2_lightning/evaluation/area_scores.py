"""What a method scores on labelled pixels, area by area, and how sure that is.

Pixels beside one another are no independent observations: the areas, which are dealt to folds as a
whole, are what a bootstrap draws from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from lis2_lightning.metrics import AveragePrecision, Dice, RocAuc
from lis2_lightning.metrics.histogram import NUM_CODES, score_codes

Interval = tuple[float, float]
FIGURES: Final = ("dice", "dice_at_threshold", "average_precision", "roc_auc")
_PERCENT: Final = (2.5, 97.5)
_DICE, _PRECISION, _ROC = Dice(), AveragePrecision(), RocAuc()


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """How many pixels of an area have a score code and a class, where there are any, ``(N,)``."""

    areas: NDArray[np.int64]
    places: NDArray[np.int64]
    """The score code of a negative pixel; of a positive one, that many codes further on."""
    numbers: NDArray[np.int64]


class AreaScores:
    """The labelled pixels of a method: counts and histograms of each area.

    Memory is that of the pairs of area and score code that occur, not that of the pixels.

    Args:
        num_areas: Number of areas, of all images together.
    """

    def __init__(self, num_areas: int) -> None:
        self.num_areas = num_areas
        self._counts = np.zeros((num_areas, 2, 4), np.int64)  # at one half, and at the threshold
        self._keys: list[NDArray[np.int64]] = []
        self._numbers: list[NDArray[np.int64]] = []
        self._held = 0

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
            probs: Its score in [0, 1].
            is_cut: Whether it is positive at the threshold of its fold.
            positive: Whether it truly is.
        """
        probs = probs.astype(np.float32)
        for number, predicted in enumerate((probs >= np.float32(0.5), is_cut)):
            kinds = 2 * predicted + positive + 4 * areas.astype(np.int64)
            counts = np.bincount(kinds, minlength=4 * self.num_areas).reshape(-1, 4)
            self._counts[:, number] += counts
        codes = score_codes(torch.from_numpy(probs)).numpy().astype(np.int64)
        keys = (areas.astype(np.int64) * 2 + positive) * NUM_CODES + codes
        keys, numbers = np.unique(keys, return_counts=True)
        self._keys.append(keys)
        self._numbers.append(numbers)
        self._held += len(keys)
        if self._held > 2 * len(self._keys[0]) + (1 << 20):
            self._merge()

    def _merge(self) -> None:
        if not self._keys:
            return
        keys, inverse = np.unique(np.concatenate(self._keys), return_inverse=True)
        numbers = np.zeros(len(keys), np.int64)
        np.add.at(numbers, inverse, np.concatenate(self._numbers))
        self._keys, self._numbers, self._held = [keys], [numbers], len(keys)

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

    def cells(self) -> Cells:
        """What the histograms of all areas hold."""
        self._merge()
        if not self._keys:
            nothing = np.zeros(0, np.int64)
            return Cells(nothing, nothing, nothing)
        areas, places = np.divmod(self._keys[0], 2 * NUM_CODES)
        return Cells(areas, places, self._numbers[0])

    def figures(self, weights: NDArray[np.integer]) -> dict[str, float]:
        """The figures of areas that count so often, ``(num_areas,)``."""
        return self._figures(weights[None], self.cells())[0]

    def intervals(self, draws: NDArray[np.integer]) -> dict[str, Interval]:
        """The 95 % interval of each figure over draws of areas, ``(D, num_areas)``."""
        rows = self._figures(draws, self.cells())
        return {name: interval(np.array([row[name] for row in rows])) for name in FIGURES}

    def _figures(self, weights: NDArray[np.integer], cells: Cells) -> list[dict[str, float]]:
        # only codes that occur: ascending, which is all that the curves need
        codes, column = np.unique(cells.places % NUM_CODES, return_inverse=True)
        column = column + len(codes) * (cells.places >= NUM_CODES)
        counts = np.tensordot(weights.astype(np.int64), self._counts, axes=1)
        rows = []
        for weight, (at_half, at_threshold) in zip(weights, counts, strict=True):
            of_cells = weight[cells.areas] * cells.numbers
            histogram = np.bincount(column, of_cells, 2 * len(codes)).astype(np.int64)
            histogram = histogram.reshape(2, len(codes))
            has_pixels = bool(len(codes))
            values = (
                _dice(at_half),
                _dice(at_threshold),
                _PRECISION.value(histogram) if has_pixels else np.nan,
                _ROC.value(histogram) if has_pixels else np.nan,
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
