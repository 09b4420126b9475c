"""What a cross-validation comes to: figures with intervals and spreads, and their files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.base import tables
from lis2_lightning.base.files import atomic
from lis2_lightning.evaluation.area_scores import (
    FIGURES,
    AreaScores,
    Interval,
    draw_areas,
    interval,
)

NETWORK: Final = "network"
_MAIN: Final = "dice_at_threshold"
_TITLES: Final = {
    "dice_at_threshold": "Dice",
    "dice": "Dice at 0.5",
    "average_precision": "AP",
    "roc_auc": "ROC AUC",
}


@dataclass(frozen=True)
class Row:
    """The figures of a method on some labelled pixels."""

    method: str
    fold: int | None
    """Null for all folds together, each pixel by the run that did not train on it."""
    seed: int | None
    """Null for the mean map of all seeds, and for what has no seed."""
    num_pixels: int
    num_positive: int
    figures: Mapping[str, float]
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    chosen: str = ""
    """What the other folds decided: a threshold, the parameters of a filter."""


@dataclass(frozen=True)
class Summary:
    """All figures of a cross-validation.

    Attributes:
        rows: By method: one for all folds, then those of each seed and fold.
        differences: Dice of the network minus that of each baseline, both at their thresholds, with
            its 95 % interval: the same areas are drawn for both.
    """

    rows: Sequence[Row]
    differences: Mapping[str, tuple[float, Interval]]
    num_folds: int
    num_areas: int
    num_draws: int

    def row(self, method: str) -> Row:
        """The row of a method for all folds together."""
        return next(r for r in self.rows if r.method == method and r.fold is None and r.intervals)

    def spread(self, method: str) -> dict[str, dict[str, float | None]]:
        """Mean and standard deviation over folds, and over seeds, of each figure.

        Null where there are fewer than two folds or seeds.
        """
        spreads: dict[str, dict[str, float | None]] = {}
        for name in FIGURES:
            own = [row for row in self.rows if row.method == method and name in row.figures]
            folds = sorted({row.fold for row in own if row.fold is not None})
            of_folds = [
                float(np.mean([row.figures[name] for row in own if row.fold == fold]))
                for fold in folds
            ]
            of_seeds = [r.figures[name] for r in own if r.fold is None and r.seed is not None]
            spreads[name] = {
                "mean_over_folds": _mean(of_folds),
                "std_over_folds": _std(of_folds),
                "mean_over_seeds": _mean(of_seeds),
                "std_over_seeds": _std(of_seeds),
            }
        return spreads

    @property
    def methods(self) -> list[str]:
        """The methods, in their order."""
        return list(dict.fromkeys(row.method for row in self.rows))

    def data(self) -> dict[str, Any]:
        """Everything, as JSON has it; what is NaN is null."""
        return {
            "num_folds": self.num_folds,
            "num_areas": self.num_areas,
            "num_draws": self.num_draws,
            "methods": {
                method: {**_described(self.row(method)), "spread": self.spread(method)}
                for method in self.methods
            },
            "differences_of_dice": {
                name: {"difference": _number(value), "interval": [*map(_number, between)]}
                for name, (value, between) in self.differences.items()
            },
        }

    def table(self) -> str:
        """The rows of all folds, for people."""
        lines = [["", *_TITLES.values(), "over folds", "over seeds"]]
        for method in self.methods:
            row, spread = self.row(method), self.spread(method)[_MAIN]
            texts = [_with_interval(row, name) for name in _TITLES]
            spreads = [_plus_minus(spread, over) for over in ("folds", "seeds")]
            lines.append([method, *texts, *spreads])
        for name, (value, between) in self.differences.items():
            text = f"{value:+.3f} [{between[0]:+.3f}, {between[1]:+.3f}]"
            lines.append([f"network - {name}", text, *[""] * 5])
        note = (
            f"[95 % intervals: {self.num_draws} bootstrap draws of {self.num_areas} labelled areas]"
        )
        return "\n".join([*tables.columns(lines), note])


def summarise(
    methods: Mapping[str, tuple[AreaScores, Mapping[int, AreaScores]]],
    folds: NDArray[np.integer],
    *,
    chosen: Mapping[tuple[str, int, int | None], str],
    num_draws: int = 1000,
    seed: int = 0,
) -> Summary:
    """The figures of several methods on the same pixels.

    Args:
        methods: For each name its scores, and those of each seed, where it has seeds.
        folds: The fold of each area.
        chosen: What the other folds decided, by method, fold and seed.
        num_draws: Bootstrap draws.
        seed: Decides the draws.
    """
    first, _ = next(iter(methods.values()))
    tested = np.unique(folds[(folds >= 0) & (first.num_pixels > 0)]).tolist()
    has_labels = (first.num_pixels > 0) & (folds >= 0)
    draws = draw_areas(has_labels, num_draws=num_draws, seed=seed)
    rows: list[Row] = []
    for name, (scores, by_seed) in methods.items():
        rows.append(_row(name, scores, has_labels, intervals=scores.intervals(draws)))
        parts: list[tuple[int | None, AreaScores]] = [*by_seed.items()]
        for number, own in parts or [(None, scores)]:
            if number is not None:
                rows.append(_row(name, own, has_labels, seed=number))
            rows += [
                _row(
                    name,
                    own,
                    folds == fold,
                    fold=fold,
                    seed=number,
                    chosen=chosen.get((name, fold, number), ""),
                )
                for fold in tested
            ]
    whole = has_labels[None].astype(np.int64)
    differences = {}
    if NETWORK in methods:
        network = methods[NETWORK][0]
        for name, (scores, _) in methods.items():
            if name != NETWORK:
                drawn = network.dice_of(draws) - scores.dice_of(draws)
                value = float((network.dice_of(whole) - scores.dice_of(whole))[0])
                differences[name] = value, interval(drawn)
    return Summary(rows, differences, len(tested), int(has_labels.sum()), num_draws)


def _row(
    method: str,
    scores: AreaScores,
    areas: NDArray[np.bool_],
    *,
    fold: int | None = None,
    seed: int | None = None,
    intervals: Mapping[str, Interval] | None = None,
    chosen: str = "",
) -> Row:
    figures = scores.figures(areas.astype(np.int64))
    intervals = dict(intervals or {})
    if method != NETWORK:  # whose responses are no probabilities: one half means nothing
        figures.pop("dice")
        intervals.pop("dice", None)
    num_pixels, num_positive = (
        int(of_area[areas].sum()) for of_area in (scores.num_pixels, scores.num_positive)
    )
    return Row(method, fold, seed, num_pixels, num_positive, figures, intervals, chosen)


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """Write every row; ``all`` stands for all folds together."""
    lows_and_highs = [f"{name}_{side}" for name in FIGURES for side in ("low", "high")]
    own = ["method", "fold", "seed", "num_pixels", "num_positive", "chosen"]
    names = [*own, *FIGURES, *lows_and_highs]
    lines: list[list[Any]] = [names]
    for row in rows:
        ends = {
            f"{name}_{side}": value
            for name, between in row.intervals.items()
            for side, value in zip(("low", "high"), between, strict=True)
        }
        plain = {key: getattr(row, key) for key in own} | {"fold": _fold(row)}
        values = {**plain, **row.figures, **ends}
        lines.append([values.get(name) for name in names])
    tables.write_csv(path, lines)


def write_json(data: Mapping[str, Any], path: Path) -> None:
    """Write figures as JSON."""
    with atomic(path) as file:
        file.write(json.dumps(data, indent=2).encode() + b"\n")


def _fold(row: Row) -> int | str:
    return "all" if row.fold is None else row.fold


def _described(row: Row) -> dict[str, Any]:
    return {
        "num_pixels": row.num_pixels,
        "num_positive": row.num_positive,
        **{name: _number(value) for name, value in row.figures.items()},
        "intervals": {name: [*map(_number, ends)] for name, ends in row.intervals.items()},
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) > 1 else None


def _std(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _with_interval(row: Row, name: str) -> str:
    value = row.figures.get(name, math.nan)
    if math.isnan(value):
        return "-"
    low, high = row.intervals[name]
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _plus_minus(spread: Mapping[str, float | None], over: str) -> str:
    mean, std = spread[f"mean_over_{over}"], spread[f"std_over_{over}"]
    return "-" if mean is None or std is None else f"{mean:.3f} ± {std:.3f}"
