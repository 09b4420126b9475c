"""``test_results.csv``: the loss and the metrics of every test batch, a row each."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from lis2_lightning.files import atomic


class TestResults(pl.Callback):
    """Writes ``batch, loss, <metrics>`` for each test batch when the test ends.

    Args:
        path: The file.
    """

    __test__ = False  # pytest takes a class of this name for a test

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[dict[str, Any]] = []

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with no rows."""
        self._rows = []

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Mapping[str, Any] | Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep a batch's values on the device."""
        self._rows.append({"batch": batch_idx, **outputs})

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write all rows at once."""
        if not trainer.is_global_zero or not self._rows:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self._rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in self._rows:
            batch = row.pop("batch")
            writer.writerow({"batch": batch, **{key: float(row[key]) for key in row}})
        with atomic(self.path) as file:
            file.write(text.getvalue().encode())
