"""What a study comes to: its trials, the best first, as a table and as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from lis2_lightning.base import tables
from lis2_lightning.base.files import shown
from lis2_lightning.evaluation.space import Range, Space
from lis2_lightning.report.study_picture import Outcome, Searched, draw_study

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

NUMBER: Final = "trial"  # of a trial's folder; Optuna counts those that died, too
ERROR: Final = "error"
FOLD_STEPS: Final = 1_000_000  # between folds in a study's count of epochs, more than a run has


@dataclass(frozen=True)
class TrialRow:
    """A trial that is over."""

    number: int
    value: float | None
    """The best monitored value; null where it was pruned or failed."""
    epochs: int
    """In how many it was looked at, over all folds."""
    values: Mapping[str, Any]
    """What it was trained with, by key."""
    seen: float | None = None
    """The best monitored value that it reported; of a pruned trial, too."""
    error: str = ""

    @property
    def state(self) -> Literal["complete", "pruned", "failed"]:
        """How it ended."""
        if self.value is not None:
            return "complete"
        return "failed" if self.error else "pruned"

    @property
    def result(self) -> str:
        """What stands for the value in the table."""
        return self.state if self.value is None else f"{self.value:.6f}"


@dataclass(frozen=True)
class Trials:
    """The trials of a study, and the file of its best configuration."""

    monitor: str
    rows: Sequence[TrialRow]
    """The best first, and what was pruned or failed last."""
    best_path: Path

    @property
    def best(self) -> TrialRow:
        """The best trial."""
        return self.rows[0]

    def table(self) -> str:
        """A line for each trial."""
        keys = list(self.best.values)
        lines = [["trial", self.monitor, "epochs", *keys]]
        for row in self.rows:
            values = [_short(row.values[key]) for key in keys]
            lines.append([str(row.number), row.result, str(row.epochs), *values])
        best = f"[the best configuration: lis2 fit --config {shown(self.best_path)}]"
        return "\n".join([*tables.columns(lines), best])

    def data(self) -> dict[str, Any]:
        """The same, as JSON has it."""
        return {
            "monitor": self.monitor,
            "best": str(self.best_path),
            "trials": [
                {
                    "trial": row.number,
                    "value": row.value,
                    "epochs": row.epochs,
                    "values": dict(row.values),
                    "error": row.error,
                }
                for row in self.rows
            ],
        }


def rows_of(
    trials: Sequence[FrozenTrial], values: Sequence[Mapping[str, Any]], *, is_largest: bool
) -> list[TrialRow]:
    """The rows of trials that are over, whose values are listed beside; the best first."""
    rows = [
        TrialRow(
            trial.user_attrs[NUMBER],
            trial.value if trial.state.name == "COMPLETE" else None,
            len(trial.intermediate_values),
            own,
            _seen(trial.intermediate_values, is_largest=is_largest),
            trial.user_attrs.get(ERROR, ""),
        )
        for trial, own in zip(trials, values, strict=True)
    ]
    sign = -1 if is_largest else 1
    return sorted(rows, key=lambda row: (row.value is None, sign * (row.value or 0.0), row.number))


def _seen(reported: Mapping[int, float], *, is_largest: bool) -> float | None:
    """The mean over the folds of the best value of each."""
    folds = {step // FOLD_STEPS for step in reported}
    best = max if is_largest else min
    bests = [best(v for step, v in reported.items() if step // FOLD_STEPS == k) for k in folds]
    return sum(bests) / len(bests) if bests else None


def draw(trials: Trials, space: Space, path: Path, *, is_largest: bool) -> None:
    """Draw the study."""
    rows = sorted(trials.rows, key=lambda row: row.number)
    outcomes = [
        Outcome(row.number, row.seen if row.value is None else row.value, row.state) for row in rows
    ]
    keys = [_searched(key, of, [r.values[key] for r in rows]) for key, of in space.keys.items()]
    draw_study(outcomes, keys, path, monitor=trials.monitor, is_largest=is_largest)


def _searched(key: str, of: Range | list[Any], values: Sequence[Any]) -> Searched:
    if isinstance(of, Range):
        return Searched(key, values, is_log=of.log)
    return Searched(key, [of.index(value) for value in values], names=[_name(item) for item in of])


def _name(value: Any) -> str:
    """A component by its class alone, and with its arguments as far as there is room."""
    if not isinstance(value, Mapping):
        return _short(value).rpartition(".")[2] if isinstance(value, str) else _short(value)
    kind = str(value.get("type", value.get("class_path", ""))).rpartition(".")[2]
    rest = {**(value.get("init_args") or {})} | {
        name: item
        for name, item in value.items()
        if name not in {"type", "class_path", "init_args"}
    }
    return " ".join([kind, *(f"{name}={_short(item)}" for name, item in rest.items())]).strip()


def write_csv(trials: Trials, path: Path) -> None:
    """Write a row for each trial."""
    names = ["trial", trials.monitor, "epochs", *trials.best.values, "error"]
    rows = ([r.number, r.value, r.epochs, *r.values.values(), r.error] for r in trials.rows)
    tables.write_csv(path, [names, *rows])


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
