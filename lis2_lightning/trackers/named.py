"""Trackers that talk to a service; each needs its package only when a run starts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from lis2_lightning.errors import ConfigError
from lis2_lightning.trackers.csv import CsvLogger
from lis2_lightning.trackers.guarded_logger import Guarded
from lis2_lightning.trackers.journal import Journal
from lis2_lightning.trackers.plain import is_local
from lis2_lightning.trackers.tracker import Tracker

FOLDER = "trackers"


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
        self.options: dict[str, Any] = {
            "project": project,
            "entity": entity,
            "offline": offline,
            "log_model": log_model,
        }

    def start(self, run_dir: Path, run_name: str) -> Logger:
        """Make the logger of one run."""
        _need("wandb", "wandb", "wandb")
        return _guarded("wandb", run_dir, run_name, self.options, is_local=self.options["offline"])


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
        self.options: dict[str, Any] = {
            "tracking_uri": tracking_uri,
            "experiment_name": experiment_name,
            "log_model": log_model,
        }

    def start(self, run_dir: Path, run_name: str) -> Logger:
        """Make the logger of one run."""
        _need("mlflow", "mlflow", "lis2-lightning[mlflow]")
        uri = self.options["tracking_uri"] or os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None and find_spec("sqlalchemy") is None:
            raise ConfigError(
                "tracker 'mlflow' needs the whole of mlflow for a file of its own: "
                "pip install mlflow, or set tracking_uri to a server"
            )
        options = {**self.options, "tracking_uri": uri}
        return _guarded("mlflow", run_dir, run_name, options, is_local=is_local(uri))


class TensorBoard(Tracker):
    """TensorBoard event files in the run folder."""

    def start(self, run_dir: Path, run_name: str) -> Logger:
        """Make the logger of one run."""
        _need("tensorboard", "tensorboard", "lis2-lightning[tensorboard]")
        return _guarded("tensorboard", run_dir, run_name, {}, is_local=True)


def start_all(
    trackers: Sequence[Tracker | Logger],
    described: Sequence[Any],
    run_dir: Path,
    run_name: str,
) -> list[Logger]:
    """Make every logger of a run; the first writes ``logs_train.csv``.

    Args:
        trackers: What was asked for.
        described: The same as plain values, where they say it.
        run_dir: The run's folder.
        run_name: The run's name.

    Raises:
        ConfigError: A package is missing.
    """
    csv = next((t for t in trackers if isinstance(t, CsvLogger)), CsvLogger())
    loggers = [csv.start(run_dir, run_name)]
    names: list[str] = []
    for place, tracker in enumerate(trackers):
        if isinstance(tracker, CsvLogger):
            continue
        plain = described[place] if place < len(described) else None
        logger = (
            tracker.start(run_dir, run_name)
            if isinstance(tracker, Tracker)
            else guard(tracker, plain, run_dir, run_name)
        )
        if isinstance(logger, Guarded):
            names.append(logger.name)
            if (number := names.count(logger.name)) > 1:
                logger.journal = Journal(run_dir / FOLDER / f"{logger.name}-{number}.jsonl")
        loggers.append(logger)
    return loggers


def guard(logger: Logger, plain: Any, run_dir: Path, run_name: str) -> Logger:
    """Put a guard before a Lightning logger.

    Args:
        logger: The logger.
        plain: Its ``class_path`` and ``init_args``, where a configuration names it.
        run_dir: The run's folder.
        run_name: The run's name.

    Raises:
        ConfigError: It is a guard already.
    """
    if isinstance(logger, Guarded):
        raise ConfigError(
            "a guard is no tracker: name the tracker or the logger, and it gets a guard"
        )
    is_named = isinstance(plain, Mapping) and "class_path" in plain
    return Guarded(
        run_dir / FOLDER / f"{type(logger).__name__.lower()}.jsonl",
        run_name,
        service="logger" if is_named else "object",
        options=plain if is_named else {},
        inner=logger,
    )


def _guarded(
    name: str, run_dir: Path, run_name: str, options: Mapping[str, Any], *, is_local: bool
) -> Guarded:
    path = run_dir / FOLDER / f"{name}.jsonl"
    return Guarded(path, run_name, service=name, options=options, is_local=is_local)


def _need(tracker: str, package: str, requirement: str) -> None:
    if find_spec(package) is None:
        raise ConfigError(f'tracker {tracker!r} needs {package}: pip install "{requirement}"')
