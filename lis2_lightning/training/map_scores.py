"""Figures of the stitched map, in which each labelled pixel counts once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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

    The tiles of each image come in the order of its rows, from one process or in turn from several,
    whose tiles are stitched in the main one. Only the open rows are in memory. The truth is
    stitched along, so that no file is read a second time.

    Args:
        shapes: Height and width of each image, px.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self._shapes = shapes
        self._image = 0  # the number of the one that is stitched
        self._metrics = PixelMetrics(default_metrics())
        self._stitcher: RowStitcher | None = None
        self._device = torch.device("cpu")

    @classmethod
    def of(cls, dataset: AnyDataset | None) -> MapScores | None:
        """Those of a data set, or None where its samples are not the tiles of images in order."""
        if not isinstance(dataset, TileDataset):
            return None
        return cls([image.shape[1:] for image in dataset.images])

    @property
    def names(self) -> list[str]:
        """The keys of :meth:`compute`."""
        return [f"{OF_MAP}{name}" for name in self._metrics.names]

    def update(self, batch: Mapping[str, Tensor], probabilities: Tensor) -> None:
        """Add a batch, of which every process must have one."""
        self._device = probabilities.device
        corners = batch["corner"]
        images = batch.get("image", torch.zeros_like(corners[:, 0]))
        own = images.cpu().numpy(), corners.cpu().numpy(), _with_truth(batch, probabilities)
        for numbers, places, maps in of_all_processes(own):
            # other tiles cover no labelled pixel; so do fillers, which are out of order
            labelled = maps[:, 2].any(axis=(1, 2, 3)) & _is_main()
            for image in np.unique(numbers[labelled]).tolist():
                chosen = labelled & (numbers == image)
                self._add(image, places[chosen], maps[chosen])

    def compute(self) -> dict[str, Tensor]:
        """Each figure, a scalar, by ``map_<metric>``; every process must call it."""
        self._finish()
        return {f"{OF_MAP}{name}": value for name, value in self._metrics.compute().items()}

    def reset(self) -> None:
        """Forget all tiles."""
        self._metrics.reset()
        self._stitcher = None

    def _finish(self) -> None:
        """Count the rows of the image that are still open."""
        if self._stitcher is not None:
            height, _ = self._shapes[self._image]
            self._count(self._stitcher.finish(height))
            self._stitcher = None

    def _add(self, image: int, places: NDArray[np.integer], maps: NDArray[np.float32]) -> None:
        flat = maps.reshape(len(maps), -1, *maps.shape[3:])
        if image != self._image:
            self._finish()
        if self._stitcher is None:
            _, width = self._shapes[image]
            self._image, self._stitcher = image, RowStitcher(width, channels=flat.shape[1])
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
