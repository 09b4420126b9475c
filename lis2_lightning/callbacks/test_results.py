"""``test_results.csv`` and ``.npz``: values of each test batch, and the scores of all pixels."""

from __future__ import annotations

from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
from torch.utils.data import DataLoader

from lis2_lightning.base.files import atomic
from lis2_lightning.base.tables import write_csv
from lis2_lightning.data import batch_number
from lis2_lightning.parallel.exchange import of_all_processes
from lis2_lightning.training.module import SegmentationModule


class TestResults(pl.Callback):
    """Writes ``batch, loss, <metrics>`` for each test batch when the test ends.

    Beside it, under the same name with ``.npz``: `histogram`, the scores of all labelled pixels by
    class and score code, and `threshold`, NaN where none was chosen.
    """

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
        write_csv(self.path, [list(rows[0]), *(list(row.values()) for row in rows)])
        self._write_scores(cast("SegmentationModule", pl_module))

    def _write_scores(self, module: SegmentationModule) -> None:
        """Write the histogram that curves are drawn from, where a metric has counted one."""
        histogram, threshold = module.test_scores.metrics.histogram, module.threshold
        path = self.path.with_suffix(".npz")
        if histogram is None:
            path.unlink(missing_ok=True)  # that of an earlier test
            return
        limit = np.nan if threshold is None else threshold
        with atomic(path) as file:
            np.savez_compressed(file, histogram=histogram, threshold=limit)
