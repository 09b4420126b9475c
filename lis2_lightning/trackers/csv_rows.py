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

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Keep nothing: ``config.yaml`` lies beside the file."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append an epoch's row, in place of those of this epoch and later ones of a lost run."""
        if "epoch" not in metrics or step is None:
            return
        columns, rows = read_rows(self.path)
        kept = [row for row in rows if int(row["epoch"]) < step]
        # full precision, so that equal runs have equal files
        row = {key: "" if value is None else repr(value) for key, value in metrics.items()}
        all_columns = [*columns, *(key for key in row if key not in columns)]
        if columns == all_columns and kept == rows and self.path.read_bytes().endswith(b"\n"):
            with self.path.open("ab") as file:
                file.write(_text(columns, [row]))
                file.flush()
                os.fsync(file.fileno())
        else:
            with atomic(self.path) as file:
                header = dict(zip(all_columns, all_columns, strict=True))
                file.write(_text(all_columns, [header, *kept, row]))


def read_rows(path: Path) -> tuple[list[str], list[Row]]:
    """Columns and rows of a log, as text, without a last line that a crash cut short."""
    if not path.is_file():
        return [], []
    text = path.read_text(encoding="utf-8")
    reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
    rows = [{key: value for key, value in row.items() if key is not None} for row in reader]
    return list(reader.fieldnames or []), rows


def _text(columns: list[str], rows: list[Row]) -> bytes:
    text = io.StringIO()
    csv.DictWriter(text, columns, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
