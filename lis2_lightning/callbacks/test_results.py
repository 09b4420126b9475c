"""``test_results.csv``: the loss and the metrics of each test batch."""

from __future__ import annotations

import csv
import io
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
from torch.utils.data import DataLoader

from lis2_lightning.base.files import atomic
from lis2_lightning.data import batch_number
from lis2_lightning.parallel.exchange import of_all_processes


class TestResults(pl.Callback):
    """Writes ``batch, loss, <metrics>`` for each test batch when the test ends."""

    __test__ = False  # pytest takes a class of this name for a test

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[dict[str, Any]] = []

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with no rows."""
        self._rows = []

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """Keep a batch's values, on the device."""
        outputs, _, batch_idx, *_ = args
        number = batch_number(cast("DataLoader[Any]", trainer.test_dataloaders), batch_idx)
        if number is not None:
            self._rows.append({"batch": number, **outputs})

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the rows of all processes at once."""
        own = [{k: float(v) if k != "batch" else v for k, v in r.items()} for r in self._rows]
        rows = sorted(chain(*of_all_processes(own)), key=itemgetter("batch"))
        if not trainer.is_global_zero or not rows:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        with atomic(self.path) as file:
            file.write(text.getvalue().encode())
