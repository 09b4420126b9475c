"""Prediction of a whole image: tiles pass Lightning's loop and are stitched on arrival."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from lis2_lightning.data import Raster, batch_number, has_data
from lis2_lightning.inference.stitch import Stitcher
from lis2_lightning.parallel.exchange import of_all_processes, summed
from lis2_lightning.tiling import Tile

Map = NDArray[np.float32]
STRIP = 256  # rows of the image looked at together


class Segmenter(pl.Callback):
    """Collects predictions: one map of an image, or one map per patch if ``image`` is None.

    Batches with tile positions (``corner``) are stitched on arrival, so that memory grows with the
    image, not with the overlap of tiles.
    """

    def __init__(self, image: Raster | None) -> None:
        self.image = image
        self._stitcher: Stitcher | None = None
        self._batches: dict[int, Sequence[Map]] = {}

    @property
    def maps(self) -> list[Map]:
        """Probabilities in [0, 1], ``(C, H, W)`` each; NaN where there was no tile or no data."""
        if self._stitcher is not None and self.image is not None:
            return [without_gaps(self._stitcher.result(), self.image)]
        return [map_ for number in sorted(self._batches) for map_ in self._batches[number]]

    def take(self, maps: Sequence[Map]) -> None:
        """Use the :attr:`maps` of another process."""
        self._stitcher, self._batches = None, {0: maps}

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget earlier predictions."""
        self._stitcher, self._batches = None, {}

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Mapping[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a batch, unless it is a filler."""
        number = batch_number(cast("DataLoader[Any]", trainer.predict_dataloaders), batch_idx)
        if number is None:
            return
        if self.image is None or "corner" not in batch:
            self._batches[number] = outputs.float().cpu().numpy()
            return
        stitcher = self._stitcher_of(outputs.shape[1])
        stitcher.add(batch["corner"].cpu().numpy(), outputs)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Combine the predictions of all processes."""
        channels = of_all_processes(None if self._stitcher is None else self._stitcher.channels)
        known = next((number for number in channels if number is not None), None)
        if known is None:
            parts = of_all_processes(self._batches)
            self._batches = {number: maps for part in parts for number, maps in part.items()}
        elif trainer.world_size > 1:
            stitcher = self._stitcher_of(known)  # this process may have had no tile
            sums = torch.from_numpy(stitcher.sums).to(pl_module.device)
            stitcher.sums = summed(sums).cpu().numpy()

    def _stitcher_of(self, channels: int) -> Stitcher:
        if self._stitcher is None:
            _, height, width = cast("Raster", self.image).shape
            self._stitcher = Stitcher((height, width), channels=channels)
        return self._stitcher


def without_gaps(probabilities: Map, image: Raster) -> Map:
    """Set a map, ``(C, H, W)``, to NaN where its image has no data; strip by strip, in place."""
    _, height, width = image.shape
    for top in range(0, height, STRIP):
        strip = Tile(top, 0, min(STRIP, height - top), width)
        gaps = ~has_data(image.read(strip))[0]
        probabilities[:, strip.rows][:, gaps] = np.nan
    return probabilities
