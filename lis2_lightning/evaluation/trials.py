"""What a study comes to: its trials, the best first, as a table and as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lis2_lightning.base import tables
from lis2_lightning.base.files import shown

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

NUMBER: Final = "trial"  # of a trial's folder; Optuna counts those that died, too
ERROR: Final = "error"


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
    error: str = ""

    @property
    def result(self) -> str:
        """What stands for the value in the table."""
        if self.value is not None:
            return f"{self.value:.6f}"
        return "failed" if self.error else "pruned"


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
            trial.user_attrs.get(ERROR, ""),
        )
        for trial, own in zip(trials, values, strict=True)
    ]
    sign = -1 if is_largest else 1
    return sorted(rows, key=lambda row: (row.value is None, sign * (row.value or 0.0), row.number))


def write_csv(trials: Trials, path: Path) -> None:
    """Write a row for each trial."""
    names = ["trial", trials.monitor, "epochs", *trials.best.values, "error"]
    rows = ([r.number, r.value, r.epochs, *r.values.values(), r.error] for r in trials.rows)
    tables.write_csv(path, [names, *rows])


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
