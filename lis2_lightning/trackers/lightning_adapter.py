"""Delivers to any Lightning logger."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lis2_lightning.errors import ConfigError
from lis2_lightning.trackers.adapter import Adapter, Status

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


class LightningAdapter(Adapter):
    """Sends parameters and rows to a logger that exists, or one that ``class_path`` names."""

    def __init__(
        self, run_dir: Path, options: Mapping[str, Any], logger: Logger | None = None
    ) -> None:
        super().__init__(run_dir, options)
        self._logger: Any = logger
        self.checkpoint_callback: Any = None

    def open(self, start: Mapping[str, Any]) -> None:  # noqa: ARG002 - Adapter's signature
        """Make the logger where it does not exist."""
        if self._logger is None:
            logger_class = _logger_class(self.options["class_path"])
            self._logger = logger_class(**(self.options.get("init_args") or {}))

    def params(self, values: Mapping[str, Any], group: str) -> None:
        """Send parameters."""
        self._logger.log_hyperparams({group: values} if group else values)

    def row(self, values: Mapping[str, float], record: Mapping[str, Any]) -> None:
        """Send a row."""
        self._logger.log_metrics(dict(values), step=record["step"])
        self._logger.save()

    def checkpoint(self) -> None:
        """Pass on the callback that has saved a checkpoint; a later process has none."""
        if self.checkpoint_callback is not None:
            self._logger.after_save_checkpoint(self.checkpoint_callback)

    def close(self, status: Status) -> str:
        """End the run, in Lightning's words."""
        self._logger.save()
        self._logger.finalize("success" if status == "finished" else "failed")
        return ""


def _logger_class(path: str) -> Any:
    """The class that a journal names, which may come from anywhere: a logger, and nothing else."""
    from lightning.pytorch.loggers import Logger  # noqa: PLC0415 - brings torch

    module, _, name = path.rpartition(".")
    if module not in sys.modules and not f"{module}.".startswith("lightning.pytorch.loggers."):
        raise ConfigError(
            f"{path} is not imported because a journal names it: import {module} in a program of "
            "your own, and call lis2_lightning.trackers.synchronise.sync there"
        )
    logger_class = getattr(import_module(module), name, None)
    if not (inspect.isclass(logger_class) and issubclass(logger_class, Logger)):
        raise ConfigError(f"{path} is not a Lightning logger: correct the journal, or remove it")
    return logger_class
