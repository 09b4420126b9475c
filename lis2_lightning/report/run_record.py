"""A run's folder as its page needs it: every file that is there, read once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from numpy.typing import NDArray

from lis2_lightning.base.files import shown
from lis2_lightning.base.records import Record, read_records
from lis2_lightning.callbacks.run_events import EVENTS
from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.metrics.histogram import NUM_CODES, Confusion, confusion
from lis2_lightning.report.map_view import MapView, damaged, read_arrays
from lis2_lightning.trackers.csv_rows import read_rows
from lis2_lightning.trackers.journal import Journal

Row = dict[str, float | None]
LOG: Final = "logs_train.csv"
SPLIT_NAMES: Final = {"train": "training", "val": "validation", "test": "test"}
SCORES: Final = "test_results.npz"
# what is used of each kind of event; others are passed over, as those that lack something
_FIELDS: Final = {
    "start": {"epoch", "batch", "data"},
    "epoch": {"epoch", "seconds"},
    "warning": {"text"},
    "stopped": {"reason"},
}


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a run's folder says; what a file that is not there would say is empty or null."""

    folder: Path
    name: str
    config: dict[str, Any]
    environment: dict[str, Any]
    result: dict[str, Any]
    rows: list[Row]
    """Of each epoch, as in ``logs_train.csv``."""
    events: list[Record]
    trackers: list[dict[str, Any]]
    """Name, rows that have not arrived, and the last error of each."""
    files: list[tuple[str, int]]
    """Name and size of each, bytes; a folder counts with all in it."""
    histogram: NDArray[np.int64] | None
    """The scores of the test pixels."""
    threshold: float | None
    """That of the validation pixels."""
    view: MapView | None

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """Read a run's folder.

        Raises:
            ConfigError: It is none, or its log is damaged.
            DataError: Another file of it is damaged.
        """
        if not folder.is_dir():
            raise ConfigError(f"{shown(folder)} is no folder: name the folder of a run")
        config = _mapping(folder / "config.yaml")
        if not config and not (folder / LOG).is_file():
            raise ConfigError(
                f"{shown(folder)} is no folder of a run: it has neither config.yaml nor {LOG}"
            )
        histogram, threshold = _scores(folder / SCORES)
        return cls(
            folder=folder,
            name=folder.resolve().name,
            config=config,
            environment=_mapping(folder / "environment.json"),
            result=_mapping(folder / "result.json"),
            rows=log_rows(folder / LOG),
            events=list(_events(folder / EVENTS)),
            trackers=list(_trackers(folder)),
            files=sorted(_files(folder)),
            histogram=histogram,
            threshold=threshold,
            view=MapView.load(folder),
        )

    @property
    def scores(self) -> dict[str, float]:
        """The scores of the test set, by name."""
        info = self.result.get("info")
        scores = info.get("metrics_test") if isinstance(info, Mapping) else None
        return dict(scores) if isinstance(scores, Mapping) else {}

    @property
    def monitor(self) -> str:
        """What the best snapshot follows."""
        return str(self.config.get("monitor", "train_loss"))

    @property
    def cut(self) -> float:
        """Where the mask is cut: the threshold, or 0.5 where none was chosen."""
        return 0.5 if self.threshold is None else self.threshold

    @property
    def map_path(self) -> Path | None:
        """The run's own map; null where it has none."""
        paths = (self.folder / f"prediction{suffix}" for suffix in (".fits", ".npy"))
        return next((path for path in paths if path.is_file()), None)

    @property
    def confusion(self) -> Confusion | None:
        """The counts of the test pixels at the threshold."""
        return None if self.histogram is None else confusion(self.histogram, self.cut)

    def of_kind(self, kind: str) -> list[Record]:
        """The events of one kind, in order."""
        return [record for record in self.events if record["kind"] == kind]

    @property
    def seconds(self) -> dict[int, float]:
        """How long each epoch took; the last time where it was trained again."""
        return {int(e["epoch"]): float(e["seconds"]) for e in self.of_kind("epoch")}


def log_rows(path: Path) -> list[Row]:
    """The rows of a log as numbers; what is empty is null.

    Raises:
        ConfigError: The file is damaged.
    """
    _, rows = read_rows(path)
    try:
        return [{key: float(v) if v else None for key, v in row.items()} for row in rows]
    except ValueError as error:
        raise ConfigError(
            f"{shown(path)} is no log of a run, or is damaged ({error}): repair it, or move it "
            "elsewhere"
        ) from error


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """The leaves of nested mappings and lists as text, by dotted names; null ones are left out.

    >>> flat({"model": {"class_path": "a.UNet", "init_args": {"features": 8, "dim": None}}})
    {'model': 'a.UNet', 'model.features': '8'}
    """
    leaves: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if (key == "class_path" and prefix) or (key == "init_args" and prefix):
            name = prefix
        if isinstance(value, Mapping):
            leaves |= flat(value, name)
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            leaves |= flat({str(i): item for i, item in enumerate(value)}, name)
        elif value is not None:
            leaves[name] = str(value)
    return leaves


def _mapping(path: Path) -> dict[str, Any]:
    """The mapping of a YAML or JSON file; empty where there is no file."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise damaged(path, error) from error
    if not isinstance(value, dict):
        raise DataError(f"{shown(path)} is damaged (no mapping): restore it, or remove it")
    return value


def _scores(path: Path) -> tuple[NDArray[np.int64] | None, float | None]:
    if not path.is_file():
        return None, None
    arrays = read_arrays(path)
    try:
        histogram, threshold = arrays["histogram"], float(arrays["threshold"])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise damaged(path, error) from error
    if histogram.shape != (2, NUM_CODES):
        raise damaged(path, ValueError(f"{histogram.shape} is no histogram of this version"))
    return histogram, None if np.isnan(threshold) else threshold


def _events(path: Path) -> Iterator[Record]:
    for record, _ in read_records(path):
        fields = _FIELDS.get(str(record["kind"]))
        if fields is not None and fields | {"time"} <= record.keys():
            yield record


def _trackers(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((folder / "trackers").glob("*.jsonl")):
        journal = Journal(path)
        yield {"name": journal.name, "left": journal.rows_left(), "error": journal.mark().error}


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    for path in folder.iterdir():
        if path.is_dir():
            sizes = (file.stat().st_size for file in path.rglob("*") if file.is_file())
            yield f"{path.name}/", sum(sizes)
        elif path.is_file() and not path.name.startswith("."):
            yield path.name, path.stat().st_size
