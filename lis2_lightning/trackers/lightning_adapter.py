"""Delivers to any Lightning logger."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lis2_lightning.errors import ConfigError
from lis2_lightning.trackers.adapter import Adapter


class LightningAdapter(Adapter):
    """Sends parameters and rows to a logger that exists, or one that ``class_path`` names."""

    def __init__(self, run_dir: Path, options: Mapping[str, Any], logger: Any = None) -> None:
        super().__init__(run_dir, options)
        self._logger = logger
        self.checkpoint_callback: Any = None

    def open(self, start: Mapping[str, Any]) -> None:  # noqa: ARG002 - Adapter's signature
        """Make the logger where it does not exist; the journal may come from anywhere."""
        if self._logger is None:
            from lightning.pytorch.cli import instantiate_class  # noqa: PLC0415 - both bring torch

            from lis2_lightning.config.components import objection  # noqa: PLC0415

            path = self.options["class_path"]
            if reason := objection(path, is_class=True):
                raise ConfigError(f"{path} {reason}")
            self._logger = instantiate_class((), dict(self.options))

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

    def close(self, record: Mapping[str, Any]) -> str:
        """End the run, in Lightning's words."""
        self._logger.finalize("success" if record["status"] == "finished" else "failed")
        return ""
