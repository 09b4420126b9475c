"""Predicting a whole image: tiles through Lightning's loop, stitched as they come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lis2_lightning.inference.stitch import Stitcher

Map = NDArray[np.float32]


class Segmenter(pl.Callback):
    """Collects what ``predict`` gives: one map of an image, or a map for each patch.

    A batch that says where its tiles lie (``corner``) is stitched as it comes, so that memory
    grows with the image and not with the overlap of its tiles.

    Args:
        shape: Height and width of the image in pixels, or null for separate patches.
    """

    def __init__(self, shape: tuple[int, int] | None) -> None:
        self.shape = shape
        self._stitcher: Stitcher | None = None
        self._patches: list[Map] = []

    @property
    def maps(self) -> list[Map]:
        """Probabilities in [0, 1], ``(C, H, W)`` each; NaN where no tile lay."""
        return self._patches if self._stitcher is None else [self._stitcher.result()]

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with nothing."""
        self._stitcher, self._patches = None, []

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Mapping[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take in a batch."""
        if self.shape is None or "corner" not in batch:
            self._patches.extend(outputs.float().cpu().numpy())
            return
        if self._stitcher is None:
            self._stitcher = Stitcher(self.shape, channels=outputs.shape[1])
        self._stitcher.add(batch["corner"].cpu().numpy(), outputs)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add up what several processes have stitched."""
        if trainer.world_size > 1 and self._stitcher is not None:
            sums = torch.from_numpy(self._stitcher.sums).to(pl_module.device)
            total = trainer.strategy.reduce(sums, reduce_op="sum")
            self._stitcher.sums = total.cpu().numpy()
