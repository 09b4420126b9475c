"""One row an epoch in a CSV file: appended, flushed to the disk, cut back on resuming."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lis2_lightning.base.files import atomic
from lis2_lightning.trackers.tracker import Tracker

Row = dict[str, str]


class CsvLogger(Tracker):
    """The CSV tracker; it is always on, so it need not be named.

    Args:
        output_run: Another folder for ``logs_train.csv`` than the run's own.
    """

    def __init__(self, output_run: str | None = None) -> None:
        self.output_run = output_run

    def start(self, run_dir: Path, run_name: str) -> Logger:  # noqa: ARG002 - one for all trackers
        """Make the logger of one run."""
        return CsvRows(Path(self.output_run or run_dir) / "logs_train.csv")


class CsvRows(Logger):
    """A Lightning logger which keeps one row for each epoch.

    Lightning's own deletes the file when a run is resumed and splits an epoch over two rows.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    @property
    def name(self) -> str:
        """The kind of logger."""
        return "csv"

    @property
    def version(self) -> str:
        """There is one version: the file."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Keep nothing: ``config.yaml`` lies beside the file."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append an epoch's row; rows of that epoch and later ones, of a lost run, go.

        Args:
            metrics: The row. One without ``epoch`` is no epoch's and is passed over.
            step: The epoch, counted from 0.
        """
        if "epoch" not in metrics or step is None:
            return
        columns, rows = read_rows(self.path)
        kept = [row for row in rows if int(row["epoch"]) < step]
        new = {key: _text(value) for key, value in metrics.items()}
        wanted = [*columns, *(key for key in new if key not in columns)]
        if columns == wanted and kept == rows and self.path.read_bytes().endswith(b"\n"):
            with self.path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, columns, lineterminator="\n").writerow(new)
                file.flush()
                os.fsync(file.fileno())
        else:
            _rewrite(self.path, wanted, [*kept, new])


def read_rows(path: Path) -> tuple[list[str], list[Row]]:
    """Columns and rows of a log, as text; empty where there is no file.

    A last line that a crash cut short is dropped.
    """
    if not path.is_file():
        return [], []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    reader = csv.DictReader(io.StringIO(whole))
    rows = [{key: value for key, value in row.items() if key is not None} for row in reader]
    return list(reader.fieldnames or []), rows


def _rewrite(path: Path, columns: list[str], rows: list[Row]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic(path) as file:
        file.write(text.getvalue().encode())


def _text(value: float | None) -> str:
    """Full precision, so that equal runs have equal files; nothing for what is not there."""
    return "" if value is None else repr(value)
