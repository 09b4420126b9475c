"""Figures of the stitched map, in which each labelled pixel counts once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

from lis2_lightning.data import AnyDataset, TileDataset
from lis2_lightning.metrics import PixelMetrics, default_metrics
from lis2_lightning.parallel.exchange import of_all_processes
from lis2_lightning.tiling.rows import Band, RowStitcher

OF_MAP: Final = "map_"


class MapScores(nn.Module):
    """Average precision, Dice and ROC AUC of the map that overlapping tiles are blended to.

    The tiles of the image come in the order of its rows, from one process or in turn from several,
    whose tiles are stitched in the main one. Only the open rows are in memory. The truth is
    stitched along, so that no file is read a second time.

    Args:
        shape: Height and width of the image, px.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self._height, self._width = shape
        self._metrics = PixelMetrics(default_metrics())
        self._stitcher: RowStitcher | None = None
        self._device = torch.device("cpu")

    @classmethod
    def of(cls, dataset: AnyDataset | None) -> MapScores | None:
        """Those of a data set, or None where its samples are not the tiles of one image."""
        return cls(dataset.image_shape) if isinstance(dataset, TileDataset) else None

    @property
    def names(self) -> list[str]:
        """The keys of :meth:`compute`."""
        return [f"{OF_MAP}{name}" for name in self._metrics.names]

    def update(self, batch: Mapping[str, Tensor], probabilities: Tensor) -> None:
        """Add a batch, of which every process must have one."""
        self._device = probabilities.device
        corners = batch["corner"].cpu().numpy()
        for places, maps in of_all_processes((corners, _with_truth(batch, probabilities))):
            # other tiles cover no labelled pixel; so do fillers, which are out of order
            kept = maps[:, 2].any(axis=(1, 2, 3))
            if _is_main() and kept.any():
                self._add(places[kept], maps[kept])

    def compute(self) -> dict[str, Tensor]:
        """Each figure, a scalar, by ``map_<metric>``; every process must call it."""
        if self._stitcher is not None:
            self._count(self._stitcher.finish(self._height))
            self._stitcher = None
        return {f"{OF_MAP}{name}": value for name, value in self._metrics.compute().items()}

    def reset(self) -> None:
        """Forget all tiles."""
        self._metrics.reset()
        self._stitcher = None

    def _add(self, places: NDArray[np.integer], maps: NDArray[np.float32]) -> None:
        flat = maps.reshape(len(maps), -1, *maps.shape[3:])
        if self._stitcher is None:
            self._stitcher = RowStitcher(self._width, channels=flat.shape[1])
        self._count(self._stitcher.add(places, flat))

    def _count(self, bands: Iterable[Band]) -> None:
        for _, maps in bands:
            probabilities, target, labelled = np.split(maps, 3)
            known = labelled > 0  # false where no tile is, as NaN > 0 is
            pixels = (torch.from_numpy(values[known]) for values in (probabilities, target))
            self._metrics.update(*(values.to(self._device) for values in pixels))


def _with_truth(batch: Mapping[str, Tensor], probabilities: Tensor) -> NDArray[np.float32]:
    """Probabilities, truth and whether it is known, ``(B, 3, C, h, w)``."""
    target = batch["target"]
    labelled = batch.get("labelled", torch.ones_like(target))
    stacked = torch.stack([part.float() for part in (probabilities, target, labelled)], dim=1)
    maps: NDArray[np.float32] = stacked.cpu().numpy()
    return maps


def _is_main() -> bool:
    return not distributed.is_initialized() or distributed.get_rank() == 0
