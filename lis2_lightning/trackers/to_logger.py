"""Delivers to any Lightning logger."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lis2_lightning.errors import ConfigError
from lis2_lightning.trackers.plain import flat
from lis2_lightning.trackers.service import Service, Status

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

_THEIRS: Final = "lightning.pytorch.loggers"


class ToLogger(Service):
    """Hands over parameters and rows through Lightning's own interface.

    Args:
        run_dir: The run's folder.
        options: ``class_path`` and ``init_args``, where the logger is to be made.
        logger: The logger, where there is one.
    """

    is_local = True

    def __init__(
        self, run_dir: Path, options: Mapping[str, Any], logger: Logger | None = None
    ) -> None:
        super().__init__(run_dir, options)
        self._given = logger
        self._logger: Any = logger

    def open(self, start: Mapping[str, Any]) -> str:
        """Make the logger where there is none yet."""
        if self._given is None:
            made = _logger_class(self.options["class_path"])
            self._logger = made(**(self.options.get("init_args") or {}))
        else:
            self._logger = self._given
        return str(start["key"])

    def params(self, values: Mapping[str, Any], group: str) -> None:
        """Hand over parameters, flat."""
        self._logger.log_hyperparams(flat(values, group))

    def row(self, values: Mapping[str, float], record: Mapping[str, Any]) -> None:
        """Hand over a row."""
        self._logger.log_metrics(dict(values), step=record["step"])
        self._logger.save()

    def close(self, status: Status) -> str:
        """End the run, in Lightning's words."""
        self._logger.save()
        self._logger.finalize("success" if status == "finished" else "failed")
        return ""


def _logger_class(path: str) -> Any:
    """The class that a journal names, which may come from anywhere: a logger, and nothing else."""
    from lightning.pytorch.loggers import Logger  # noqa: PLC0415 - brings torch

    module, _, name = path.rpartition(".")
    if module not in sys.modules and not f"{module}.".startswith(f"{_THEIRS}."):
        raise ConfigError(
            f"{path} is not imported for a journal's sake: import {module} in a program of your "
            "own, and call lis2_lightning.trackers.sync there"
        )
    found = getattr(import_module(module), name, None)
    if not (inspect.isclass(found) and issubclass(found, Logger)):
        raise ConfigError(f"{path} is no logger of Lightning: mend the journal, or remove it")
    return found
