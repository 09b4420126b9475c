"""The trackers a configuration can name, and the loggers they become once the run is known."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from lis2_lightning.errors import ConfigError
from lis2_lightning.trackers.csv_rows import CsvRows
from lis2_lightning.trackers.journal import Journal
from lis2_lightning.trackers.journal_logger import JournalLogger
from lis2_lightning.trackers.plain import is_local_uri


class Tracker(ABC):
    """Makes a Lightning logger once the run is known; nothing is opened or imported before."""

    @abstractmethod
    def start(self, run_dir: Path, run_name: str) -> Logger:
        """Make the logger of one run.

        Args:
            run_dir: The run's folder.
            run_name: The run's name.

        Raises:
            ConfigError: The package which the tracker needs is not installed.
        """


class CsvLogger(Tracker):
    """The CSV tracker; it is always on, so it need not be named.

    Args:
        output_run: Another folder for ``logs_train.csv`` than the run's own.
    """

    def __init__(self, output_run: str | None = None) -> None:
        self.output_run = output_run

    def start(self, run_dir: Path, run_name: str) -> Logger:  # noqa: ARG002 - Tracker's signature
        """Make the logger of one run."""
        return CsvRows(Path(self.output_run or run_dir) / "logs_train.csv")


class Wandb(Tracker):
    """Weights & Biases.

    Args:
        project: The project there.
        entity: The user or team there; null for the default one.
        offline: Keep the run in a file beside the snapshots, for a later ``wandb sync``; so it is
            where nobody is logged in, too.
        log_model: Upload ``best.pt`` at the run's end.
    """

    def __init__(
        self,
        project: str = "lis2",
        entity: str | None = None,
        *,
        offline: bool = False,
        log_model: bool = False,
    ) -> None:
        self.options: dict[str, Any] = {"project": project, "entity": entity}
        self.options |= {"offline": offline, "log_model": log_model}

    def start(self, run_dir: Path, run_name: str) -> Logger:
        """Make the logger of one run."""
        _require("wandb", "wandb")
        is_local = self.options["offline"]
        return JournalLogger(run_dir, run_name, "wandb", options=self.options, is_local=is_local)


class Mlflow(Tracker):
    """MLflow.

    Args:
        tracking_uri: The server; null for what MLFLOW_TRACKING_URI says, or else for a SQLite
            file beside the run folders.
        experiment_name: The experiment there.
        log_model: Upload ``best.pt`` at the run's end.
    """

    def __init__(
        self,
        tracking_uri: str | None = None,
        experiment_name: str = "lis2",
        *,
        log_model: bool = False,
    ) -> None:
        self.options: dict[str, Any] = {"tracking_uri": tracking_uri}
        self.options |= {"experiment_name": experiment_name, "log_model": log_model}

    def start(self, run_dir: Path, run_name: str) -> Logger:
        """Make the logger of one run."""
        _require("mlflow", "lis2-lightning[mlflow]")
        uri = self.options["tracking_uri"] or os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None and find_spec("sqlalchemy") is None:
            raise ConfigError(
                "tracker 'mlflow' needs the full mlflow package to write a file of its own: "
                "pip install mlflow, or set tracking_uri to a server"
            )
        options = {**self.options, "tracking_uri": uri}
        is_local = is_local_uri(uri)
        return JournalLogger(run_dir, run_name, "mlflow", options=options, is_local=is_local)


class TensorBoard(Tracker):
    """TensorBoard event files in the run folder."""

    def start(self, run_dir: Path, run_name: str) -> Logger:
        """Make the logger of one run."""
        _require("tensorboard", "lis2-lightning[tensorboard]")
        return JournalLogger(run_dir, run_name, "tensorboard", options={}, is_local=True)


def start_all(
    trackers: Sequence[Tracker | Logger],
    described: Sequence[Any],
    run_dir: Path,
    run_name: str,
) -> list[Logger]:
    """Make every logger of a run; the first writes ``logs_train.csv``.

    Args:
        trackers: The configured trackers.
        described: The same as plain values, where a configuration names them.
        run_dir: The run's folder.
        run_name: The run's name.

    Raises:
        ConfigError: A package is missing.
    """
    csv = next((tracker for tracker in trackers if isinstance(tracker, CsvLogger)), CsvLogger())
    loggers = [csv.start(run_dir, run_name)]
    names: list[str] = []
    for place, tracker in enumerate(trackers):
        if isinstance(tracker, CsvLogger):
            continue
        if isinstance(tracker, Tracker):
            logger = tracker.start(run_dir, run_name)
        else:
            plain = described[place] if place < len(described) else None
            logger = journal_logger(tracker, plain, run_dir, run_name)
        if isinstance(logger, JournalLogger):
            names.append(logger.name)
            if (number := names.count(logger.name)) > 1:
                logger.journal = Journal(logger.journal.path.with_stem(f"{logger.name}-{number}"))
        loggers.append(logger)
    return loggers


def journal_logger(logger: Logger, plain: Any, run_dir: Path, run_name: str) -> JournalLogger:
    """Put a journal before a Lightning logger.

    Args:
        logger: The logger.
        plain: Its ``class_path`` and ``init_args``, where a configuration names it.
        run_dir: The run's folder.
        run_name: The run's name.

    Raises:
        ConfigError: It has a journal already.
    """
    if isinstance(logger, JournalLogger):
        raise ConfigError("trackers cannot contain a JournalLogger: pass the tracker or its logger")
    is_named = isinstance(plain, Mapping) and "class_path" in plain
    return JournalLogger(
        run_dir,
        run_name,
        type(logger).__name__.lower(),
        service="lightning" if is_named else "object",
        options=plain if is_named else {},
        inner=logger,
    )


def _require(package: str, requirement: str) -> None:
    if find_spec(package) is None:
        raise ConfigError(f'tracker {package!r} needs {package}: pip install "{requirement}"')
