"""The picture of a study: how its trials came out, and with which values of the keys."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.report.pictures import (
    BLUE,
    GREY,
    VERMILION,
    add_legend,
    dress,
    new_panels,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
_REACH: Final = 4.0  # times the distance from the best to the median: what is worse is off the axis
_LABEL: Final = 16  # characters of a name below an axis
_LINE: Final = 34  # characters of names that fit side by side


@dataclass(frozen=True)
class Outcome:
    """How a trial came out."""

    number: int
    value: float | None
    """The best monitored value, or the best until it was pruned; null where it has none."""
    state: Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class Searched:
    """The values of a key, one for each trial; where it has names, their places among these."""

    key: str
    values: Sequence[float]
    is_log: bool = False
    names: Sequence[str] = ()


def draw_study(
    trials: Sequence[Outcome],
    keys: Sequence[Searched],
    path: str | os.PathLike[str],
    *,
    monitor: str,
    is_largest: bool,
) -> Path:
    """Draw the value of each trial in turn, then over the values of each key; return the path.

    A value that is much worse than most is an arrow at the edge, so that the others can be told
    apart.

    Args:
        trials: The trials, by their numbers; at least one is complete.
        keys: What varied.
        path: The file; its suffix selects the format.
        monitor: What the value is of.
        is_largest: Whether the largest is the best.
    """
    values = np.array([t.value if t.value is not None else np.nan for t in trials], np.float64)
    is_complete = np.array([trial.state == "complete" for trial in trials])
    sign = -1.0 if is_largest else 1.0
    so_far = np.fmin.accumulate(np.where(is_complete, sign * values, np.nan)) * sign
    best = so_far[-1]
    reach = sign * (np.nanmedian(values) - best)
    worst = best + sign * (_REACH * reach if reach > 0 else np.inf)
    is_off = sign * values > sign * worst
    shown = np.where(is_off, worst, values)

    figure, panels = new_panels(1 + len(keys))
    numbers = Searched("trial", [trial.number for trial in trials])
    drawn = np.where(sign * so_far > sign * worst, np.nan, so_far)
    panels[0].plot(
        numbers.values, drawn, color=VERMILION, lw=1.2, drawstyle="steps-post", label="best so far"
    )
    for axes, searched in zip(panels, [numbers, *keys], strict=True):
        _draw_trials(
            axes, np.array(searched.values, np.float64), shown, trials, is_off=is_off, sign=sign
        )
        best_place = searched.values[int(np.flatnonzero(is_complete & (values == best))[0])]
        axes.plot(best_place, best, "*", color=VERMILION, ms=11, label="best")
        axes.set_title(searched.key)
        if axes.get_subplotspec().is_first_col():  # type: ignore[union-attr]  # made by add_subplot
            axes.set_ylabel(monitor)
        _dress(axes, searched)
    handles = {str(line.get_label()): line for axes in panels for line in axes.lines}
    add_legend(figure, [h for label, h in handles.items() if not label.startswith("_")])
    return save(figure, path)


def _draw_trials(
    axes: Axes,
    places: Floats,
    values: Floats,
    trials: Sequence[Outcome],
    *,
    is_off: NDArray[np.bool_],
    sign: float,
) -> None:
    for state, marker, colour in (("complete", "o", BLUE), ("pruned", "x", GREY)):
        here = np.array([trial.state == state for trial in trials])
        inside, outside = here & ~is_off & np.isfinite(values), here & is_off
        if inside.any():
            axes.plot(
                places[inside], values[inside], marker, color=colour, ms=4.5, alpha=0.8, label=state
            )
        arrow = "^" if sign > 0 else "v"
        axes.plot(places[outside], values[outside], arrow, color=colour, ms=4.5, alpha=0.8)
    failed = places[[trial.state == "failed" for trial in trials]]
    if len(failed):  # they have no value: along the bottom
        along = axes.get_xaxis_transform()
        axes.plot(
            failed,
            np.full(len(failed), 0.03),
            "+",
            color=VERMILION,
            transform=along,
            label="failed",
        )


def _dress(axes: Axes, searched: Searched) -> None:
    from matplotlib.ticker import MaxNLocator

    dress(axes)
    if searched.names:
        labels = [_cut(name) for name in searched.names]
        is_long = sum(map(len, labels)) > _LINE
        axes.set_xticks(range(len(labels)), labels)
        if is_long:
            for label in axes.get_xticklabels():
                label.set(rotation=25, ha="right")
        axes.set_xlim(-0.5, len(labels) - 0.5)
    elif searched.is_log:
        axes.set_xscale("log")
    else:
        is_whole = all(isinstance(value, int) for value in searched.values)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=is_whole))
        if is_whole and len(set(searched.values)) == 1:
            axes.set_xlim(searched.values[0] - 1, searched.values[0] + 1)


def _cut(name: str) -> str:
    return name if len(name) <= _LABEL else f"{name[: _LABEL - 1]}…"
