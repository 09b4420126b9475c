"""One image on its way through a network: tiles are dealt out, and come back as rows of a map."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lis2_lightning.base.files import shown
from lis2_lightning.data import Raster, TileDataset, open_raster
from lis2_lightning.data.datamodule import Deal
from lis2_lightning.data.identity import identity
from lis2_lightning.data.rasters.contract import LazyArray
from lis2_lightning.data.rasters.padded import unpadded
from lis2_lightning.errors import ConfigError
from lis2_lightning.inference.digest import digest_of
from lis2_lightning.inference.map_files import MapFiles, MapRequest
from lis2_lightning.inference.scratch import Rows, RowsInMemory, RowsOnDisk
from lis2_lightning.parallel.exchange import of_all_processes
from lis2_lightning.tiling import Areas, Blocks
from lis2_lightning.tiling.rows import Band, Blend, RowStitcher
from lis2_lightning.training.module import SegmentationModule

Map = NDArray[np.float32] | LazyArray
"""Probabilities, ``(C, H, W)``: an array, or what reads them from a file like one."""
_log = logging.getLogger("lis2_lightning")


class MapJob:
    """Maps an image; memory is that of the open rows of tiles, if there is a file to write.

    Several processes map contiguous rows each. What they share, the tiles that reach over an edge,
    each of them maps for itself: no pixel passes between them.

    Args:
        tiles: All tiles of the image.
        request: Where the map goes.
        channels: Those of all maps that the network makes.
        num_networks: How many networks it is made of, which are averaged.
        batch_size: Tiles in a batch of one process.
        blend: How overlapping tiles are averaged.

    Raises:
        ConfigError: A file cannot or must not be written.
    """

    def __init__(
        self,
        tiles: TileDataset,
        request: MapRequest,
        *,
        channels: int,
        num_networks: int = 1,
        batch_size: int,
        blend: Blend = "hann",
    ) -> None:
        self.tiles = tiles
        self.request = request
        self.image = unpadded(tiles.image)
        self.num_networks = num_networks
        num_maps = 1 if request.spread is None else 2
        self.shape = (channels // num_networks * num_maps, *self.image.shape[1:])
        self.channels = channels
        self.blend: Blend = blend
        lattice = Areas.cut(tiles.image_shape, size=None).lattice(tiles.size, tiles.stride)
        self.blocks = Blocks(lattice, batch_size)
        self.files = MapFiles(request, self.shape, self.image)
        self.rows: Rows = self.files.rows or RowsInMemory(self.shape)
        self._threshold: float | None = None
        self._bottom = 0  # of the rows of this process
        self._top = 0  # of those that are not there yet
        self._num_batches = 0
        self._stitcher = RowStitcher(0, channels=channels)

    def deal(self, trainer: pl.Trainer) -> Deal:
        """The tiles that this process is to map, by batches.

        All processes get equally many, and at least one: what one has too few is a filler.

        Raises:
            ConfigError: The snapshot has no threshold, or a file exists.
        """
        rank, num_processes = trainer.global_rank, trainer.world_size
        digest = digest_of(*self._origin(trainer))
        self._threshold = self._chosen_threshold(cast("Any", trainer).lightning_module)
        if isinstance(self.rows, RowsOnDisk) and not self.rows.is_begun(digest):
            self.request.check_new()
        height, width = self.tiles.image_shape
        share = self.blocks.share(rank, num_processes)
        share = min(share[0], self.shape[1]), min(share[1], self.shape[1])
        self._top, self._bottom = self.rows.begin(digest, share, rank), share[1]
        batches = self.blocks.batches(self._top, self._bottom)
        first = self.blocks.top_of(batches[0]) if batches else self._bottom
        self._stitcher = RowStitcher(width, channels=self.channels, blend=self.blend, top=first)
        self._num_batches = len(batches)
        num_all = len(self.blocks.batches(*share))
        done = 1 - len(batches) / num_all if num_all else 0.0
        if done:
            _log.info("going on: %.0f %% of the rows are there already", 100 * done)
        filler = batches[-1:] or self.blocks.batches(0, height)[:1]
        most = max(1, *of_all_processes(len(batches)))
        return Deal(batches + filler * (most - len(batches)), done)

    def add(self, probabilities: Tensor, batch: Mapping[str, Tensor], number: int) -> None:
        """Take the maps of a batch, ``(B, C, h, w)``; of a filler, nothing."""
        if number >= self._num_batches:
            return
        if "gaps" in batch:
            probabilities = probabilities.masked_fill(batch["gaps"], torch.nan)
        self._write(self._stitcher.add(batch["corner"].cpu().numpy(), probabilities.cpu().numpy()))

    def end(self, trainer: pl.Trainer) -> None:
        """Write the files, when all processes have finished their rows.

        Raises:
            DataError: A file cannot be written.
        """
        self._write(self._stitcher.finish(self._bottom))
        self.rows.end()
        if trainer.is_global_zero:
            snapshot = None if trainer.ckpt_path is None else Path(trainer.ckpt_path).name
            num_gaps = self.files.write(self.rows, self._threshold, snapshot)
            gaps = f"; NaN at {num_gaps} pixels, where the image has no data" if num_gaps else ""
            for path in self.request.paths:
                _log.info("the %s is in %s%s", self._what(path), shown(path), gaps)
        trainer.strategy.barrier()
        if trainer.is_global_zero and isinstance(self.rows, RowsOnDisk):
            self.rows.remove()

    def _what(self, path: Path) -> str:
        """What a file of the map holds, in words."""
        if path == self.request.mask:
            return f"mask, cut at {self._threshold:.3g},"
        return "spread of the networks" if path == self.request.spread else "map"

    def result(self) -> Map:
        """The map, ``(C, H, W)``: in memory, or read from its file when it is asked for."""
        if isinstance(self.rows, RowsInMemory):
            return self.rows.values
        return cast("LazyArray", open_raster(cast("Path", self.request.output)))

    def _write(self, bands: list[Band]) -> None:
        """Keep those rows of the image that belong to this process and are not there yet."""
        for top, band in bands:
            first = max(self._top - top, 0)
            last = self._bottom - top
            if first < min(last, band.shape[1]):
                self.rows.write(top + first, self._joined(band[:, first:last, : self.shape[2]]))

    def _joined(self, band: NDArray[np.float32]) -> NDArray[np.float32]:
        """The mean of the maps of all networks, and their standard deviation if it is wanted."""
        if self.num_networks == 1:
            return band
        maps = band.reshape(self.num_networks, -1, *band.shape[1:])
        parts = [maps.mean(axis=0, dtype=np.float64)]
        if self.request.spread is not None:
            parts.append(maps.std(axis=0, dtype=np.float64))
        return np.concatenate(parts).astype(np.float32)

    def _chosen_threshold(self, module: SegmentationModule) -> float | None:
        if self.request.mask is None or self.request.threshold != "auto":
            return None if self.request.threshold == "auto" else float(self.request.threshold)
        if module.threshold is None:
            raise ConfigError(
                "the snapshot has no threshold, because its run had no validation: set threshold "
                "to a number, such as 0.5"
            )
        return module.threshold

    def _sources(self) -> Iterator[Raster]:
        """The image, and the map of its missing data."""
        yield self.image
        for tiles in self.tiles.tiled_images:
            if tiles.truth.missing is not None:
                yield unpadded(tiles.truth.missing)

    def _origin(self, trainer: pl.Trainer) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
        """All that the bytes of the map follow from: plain values, and the network's weights."""
        tiles = self.tiles
        if self.request.output is None:
            return {}, {}  # nothing of it can go on
        module: SegmentationModule = cast("Any", trainer).lightning_module
        options = {
            "images": [identity(raster) for raster in self._sources()],
            "shape": self.shape,
            "tiles": [tiles.size, tiles.stride, tiles.normalization, self.blocks.batch_size],
            "augmentations": [[type(a).__name__, vars(a)] for a in tiles.data_augmentations],
            "blend": self.blend,
            "tta": module.tta,
            "logits": module.loss.expects_logits,
            "files": [str(path.absolute()) for path in self.request.paths],
            "arithmetic": [trainer.precision, trainer.strategy.root_device.type],
            "processes": trainer.world_size,
        }
        return options, module.model.state_dict()
