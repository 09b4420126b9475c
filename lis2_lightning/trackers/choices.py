"""The trackers a configuration can name: only their keys, with nothing opened or imported."""

from __future__ import annotations

import os
from collections.abc import Mapping

from lis2_lightning.base.redaction import without_login


class Tracker:
    """Base of the trackers; their own attributes are what an adapter needs to know."""

    is_local = True  # whether it writes to this machine only, so that a run's end waits for it
    environment: Mapping[str, str] = {}  # what only the process that delivers may know


class CsvLogger(Tracker):
    """The CSV tracker; it is always on, so it need not be named.

    Args:
        output_run: A folder for a second ``logs_train.csv``, besides the run's own.
    """

    def __init__(self, output_run: str | None = None) -> None:
        self.output_run = output_run


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
        self.project = project
        self.entity = entity
        self.offline = offline
        self.log_model = log_model
        self.is_local = offline


class Mlflow(Tracker):
    """MLflow.

    Args:
        tracking_uri: The server; null for what MLFLOW_TRACKING_URI says, or else for a SQLite
            file beside the run folders. A login in it is kept out of all files: to resume or sync,
            set MLFLOW_TRACKING_URI to the address with the login again.
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
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        self.tracking_uri = uri and without_login(uri)
        self.experiment_name = experiment_name
        self.log_model = log_model
        self.is_local = (uri or "sqlite:").startswith(("sqlite:", "file:", "/", "."))
        # the password goes to the process that delivers, and into no file
        has_login = uri is not None and uri != self.tracking_uri
        self.environment = {"MLFLOW_TRACKING_URI": str(uri)} if has_login else {}


class TensorBoard(Tracker):
    """TensorBoard event files in the run folder."""
