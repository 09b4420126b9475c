"""One row an epoch in a CSV file: appended, flushed to the disk, cut back on resuming."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lis2_lightning.base.files import atomic
from lis2_lightning.errors import ConfigError, one_line

_log = logging.getLogger("lis2_lightning")
Row = dict[str, str]


class CsvRows(Logger):
    """A Lightning logger which keeps one row for each epoch.

    Lightning's own deletes the file when a run is resumed and splits an epoch over two rows.
    """

    name = "csv"
    version = ""

    def __init__(self, path: Path, twin: Path | None = None) -> None:
        super().__init__()
        self.path = path
        self._twin = twin  # the log in the run's own folder, of which this is the copy elsewhere

    def check(self) -> None:
        """Read the file, before an epoch is trained.

        Raises:
            ConfigError: The file is no log, or is damaged.
        """
        read_rows(self.path)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Keep nothing: ``config.yaml`` has the parameters."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append an epoch's row, in place of those of this epoch and later ones of a lost run."""
        if "epoch" not in metrics or step is None:
            return
        self._leave_to_another_run()
        columns, rows = read_rows(self.path)
        kept = [row for row in rows if int(row["epoch"]) < step]
        # full precision, so that equal runs have equal files
        row = {key: "" if value is None else repr(value) for key, value in metrics.items()}
        all_columns = [*columns, *(key for key in row if key not in columns)]
        header = dict(zip(all_columns, all_columns, strict=True))
        if columns == all_columns and self.path.read_bytes() == _text(columns, [header, *kept]):
            with self.path.open("ab") as file:
                file.write(_text(columns, [row]))
                file.flush()
                os.fsync(file.fileno())
        else:
            with atomic(self.path) as file:
                file.write(_text(all_columns, [header, *kept, row]))

    def _leave_to_another_run(self) -> None:
        """Where the file elsewhere has another run's rows, write into one named after this run."""
        if self._twin is None:
            return
        _, rows = read_rows(self.path)
        _, own = read_rows(self._twin)  # which is written first
        if rows and any(rows[0][key] != own[0][key] for key in ("epoch", "train_loss")):
            other = self.path.with_stem(f"{self.path.stem}_{self._twin.parent.name}")
            _log.warning("%s holds another run: this one is in %s", self.path, other)
            self.path = other
        self._twin = None


def read_rows(path: Path) -> tuple[list[str], list[Row]]:
    """Columns and rows of a log, as text, also where a spreadsheet has saved it.

    A row that a crash cut short, or that it left empty, is no row.

    Raises:
        ConfigError: The file is no log.
    """
    if not path.is_file():
        return [], []
    text = path.read_bytes().decode("utf-8-sig", errors="replace").replace("\0", "")
    if not text.strip():
        return [], []
    first = text.splitlines()[0]
    separator = next((mark for mark in ",;\t" if mark in first), ",")
    columns, *lines = csv.reader(io.StringIO(text), delimiter=separator)
    rows = [dict(zip(columns, line, strict=False)) for line in lines if len(line) == len(columns)]
    try:
        # a spreadsheet makes 0.0 of 0
        return columns, [{**row, "epoch": str(int(float(row["epoch"])))} for row in rows]
    except (KeyError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"{path} is no log of a run, or is damaged ({one_line(error)}): repair it, or move it "
            "elsewhere"
        ) from error


def _text(columns: list[str], rows: list[Row]) -> bytes:
    text = io.StringIO()
    csv.DictWriter(text, columns, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
