"""``events.jsonl``: what happened to a run, beside its numbers, which must not depend on it."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, cast

import lightning.pytorch as pl

from lis2_lightning.base.position import batches_done, goes_on_inside_epoch
from lis2_lightning.base.records import append_record
from lis2_lightning.callbacks.run_folder import is_trial
from lis2_lightning.data import AnyDataset, Raster, tile_parts
from lis2_lightning.data.identity import identity
from lis2_lightning.data.open_raster import same_image
from lis2_lightning.errors import one_line

EVENTS: Final = "events.jsonl"
_log = logging.getLogger("lis2_lightning")


class RunEvents(pl.Callback):
    """Notes each start with its data, and how long each epoch took.

    Args:
        folder: The run's folder.
        datasets: What is trained, validated and tested on, by the name of the split.
    """

    def __init__(self, folder: Path, datasets: Mapping[str, AnyDataset | None]) -> None:
        self.path = folder / EVENTS
        self._datasets = datasets
        self._begun = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note where the run starts, and on what."""
        self._begun = time.perf_counter()
        self._add(
            trainer,
            "start",
            epoch=trainer.current_epoch,
            batch=batches_done(trainer) if goes_on_inside_epoch(trainer) else 0,
            processes=trainer.world_size,
            data=described(self._datasets),
        )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._begun = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note how long the epoch took, with its validation."""
        seconds = round(time.perf_counter() - self._begun, 3)
        self._add(trainer, "epoch", epoch=trainer.current_epoch, seconds=seconds)

    def _add(self, trainer: pl.Trainer, kind: str, **values: Any) -> None:
        if trainer.is_global_zero and not is_trial(trainer):
            _note(self.path, kind, **values)


@contextmanager
def events_noted(folder: Path) -> Iterator[None]:
    """Note this package's warnings, and what ended a run before its time."""
    handler = _Warnings(folder / EVENTS)
    _log.addHandler(handler)
    try:
        yield
    except BaseException as error:
        if handler.path.is_file():  # otherwise it has not begun
            _note(handler.path, "stopped", reason=one_line(error) or type(error).__name__)
        raise
    finally:
        _log.removeHandler(handler)


class _Warnings(logging.Handler):
    def __init__(self, path: Path) -> None:
        super().__init__(logging.WARNING)
        self.path = path

    def emit(self, record: logging.LogRecord) -> None:
        _note(self.path, "warning", text=record.getMessage())


def _note(path: Path, kind: str, **values: Any) -> None:
    # a full disk or a folder that is gone is reported by what cannot do without it
    with suppress(OSError):
        append_record(path, kind, **values)


def described(datasets: Mapping[str, AnyDataset | None]) -> dict[str, Any]:
    """Data sets in plain values; an image that several of them share is read once."""
    digests: list[tuple[Raster, str]] = []

    def digest(image: Raster) -> str:
        for known, text in digests:
            if same_image(known, image):
                return text
        digests.append((image, _digest(identity(image))))
        return digests[-1][1]

    return {name: _described(d, digest) for name, d in datasets.items() if d is not None}


def _described(dataset: AnyDataset, digest: Callable[[Raster], str]) -> dict[str, Any]:
    """Class, number of samples, and the images of a data set."""
    images = [tiled for part, _ in tile_parts(dataset) for tiled in part.tiled_images]
    return {
        "class": type(dataset).__name__,
        "samples": len(cast("Sized", dataset)),
        "images": [
            {
                "source": tiled.image.source,
                "shape": list(tiled.image.shape),
                "size": tiled.lattice.size,
                "digest": digest(tiled.image),
                "without_data": tiled.num_without_data,
            }
            for tiled in images
        ],
    }


def _digest(values: list[Any]) -> str:
    """Sixteen digits of the SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
