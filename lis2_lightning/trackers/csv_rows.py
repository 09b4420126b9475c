"""One row an epoch in a CSV file: appended, flushed to the disk, cut back on resuming."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lis2_lightning.base.files import atomic, make, shown
from lis2_lightning.errors import ConfigError, one_line

_log = logging.getLogger("lis2_lightning")
Row = dict[str, str]


class CsvRows(Logger):
    """A Lightning logger which keeps one row for each epoch.

    Lightning's own deletes the file when a run is resumed and splits an epoch over two rows.
    """

    name = "csv"
    version = ""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._columns: list[str] = []
        self._last_epoch = -1
        self._left: tuple[int, int] | None = None  # the state of the file after our last row

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
        # full precision, so that equal runs have equal files
        row = {key: "" if value is None else repr(value) for key, value in metrics.items()}
        goes_on = step > self._last_epoch and row.keys() <= set(self._columns)
        if goes_on and self._left is not None and self._left == self._state():
            self._append(row)
        else:
            self._insert(row, step)
        self._last_epoch, self._left = step, self._state()

    def _state(self) -> tuple[int, int] | None:
        """What changes when somebody else writes into the file."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return None
        return stat.st_size, stat.st_mtime_ns

    def _append(self, row: Row) -> None:
        with self.path.open("ab") as file:
            file.write(_text(self._columns, [row]))
            file.flush()
            os.fsync(file.fileno())

    def _insert(self, row: Row, step: int) -> None:
        """Put a row behind the rows of earlier epochs, whatever the file holds."""
        columns, rows = read_rows(self.path)
        kept = [earlier for earlier in rows if int(earlier["epoch"]) < step]
        all_columns = [*columns, *(key for key in row if key not in columns)]
        header = dict(zip(all_columns, all_columns, strict=True))
        self._columns = all_columns
        if columns == all_columns and self.path.read_bytes() == _text(columns, [header, *kept]):
            self._append(row)
        else:
            with atomic(self.path) as file:
                file.write(_text(all_columns, [header, *kept, row]))


class CsvCopy(CsvRows):
    """The rows of a run's own log once more, in a folder elsewhere.

    Another run's file there is never cut. A copy that fails does not stop the run.
    """

    def __init__(self, path: Path, own: Path) -> None:
        super().__init__(path)
        self._own = own
        self._is_chosen = self._is_off = False

    def check(self) -> None:
        """Read the file, and make its folder.

        Raises:
            ConfigError: The file is no log or is damaged, or the folder cannot be made.
        """
        try:
            make(self.path.parent)
        except OSError as error:
            folder = shown(self.path.parent)
            raise ConfigError(
                f"output_run {folder} of the tracker csv cannot be made ({error.strerror}): choose "
                "another folder"
            ) from error
        super().check()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append an epoch's row, which the run's own log has already."""
        if self._is_off:
            return
        try:
            if not self._is_chosen:
                self.path, self._is_chosen = self._free_path(), True
            super().log_metrics(metrics, step)
        except (OSError, ConfigError) as error:
            self._is_off = True
            _log.warning(
                "the copy of the log in %s ends here (%s); %s is complete",
                *(shown(self.path), one_line(error), shown(self._own)),
            )

    def _free_path(self) -> Path:
        """The first file that is new, or has this run's first row."""
        _, own = read_rows(self._own)
        stem, run = self.path.stem, self._own.parent.name
        more = (f"{stem}_{run}-{number}" for number in count(2))
        for name in chain([stem, f"{stem}_{run}"], more):
            path = self.path.with_stem(name)
            _, rows = read_rows(path)
            if not rows or not own or rows[0].items() >= _first(own).items():
                break
        if path != self.path:
            _log.warning("%s holds another run: the rows go to %s", shown(self.path), shown(path))
        return path


def _first(rows: list[Row]) -> Row:
    return {key: rows[0][key] for key in ("epoch", "train_loss") if key in rows[0]}


def read_rows(path: Path) -> tuple[list[str], list[Row]]:
    """Columns and rows of a log, as text, also where a spreadsheet has saved it.

    A last row that a crash cut short is no row.

    Raises:
        ConfigError: The file is no log.
    """
    if not path.is_file():
        return [], []
    # a power cut may leave zeros
    text = path.read_bytes().decode("utf-8-sig", errors="replace").replace("\0", "")
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return [], []
    separator = next((mark for mark in ",;\t" if mark in lines[0]), ",")
    if separator == ";":  # where the decimal mark is a comma
        lines = [line.replace(",", ".") for line in lines]
    try:
        columns, *cells = (row for row in csv.reader(lines, delimiter=separator) if any(row))
        while not columns[-1]:
            columns.pop()
        columns.index("epoch")
        if cells and len(cells[-1]) < len(columns) and not text.endswith(("\n", "\r")):
            cells.pop()
        return columns, [_row(columns, line) for line in cells]
    except (KeyError, ValueError, OverflowError, csv.Error) as error:
        raise ConfigError(
            f"{shown(path)} is no log of a run, or is damaged ({one_line(error)}): repair it, or "
            "move it elsewhere"
        ) from error


def _row(columns: list[str], cells: list[str]) -> Row:
    """A row whose epoch is a plain whole number; a spreadsheet drops the last cells if empty."""
    missing = len(columns) - len(cells)
    if any(cells[len(columns) :]):
        raise ValueError(f"{len(cells)} cells below {len(columns)} columns")
    row = dict(zip(columns, [*cells, *[""] * missing], strict=False))
    epoch = float(row["epoch"])  # 0.0 in place of 0
    if not epoch.is_integer():
        raise ValueError(f"epoch {row['epoch']}")
    return {**row, "epoch": str(int(epoch))}


def _text(columns: list[str], rows: list[Row]) -> bytes:
    text = io.StringIO()
    csv.DictWriter(text, columns, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
