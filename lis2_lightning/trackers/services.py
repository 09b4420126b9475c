"""Trackers that talk to a service; each needs its package only when a run starts."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from lis2_lightning.errors import ConfigError
from lis2_lightning.trackers.base import Tracker


class Wandb(Tracker):
    """Weights & Biases.

    Args:
        project: The project there.
        entity: The user or team there; null for the default one.
        offline: Keep the run in a file beside the snapshots, for a later ``wandb sync``.
    """

    def __init__(
        self, project: str = "lis2", entity: str | None = None, *, offline: bool = False
    ) -> None:
        self.project = project
        self.entity = entity
        self.offline = offline

    def start(self, run_dir: Path, run_name: str) -> Logger:
        """Make the logger of one run."""
        _need("wandb", "wandb", "wandb")
        run_dir.mkdir(parents=True, exist_ok=True)
        return WandbLogger(
            name=run_name,
            save_dir=run_dir,
            project=self.project,
            entity=self.entity,
            offline=self.offline,
        )


class Mlflow(Tracker):
    """MLflow.

    Args:
        tracking_uri: The server, or null for a SQLite file beside the run folders.
        experiment_name: The experiment there.
    """

    def __init__(self, tracking_uri: str | None = None, experiment_name: str = "lis2") -> None:
        self.tracking_uri = tracking_uri
        self.experiment_name = experiment_name

    def start(self, run_dir: Path, run_name: str) -> Logger:
        """Make the logger of one run."""
        _need("mlflow", "mlflow", "lis2-lightning[mlflow]")
        if self.tracking_uri is None and find_spec("sqlalchemy") is None:
            raise ConfigError(
                "tracker 'mlflow' needs the whole of mlflow for a file of its own: "
                "pip install mlflow, or set tracking_uri to a server"
            )
        default = f"sqlite:///{(run_dir.parent / 'mlflow.db').resolve()}"
        return MLFlowLogger(
            experiment_name=self.experiment_name,
            run_name=run_name,
            tracking_uri=self.tracking_uri or default,
        )


class TensorBoard(Tracker):
    """TensorBoard event files in the run folder."""

    def start(self, run_dir: Path, run_name: str) -> Logger:  # noqa: ARG002 - one for all trackers
        """Make the logger of one run."""
        _need("tensorboard", "tensorboard", "lis2-lightning[tensorboard]")
        return TensorBoardLogger(save_dir=run_dir, name="tensorboard", version="")


def _need(tracker: str, package: str, requirement: str) -> None:
    if find_spec(package) is None:
        raise ConfigError(f'tracker {tracker!r} needs {package}: pip install "{requirement}"')
