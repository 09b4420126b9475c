"""Maps of many runs as one: each pixel from the run that did not train on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data import Raster, open_raster
from lis2_lightning.errors import DataError
from lis2_lightning.evaluation.area_scores import AreaScores
from lis2_lightning.evaluation.fields import Field
from lis2_lightning.evaluation.run_maps import RunMaps
from lis2_lightning.inference.map_formats import new_map
from lis2_lightning.inference.written import BAND, NewMap, Write
from lis2_lightning.tiling import Tile

Floats = NDArray[np.float32]


def seeds_of(runs: Sequence[RunMaps]) -> list[int]:
    """The seeds, in their order."""
    return list(dict.fromkeys(run.seed for run in runs))


def gather(
    fields: Sequence[Field], runs: Sequence[RunMaps], paths: Sequence[Path] | None
) -> tuple[dict[int, AreaScores], AreaScores]:
    """Write the out-of-fold map of each image, and score all labelled pixels, once each.

    Memory is that of a band of rows for each fold.

    Args:
        fields: The images.
        runs: Runs of every fold, with one seed or several.
        paths: The file to write for each image; the mean where there are several seeds. Null to
            write none.

    Returns:
        The scores by seed, and those of the map in the files.

    Raises:
        DataError: A map cannot be read, or is NaN where a pixel is labelled.
    """
    num_areas = sum(field.folds.size for field in fields)
    by_seed = {seed: AreaScores(num_areas) for seed in seeds_of(runs)}
    of_map = AreaScores(num_areas)
    begin = 0
    for number, field in enumerate(fields):
        maps = [open_raster(run.paths[number]) for run in runs]
        with ExitStack() as stack:
            write: Write | None = None
            if paths is not None:
                new = _new_map(field, maps[0], num_folds=len(runs) // len(by_seed))
                write = stack.enter_context(new_map(paths[number], new))
            for tile, probs, thresholds in _bands(field, runs, maps):
                mean = np.stack(list(probs.values())).mean(axis=0, dtype=np.float64)
                mean = np.asarray(mean, np.float32)
                if write is not None:
                    write(tile.top, mean[0] if len(mean) == 1 else mean)
                known = _Known.of(field, tile, [run.fold for run in runs], begin)
                for seed, scores in by_seed.items():
                    known.score(scores, probs[seed], thresholds[seed])
                known.score(of_map, mean, np.mean(list(thresholds.values()), axis=0))
        begin += field.folds.size
    return by_seed, of_map


def _new_map(field: Field, map_: Raster, *, num_folds: int) -> NewMap:
    channels = map_.shape[0]
    shape = field.shape if channels == 1 else (channels, *field.shape)
    facts = {"FOLDS": (num_folds, "each pixel from the run not trained on it")}
    return NewMap(shape, np.dtype(np.float32), field.image, facts=facts)


def _bands(
    field: Field, runs: Sequence[RunMaps], maps: Sequence[Raster]
) -> Iterator[tuple[Tile, dict[int, Floats], dict[int, NDArray[np.float64]]]]:
    """Rows of the image, with probabilities, ``(C, rows, W)``, and thresholds by seed."""
    height = field.shape[0]
    channels = maps[0].shape[0]
    for top in range(0, height, BAND):
        tile = field.band(top, min(top + BAND, height))
        fold = field.of_pixels(field.folds, tile)
        shape = (channels, *fold.shape)
        probs = {seed: np.full(shape, np.nan, np.float32) for seed in seeds_of(runs)}
        thresholds = {seed: np.full(fold.shape, 0.5) for seed in probs}
        for run, map_ in zip(runs, maps, strict=True):
            here = fold == run.fold
            if here.any():
                probs[run.seed][:, here] = map_.read(tile)[:, here]
                thresholds[run.seed][here] = run.threshold
        yield tile, probs, thresholds


@dataclass(frozen=True, eq=False)
class _Known:
    """The truth of some rows, and the areas of their labelled pixels."""

    tile: Tile
    labelled: NDArray[np.bool_]
    positive: NDArray[np.bool_]
    areas: NDArray[np.int64]

    @classmethod
    def of(cls, field: Field, tile: Tile, folds: Sequence[int], begin: int) -> _Known:
        """Read it, in these folds; the areas of the image are numbered from ``begin``."""
        target, labelled = field.read(tile)
        labelled = labelled & np.isin(field.of_pixels(field.folds, tile), folds)
        areas = np.broadcast_to(field.areas_of_pixels(tile, begin), labelled.shape)
        return cls(tile, labelled, target[labelled] > 0.5, areas[labelled])

    def score(self, scores: AreaScores, probs: Floats, thresholds: NDArray[np.float64]) -> None:
        """Add the labelled pixels to scores."""
        values = probs[self.labelled]
        if np.isnan(values).any():
            raise DataError(
                f"the out-of-fold map has no probability at a labelled pixel between rows "
                f"{self.tile.top} and {self.tile.bottom}: the network gives NaN there"
            )
        is_cut = probs >= thresholds.astype(np.float32)
        scores.add(self.areas, values, is_cut[self.labelled], self.positive)


def folds_of_areas(fields: Sequence[Field]) -> NDArray[np.intp]:
    """The fold of each area of all images, in the order in which they are numbered."""
    return np.concatenate([field.folds.reshape(-1) for field in fields])
