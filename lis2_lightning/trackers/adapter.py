"""What a delivery needs of a service, and which adapter a journal names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal

from lis2_lightning.errors import ConfigError

Status = Literal["finished", "failed", "killed"]
_SERVICES: Final = ("mlflow", "wandb", "tensorboard", "lightning")


class RefusedError(Exception):
    """A service rejects a record, and would reject it again."""


class Adapter(ABC):
    """Talks to one service; every call may be slow, fail or never return."""

    # whether rows can be lost until the run has been closed at the service
    confirms_at_close = False

    def __init__(self, run_dir: Path, options: Mapping[str, Any]) -> None:
        self.run_dir = run_dir
        self.options = options

    @abstractmethod
    def open(self, start: Mapping[str, Any]) -> None:
        """Start the run, or resume the one with the same ``key``."""

    @abstractmethod
    def row(self, values: Mapping[str, float], record: Mapping[str, Any]) -> None:
        """Send one row; ``record`` has its ``step``, ``index`` and ``time``."""

    @abstractmethod
    def close(self, record: Mapping[str, Any]) -> str:
        """End the run with the record's ``status``, and return what the user should know."""

    def params(self, values: Mapping[str, Any], group: str) -> None:  # noqa: B027 - optional
        """Send plain values: the configuration, or the ``group`` "environment"."""

    def summary(self, values: Mapping[str, float], record: Mapping[str, Any]) -> None:
        """Send the run's final scores."""
        self.row(values, record)

    def file(self, path: Path, record: Mapping[str, Any]) -> None:  # noqa: B027 - optional
        """Send a file of the run's folder; ``record`` may have its ``step`` and ``tag``."""

    def checkpoint(self) -> None:  # noqa: B027 - optional
        """Report that Lightning has saved a checkpoint."""

    def drop(self) -> None:  # noqa: B027 - optional
        """Forget the connection, which may be broken."""


def make_adapter(run_dir: Path, start: Mapping[str, Any]) -> Adapter:
    """The adapter that a ``start`` record names."""
    service = start["service"]
    if service not in _SERVICES:
        raise ConfigError(
            f"{service!r} was a logger object in Python, which only the training could reach: "
            "copy its rows from the journal"
        )
    module = import_module(f"lis2_lightning.trackers.{service}_adapter")
    adapter: Adapter = getattr(module, f"{service.title()}Adapter")(run_dir, start["options"])
    return adapter
