"""The map that each run of a cross-validation leaves in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from lis2_lightning.base.files import atomic
from lis2_lightning.data import PatchDataset
from lis2_lightning.evaluation.fields import fields_of, mosaic
from lis2_lightning.parallel import is_main
from lis2_lightning.report.run_record import LOG, log_rows
from lis2_lightning.running.mapping import map_paths
from lis2_lightning.running.results import RESULT
from lis2_lightning.snapshots.describe import summary
from lis2_lightning.trainer import Trainer

BEST: Final = "best.pt"


@dataclass(frozen=True, slots=True)
class RunMaps:
    """What a run of a fold has made of the images."""

    fold: int
    seed: int
    threshold: float
    """The best one on its validation pixels."""
    paths: Sequence[Path]
    """The map of each image."""


def make_maps(trainer: Trainer, folder: Path) -> None:
    """Map every image with the best snapshot of a finished run, unless its maps are there.

    Raises:
        ConfigError: A file cannot be written.
        DataError: An image cannot be read.
    """
    if not (folder / BEST).is_file():
        return  # a trial of the loops keeps nothing
    dataset = trainer.data.test
    is_stored = isinstance(dataset, PatchDataset)
    images = [None] if is_stored else [field.image for field in fields_of(dataset)]
    paths = map_paths(folder, "prediction", images)
    if are_made(folder, paths):
        return
    if not isinstance(dataset, PatchDataset):
        trainer.predict(
            "best", output=map_paths(folder, "prediction", images[:1])[0], overwrite=True
        )
        return
    maps = trainer.predict("best", output=folder / "patches.npy", overwrite=True)
    if is_main():
        with atomic(paths[0]) as file:
            np.save(file, mosaic(dataset, (np.asarray(map_) for map_ in maps)))
        (folder / "patches.npy").unlink()


def are_made(folder: Path, paths: Sequence[Path]) -> bool:
    """Whether the maps of a run are there, and of its best snapshot of now."""
    if not (folder / BEST).is_file():
        return False
    trained = (folder / BEST).stat().st_mtime_ns
    return all(path.exists() and path.stat().st_mtime_ns >= trained for path in paths)


def is_over(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether a run is over with its epochs of now, or early.

    The result of a run that was over before it went on, and was killed then, is still there.
    """
    if not (folder / RESULT).is_file():
        return False
    if any((config["lightning"] or {}).get(limit) for limit in ("max_steps", "max_time")):
        return True  # it may have ended before its epochs
    record = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    done = record["info"]["epochs_run"]
    went_on = len(log_rows(folder / LOG)) > done
    return not went_on and bool(done >= config["epochs"] or record["stopped_early"])


def threshold_of(snapshot: Path) -> float:
    """Where the maps of a snapshot are cut: best on validation pixels, or one half."""
    threshold = summary(snapshot)["threshold"]
    return 0.5 if threshold is None else float(threshold)
