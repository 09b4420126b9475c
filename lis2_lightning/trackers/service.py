"""What a courier needs of a service, and which service a journal names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from lis2_lightning.errors import ConfigError

Status = Literal["finished", "failed", "killed"]
_SERVICES: Final = MappingProxyType(
    {
        "mlflow": "lis2_lightning.trackers.to_mlflow.ToMlflow",
        "wandb": "lis2_lightning.trackers.to_wandb.ToWandb",
        "tensorboard": "lis2_lightning.trackers.to_tensorboard.ToTensorBoard",
        "logger": "lis2_lightning.trackers.to_logger.ToLogger",
    }
)


class RefusedError(Exception):
    """A service does not take a record, and will not take it later either."""


class Service(ABC):
    """Talks to one service; every call may take its time, fail or never return.

    Args:
        run_dir: The run's folder.
        options: The tracker's keys.
    """

    # whether what was handed over has arrived only when the run has been closed there
    confirms_at_close = False
    # whether opening it is work of this machine, which takes its time, and not a waiting for others
    is_local = False

    def __init__(self, run_dir: Path, options: Mapping[str, Any]) -> None:
        self.run_dir = run_dir
        self.options = options

    @abstractmethod
    def open(self, start: Mapping[str, Any]) -> str:
        """Begin a run, or go on with the one of the same ``key`` or ``run_id``.

        Returns:
            What the service calls the run.
        """

    @abstractmethod
    def row(self, values: Mapping[str, float], record: Mapping[str, Any]) -> None:
        """Hand over one row; ``record`` has its ``step``, ``index`` and ``time``."""

    @abstractmethod
    def close(self, status: Status) -> str:
        """End the run.

        Returns:
            What its user should know, or nothing.
        """

    def params(self, values: Mapping[str, Any], group: str) -> None:  # noqa: B027 - some have none
        """Hand over plain values: the configuration, the environment."""

    def summary(self, values: Mapping[str, float], record: Mapping[str, Any]) -> None:
        """Hand over what came of the run."""
        self.row(values, record)

    def artifact(self, path: Path) -> None:  # noqa: B027 - same
        """Hand over a file of the run's folder."""

    def image(  # noqa: B027 - same
        self, path: Path, tag: str, record: Mapping[str, Any]
    ) -> None:
        """Hand over a picture of one step."""

    def drop(self) -> None:  # noqa: B027 - same
        """Forget a connection that failed."""


def make_service(run_dir: Path, start: Mapping[str, Any]) -> Service:
    """The service that a ``start`` record names.

    Raises:
        ConfigError: It names none.
    """
    kind = start["service"]
    if kind not in _SERVICES:
        raise ConfigError(
            f"nothing can be delivered to {kind!r}, which was an object in Python: "
            "hand its rows over by hand"
        )
    module, _, name = _SERVICES[kind].rpartition(".")
    made: Service = getattr(import_module(module), name)(run_dir, start["options"])
    return made
