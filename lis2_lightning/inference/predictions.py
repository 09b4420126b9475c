"""The callback that takes what Lightning's prediction loop yields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from lis2_lightning.data import batch_number
from lis2_lightning.inference.job import Map, MapJob
from lis2_lightning.parallel.exchange import of_all_processes


class Predictions(pl.Callback):
    """Passes predictions on to a job, which makes one map of them; or collects one per sample.

    Attributes:
        job: What maps an image at the moment, or null.
    """

    def __init__(self) -> None:
        self.job: MapJob | None = None
        self._batches: dict[int, NDArray[np.float32]] = {}

    @property
    def maps(self) -> list[Map]:
        """What was collected: probabilities in [0, 1], ``(C, H, W)`` each."""
        return [map_ for number in sorted(self._batches) for map_ in self._batches[number]]

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget earlier predictions."""
        self._batches = {}

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Mapping[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take a batch, unless it is a filler."""
        if self.job is not None:
            self.job.add(outputs, batch, batch_idx)
            return
        number = batch_number(cast("DataLoader[Any]", trainer.predict_dataloaders), batch_idx)
        if number is not None:
            self._batches[number] = outputs.float().cpu().numpy()

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Combine the predictions of all processes."""
        if self.job is not None:
            self.job.end(trainer)
            return
        parts = of_all_processes(self._batches)
        self._batches = {number: maps for part in parts for number, maps in part.items()}
