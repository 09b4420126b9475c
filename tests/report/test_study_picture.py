"""The picture of a study, by what stands in its panels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lis2_lightning.report.study_picture import Outcome, Searched, draw_study

TRIALS = [
    Outcome(0, 0.5, "complete"),
    Outcome(1, 0.6, "pruned"),
    Outcome(2, 0.4, "complete"),
    Outcome(3, None, "failed"),
    Outcome(4, 90.0, "complete"),
]
KEYS = [
    Searched("optimizer.lr", [1e-3, 1e-4, 1e-2, 1.0, 0.1], is_log=True),
    Searched("loss", [0, 1, 0, 1, 1], names=["BCELoss", "a_loss with_a=long_name"]),
]


def drawn(monkeypatch: pytest.MonkeyPatch, *, is_largest: bool) -> list[Any]:
    figures: list[Any] = []
    monkeypatch.setattr(
        "lis2_lightning.report.study_picture.save", lambda figure, _: figures.append(figure)
    )
    draw_study(TRIALS, KEYS, Path("study.png"), monitor="val_loss", is_largest=is_largest)
    panels: list[Any] = figures[0].axes
    return panels


def lines_of(axes: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in axes.lines}


def test_each_trial_stands_in_each_panel_with_how_it_ended(monkeypatch: Any) -> None:
    panels = drawn(monkeypatch, is_largest=False)
    assert [axes.get_title() for axes in panels] == ["trial", "optimizer.lr", "loss"]
    assert [axes.get_xscale() for axes in panels] == ["linear", "log", "linear"]
    names = [label.get_text() for label in panels[2].get_xticklabels()]
    assert names == ["BCELoss", "a_loss with_a=l…"]
    for axes, best in zip(panels, (2, 1e-2, 0), strict=True):
        lines = lines_of(axes)
        assert lines["complete"].get_ydata().tolist() == [0.5, 0.4]
        assert lines["pruned"].get_ydata().tolist() == [0.6]
        assert len(lines["failed"].get_xdata()) == 1
        assert (*lines["best"].get_xdata(), *lines["best"].get_ydata()) == (best, 0.4)
        assert axes.get_ylim()[1] < 2  # 90 is an arrow at the edge
    so_far = lines_of(panels[0])["best so far"]
    assert so_far.get_ydata().tolist() == [0.5, 0.5, 0.4, 0.4, 0.4]


def test_the_largest_may_be_the_best(monkeypatch: Any) -> None:
    lines = lines_of(drawn(monkeypatch, is_largest=True)[0])
    assert lines["best"].get_ydata().tolist() == [90.0]
    assert lines["best so far"].get_ydata()[-1] == 90.0
