"""The curves of a page, of one run or several: over epochs, and over thresholds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.metrics import calibration_curve
from lis2_lightning.metrics.histogram import Confusion, confusion
from lis2_lightning.metrics.score_curves import ScoreCurves, score_curves
from lis2_lightning.report.run_record import SPLIT_NAMES, RunRecord
from lis2_lightning.report.vector import (
    DASHES,
    FAINT,
    INK,
    SERIES,
    dress,
    inline,
    new_figure,
    spoken,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_POINTS = 300  # of a curve, along each of its axes
Floats = NDArray[np.float64]
Point = tuple[float, float, str]  # and what it says, in words


class Drawing(NamedTuple):
    """A figure of a page: its title, the ``<svg>`` element, and what is written below it."""

    title: str
    svg: str
    caption: str = ""


class Line(NamedTuple):
    """A curve, the number of its colour and of its dashes, and its name in the legend."""

    x: Floats
    y: Floats
    number: int
    label: str


class Scored(NamedTuple):
    """A run that counted the scores of its test pixels, and the number of its colour."""

    number: int
    name: str
    cut: float
    histogram: NDArray[np.int64]


def learning_drawings(records: Sequence[RunRecord]) -> Iterator[Drawing]:
    """Losses, metrics and learning rate over the epochs, one figure each.

    Of one run, training and validation are drawn; of several, the validation, or the training of a
    run without.
    """
    columns = dict.fromkeys(key for record in records for row in record.rows for key in row)
    names = dict.fromkeys(
        key.partition("_")[2] for key in columns if key.startswith(("train_", "val_"))
    )
    for name in names:
        lines = [
            line
            for number, record in enumerate(records)
            for line in _of_metric(record, name, number if len(records) > 1 else None)
        ]
        if lines:
            yield _over_epochs(spoken(name), lines)
    rates = [
        line for n, record in enumerate(records) if (line := _line(record, "lr", n, record.name))
    ]
    if rates:
        yield _over_epochs("learning rate", rates)


def _of_metric(record: RunRecord, name: str, number: int | None) -> list[Line]:
    by_split = {
        split: line
        for place, split in enumerate(("train", "val"))
        if (line := _line(record, f"{split}_{name}", place, SPLIT_NAMES[split]))
    }
    if number is None or not by_split:
        return list(by_split.values())
    split, line = list(by_split.items())[-1]
    return [line._replace(number=number, label=f"{record.name} ({SPLIT_NAMES[split]})")]


def _line(record: RunRecord, column: str, number: int, label: str) -> Line | None:
    """A column of the log over the epochs, where it has a finite value."""
    x, y = (
        np.array([row.get(name) for row in record.rows], dtype=np.float64)
        for name in ("epoch", column)
    )
    y[~np.isfinite(y)] = np.nan
    return None if np.isnan(y).all() else Line(x, y, number, label)


def _over_epochs(title: str, lines: Sequence[Line]) -> Drawing:
    figure, axes = _axes()
    for line in lines:
        _plot(axes, line, marker="o" if len(line.x) <= 30 else "")
    _count_epochs(axes)
    if title == "learning rate" and _spans_decades(lines):
        axes.set_yscale("log")
        axes.minorticks_off()  # which take longer to draw than all else
    _legend(axes, lines)
    heading = f"{title[0].upper()}{title[1:]}"
    return Drawing(heading, inline(figure, f"epochs {title}", _in_words(title, lines)))


def _spans_decades(lines: Sequence[Line]) -> bool:
    values = np.concatenate([line.y for line in lines])
    positive = values[values > 0]
    return bool(len(positive) and positive.max() > 10 * positive.min())


def _in_words(title: str, lines: Sequence[Line]) -> str:
    """What a curve shows, in words."""
    ends = [
        f"{line.label} from {line.y[known][0]:.4g} to {line.y[known][-1]:.4g}"
        for line in lines
        if (known := np.isfinite(line.y)).any()
    ]
    first, last = min(line.x[0] for line in lines), max(line.x[-1] for line in lines)
    return f"{title} over the epochs {first:.0f} to {last:.0f}: {'; '.join(ends)}"


def score_drawings(records: Sequence[RunRecord]) -> Iterator[Drawing]:
    """Precision and recall, ROC and calibration of the test pixels, with the threshold."""
    scored = [
        Scored(number, record.name, record.cut, record.histogram)
        for number, record in enumerate(records)
        if record.histogram is not None
    ]
    if not scored:
        return
    curves = [score_curves(run.histogram) for run in scored]
    yield _precision_recall(scored, curves)
    yield _roc(scored, curves)
    yield _calibration(scored)


def _precision_recall(scored: Sequence[Scored], curves: Sequence[ScoreCurves]) -> Drawing:
    figure, axes = _square("recall", "precision")
    lines = [_thin_line(run, c.recall, c.precision) for run, c in zip(scored, curves, strict=True)]
    text = _over_thresholds(axes, scored, lines, _at_precision)
    alt = f"Precision over recall of the test pixels, one point for each threshold; {text}"
    return Drawing("Precision and recall", inline(figure, "pr", alt), f"The dot is {text}.")


def _roc(scored: Sequence[Scored], curves: Sequence[ScoreCurves]) -> Drawing:
    figure, axes = _square("share of negative pixels selected", "share of positive pixels selected")
    axes.plot([0, 1], [0, 1], color=FAINT, lw=1)
    lines = [_thin_line(run, c.false_rate, c.recall) for run, c in zip(scored, curves, strict=True)]
    lines = [line._replace(x=np.append(0.0, line.x), y=np.append(0.0, line.y)) for line in lines]
    text = _over_thresholds(axes, scored, lines, _at_rates)
    alt = f"ROC curve of the test pixels: positives selected over negatives selected; {text}"
    caption = f"The dot is {text}; the thin line is chance."
    return Drawing("ROC", inline(figure, "roc", alt), caption)


def _over_thresholds(
    axes: Axes, scored: Sequence[Scored], lines: Sequence[Line], at: Callable[[Confusion], Point]
) -> str:
    """Draw the curve of each run, and its threshold as a dot; where the dots are, in words."""
    texts = []
    for run, line in zip(scored, lines, strict=True):
        _plot(axes, line)
        x, y, text = at(confusion(run.histogram, run.cut))
        _mark(axes, x, y, run.number)
        texts.append(f"{_before(run, scored)}at {run.cut:.3f}: {text}")
    _legend(axes, lines)
    return "; ".join(texts)


def _thin_line(run: Scored, x: Floats, y: Floats) -> Line:
    kept = thinned(x, y)
    return Line(x[kept], y[kept], run.number, run.name)


def _at_precision(counts: Confusion) -> Point:
    tp, fp, fn, _ = counts
    recall, precision = tp / max(tp + fn, 1), tp / max(tp + fp, 1)
    return recall, precision, f"precision {precision:.3f}, recall {recall:.3f}"


def _at_rates(counts: Confusion) -> Point:
    tp, fp, fn, tn = counts
    false_rate, recall = fp / max(fp + tn, 1), tp / max(tp + fn, 1)
    text = f"{recall:.3f} of the positives, {false_rate:.3f} of the negatives"
    return false_rate, recall, text


def _calibration(scored: Sequence[Scored]) -> Drawing:
    figure, axes = _square("mean probability", "share of positive pixels")
    axes.plot([0, 1], [0, 1], color=FAINT, lw=1)
    lines, texts = [], []
    for run in scored:
        mean, share, num = calibration_curve(run.histogram, num_bins=10)
        known = num > 0
        lines.append(Line(mean[known], share[known], run.number, run.name))
        _plot(axes, lines[-1], marker="o")
        error = float(np.nansum(np.abs(mean - share) * num) / max(num.sum(), 1))
        texts.append(f"{_before(run, scored)}mean distance {error:.3f}")
    _legend(axes, lines)
    text = "; ".join(texts)
    alt = f"Share of positive test pixels over the probability, in ten bins; {text}"
    caption = f"On the thin line, a probability is how often it is right; {text}."
    return Drawing("Calibration", inline(figure, "calibration", alt), caption)


def time_drawing(record: RunRecord) -> Drawing | None:
    """Seconds of each epoch; null where they were not noted."""
    if not record.seconds:
        return None
    epochs = np.array(sorted(record.seconds), dtype=np.float64)
    seconds = np.array([record.seconds[int(epoch)] for epoch in epochs])
    figure, axes = _axes()
    _plot(axes, Line(epochs, seconds, 0, ""), marker="o" if len(epochs) <= 30 else "")
    axes.set_ylim(bottom=0)
    _count_epochs(axes)
    axes.set_ylabel("seconds")
    median, longest, whole = np.median(seconds), seconds.max(), seconds.sum()
    text = f"median {median:.3g} s, longest {longest:.3g} s, all {whole:.4g} s"
    alt = f"Seconds of training and validation in each epoch: {text}"
    return Drawing(
        "Seconds per epoch", inline(figure, "time", alt), f"{text[0].upper()}{text[1:]}."
    )


def thinned(x: Floats, y: Floats) -> NDArray[np.intp]:
    """The points of a curve, whose axes lie in [0, 1], that a drawing needs.

    >>> line = np.linspace(0, 1, 100_001)
    >>> len(thinned(line, line)) <= 2 * 301 + 2
    True
    """
    cells = [np.floor(np.nan_to_num(axis) * _POINTS) for axis in (x, y)]
    is_new = np.any([np.diff(axis, prepend=-1) != 0 for axis in cells], axis=0)
    is_new[-1:] = True
    return np.flatnonzero(is_new)


def _before(run: Scored, scored: Sequence[Scored]) -> str:
    """The name of a run among several, to stand before what is said of it."""
    return f"{run.name} " if len(scored) > 1 else ""


def _axes(height: float = 2.9) -> tuple[Figure, Axes]:
    figure = new_figure(4.2, height)
    axes = figure.add_subplot()
    axes.locator_params(nbins=5)  # each tick takes a millisecond
    axes.grid(color=FAINT, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    dress(axes)
    return figure, axes


def _count_epochs(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("epoch")


def _square(x: str, y: str) -> tuple[Figure, Axes]:
    figure, axes = _axes(3.9)
    axes.set(xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    return figure, axes


def _plot(axes: Axes, line: Line, **style: Any) -> None:
    colour, dash = SERIES[line.number % len(SERIES)], DASHES[line.number % len(DASHES)]
    # a name may begin with an underscore, which hides a label, or hold what begins a formula
    label = f" {line.label}".replace("$", r"\$")
    axes.plot(line.x, line.y, color=colour, ls=dash, lw=1.8, ms=3.5, label=label, **style)


def _mark(axes: Axes, x: float, y: float, number: int) -> None:
    colour = SERIES[number % len(SERIES)]
    axes.plot([x], [y], "o", color=colour, mec=INK, ms=8, clip_on=False, zorder=5)


def _legend(axes: Axes, lines: Sequence[Line]) -> None:
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=8.5, labelcolor=INK)
