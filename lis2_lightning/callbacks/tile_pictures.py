"""Pictures of a few validation tiles, for trackers that show how they change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from numpy.typing import NDArray
from torch import Tensor

from lis2_lightning.callbacks.run_folder import is_trial
from lis2_lightning.trackers.journal_logger import JournalLogger
from lis2_lightning.training.module import SegmentationModule

_TILES: Final = 4
_PICTURES: Final = 10  # TensorBoard keeps as many
_SIDE: Final = 256  # px of a tile that are shown


class TilePictures(pl.Callback):
    """Draws image, truth and probability of a few validation tiles, about 10 times a run.

    They are those of the first batch with the most positive pixels, and are drawn for a
    TensorBoard tracker only. They go through the network once more, for Lightning's validation
    keeps no output.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw tiles of the first batch."""
        loggers = [
            logger
            for logger in trainer.loggers
            if isinstance(logger, JournalLogger) and logger.name.startswith("tensorboard")
        ]
        if not loggers or batch_idx != 0 or batch["patch"].ndim != 4 or not _is_due(trainer):
            return
        path = Path("trackers") / "tiles" / f"epoch_{trainer.current_epoch:04}.png"
        panels = _panels(cast("SegmentationModule", pl_module), batch)
        _write_png(self.folder / path, panels)
        for logger in loggers:
            logger.add("file", path=str(path), tag="tiles", step=trainer.current_epoch)


def _is_due(trainer: pl.Trainer) -> bool:
    if trainer.state.fn != TrainerFn.FITTING or is_trial(trainer) or not trainer.is_global_zero:
        return False
    every = max(1, math.ceil((trainer.max_epochs or 1) / _PICTURES))
    return trainer.current_epoch % every == 0


def _panels(module: SegmentationModule, batch: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Image, truth and probability beside each other, a row for each tile, grey values."""
    positive = batch["target"].flatten(1).sum(1)
    chosen = positive.argsort(descending=True, stable=True)[:_TILES]
    few = {key: value[chosen] for key, value in batch.items() if isinstance(value, Tensor)}
    with torch.no_grad():
        probability = module.probabilities(module(few))
    shown = [few["patch"], few["target"], probability]
    tiles = [tile[:, 0, :_SIDE, :_SIDE].float().cpu().numpy() for tile in shown]
    tiles[0] = _stretched(tiles[0])
    rows = np.concatenate([np.pad(tile, ((0, 0), (1, 1), (1, 1))) for tile in tiles], axis=2)
    grey = np.nan_to_num(255 * rows.clip(0, 1), nan=0.0)
    pixels: NDArray[np.uint8] = grey.reshape(-1, grey.shape[-1]).round().astype(np.uint8)
    return pixels


def _stretched(tiles: NDArray[Any]) -> NDArray[Any]:
    finite = np.where(np.isfinite(tiles), tiles, 0)
    low = finite.min(axis=(1, 2), keepdims=True)
    high = finite.max(axis=(1, 2), keepdims=True)
    stretched: NDArray[Any] = (finite - low) / np.maximum(high - low, 1e-12)
    return stretched


def _write_png(path: Path, grey: NDArray[np.uint8]) -> None:
    from PIL import Image  # noqa: PLC0415 - it comes with matplotlib, and only this needs it

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey).save(path, format="PNG", compress_level=1)
