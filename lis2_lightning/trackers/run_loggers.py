"""The loggers of a run: made from its trackers, and closed together."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from lis2_lightning.errors import ConfigError
from lis2_lightning.trackers.adapter import Status
from lis2_lightning.trackers.csv_rows import CsvRows
from lis2_lightning.trackers.journal import Journal
from lis2_lightning.trackers.journal_logger import JournalLogger
from lis2_lightning.trackers.tracker import CsvLogger, Tracker

CLOSE_S = 60.0  # how long the end of a run waits for all trackers together


def start_all(
    trackers: Sequence[Tracker | Logger], plain: Sequence[Any], run_dir: Path, run_name: str
) -> list[Logger]:
    """Make every logger of a run; the first writes ``logs_train.csv``.

    Args:
        trackers: The configured trackers.
        plain: The same as plain values, as far as a configuration names them.
        run_dir: The run's folder.
        run_name: The run's name.

    Raises:
        ConfigError: A package is missing.
    """
    csv = next((tracker for tracker in trackers if isinstance(tracker, CsvLogger)), CsvLogger())
    loggers: list[Logger] = [CsvRows(Path(csv.output_run or run_dir) / "logs_train.csv")]
    names: list[str] = []
    for tracker, values in zip(trackers, chain(plain, repeat(None)), strict=False):
        if isinstance(tracker, CsvLogger):
            continue
        logger = journal_logger(tracker, values, run_dir, run_name)
        names.append(logger.name)
        if (number := names.count(logger.name)) > 1:
            logger.journal = Journal(logger.journal.path.with_stem(f"{logger.name}-{number}"))
        loggers.append(logger)
    return loggers


def journal_logger(
    tracker: Tracker | Logger, plain: Any, run_dir: Path, run_name: str
) -> JournalLogger:
    """Put a journal before a service or a Lightning logger.

    Args:
        tracker: The tracker.
        plain: The ``class_path`` and ``init_args`` of a logger that a configuration names.
        run_dir: The run's folder.
        run_name: The run's name.

    Raises:
        ConfigError: A package is missing, or the logger has a journal already.
    """
    if isinstance(tracker, JournalLogger):
        raise ConfigError("trackers cannot contain a JournalLogger: pass the tracker or its logger")
    name = type(tracker).__name__.lower()
    journal = Journal(run_dir / "trackers" / f"{name}.jsonl")
    if isinstance(tracker, Tracker):
        if find_spec(name) is None:
            raise ConfigError(f"tracker {name!r} needs the package {name}: pip install {name}")
        start = {"service": name, "options": vars(tracker), "run_name": run_name}
        return JournalLogger(journal, start, is_local=tracker.is_local)
    is_named = isinstance(plain, Mapping) and "class_path" in plain
    start = {"service": "lightning", "options": plain} if is_named else {"service": "object"}
    return JournalLogger(journal, {"options": {}, **start, "run_name": run_name}, tracker)


def close_all(loggers: Iterable[JournalLogger], status: Status) -> None:
    """End a run at every tracker, in a bounded time for all of them together."""
    started = [logger for logger in loggers if logger.is_started]
    for logger in started:
        logger.end(status)
    deadline = time.monotonic() + CLOSE_S
    for logger in started:
        logger.wait(deadline)
        logger.report()
