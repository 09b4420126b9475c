"""What trackers receive besides an epoch's row, and when a run begins and ends there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lightning.pytorch as pl

from lis2_lightning.callbacks.run_folder import is_trial
from lis2_lightning.errors import Interrupted
from lis2_lightning.trackers.adapter import Status
from lis2_lightning.trackers.journal_logger import JournalLogger, close_all


class Tracking(pl.Callback):
    """Begins a run at every tracker, sends its files and scores, and ends it.

    As a context it surrounds training, test and pictures: the trackers stay open until its end.
    Without one, they are closed when Lightning's loop is over.

    Args:
        folder: The run's folder.
        config: The resolved configuration, plain values.
        summary: Returns the run's final scores.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        summary: Callable[[], Mapping[str, float]],
    ) -> None:
        self.folder = folder
        self.config = config
        self._summary = summary
        self._loggers: list[JournalLogger] = []
        self._keys: dict[str, str] = {}
        self._scores: dict[str, float] = {}
        self._context_pid = 0
        self._status: Status = "finished"

    def __enter__(self) -> Self:
        self._context_pid = os.getpid()
        self._status = "finished"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._context_pid = 0
        if error is not None:
            self._status = _status(error)
        self._end()

    def state_dict(self) -> dict[str, Any]:
        """The keys of the runs at the services, so that a resumed run continues them."""
        keys = {logger.name: logger.version for logger in self._loggers if logger.is_started}
        return {"keys": keys} if keys else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the runs at the services."""
        self._keys = dict(state_dict["keys"])

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the trackers."""
        is_ours = trainer.is_global_zero and not is_trial(trainer)
        self._loggers = [
            logger for logger in trainer.loggers if is_ours and isinstance(logger, JournalLogger)
        ]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the runs, with the configuration and the environment."""
        for logger in self._loggers:
            environment = json.loads((self.folder / "environment.json").read_bytes())
            logger.version = self._keys.get(logger.name, logger.version)
            logger.add("params", values=dict(self.config), group="")
            logger.add("params", values=environment, group="environment")
            for name in ("config.yaml", "environment.json"):
                logger.add("file", path=name)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the test's scores."""
        values = trainer.callback_metrics
        self._scores = {name: float(values[name]) for name in values if name.startswith("test_")}

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Note how the run ends."""
        self._status = _status(exception)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """End the runs, unless a context of this process will; a fork of it ends for itself."""
        if self._context_pid != os.getpid():
            self._end()

    def _end(self) -> None:
        for logger in self._loggers:
            if logger.is_started and self._status == "finished":
                self._send_results(logger)
        close_all(self._loggers, self._status)
        self._status = "finished"

    def _send_results(self, logger: JournalLogger) -> None:
        values = {**self._scores, **self._summary()}
        logger.add("summary", values=values, step=max(0, int(values["epochs_run"]) - 1))
        model = ["best.pt"] if logger.start["options"].get("log_model") else []
        for name in ("curves.png", "prediction.png", *model):
            if (self.folder / name).is_file():
                logger.add("file", path=name)


def _status(error: BaseException) -> Status:
    is_stopped = isinstance(error, Interrupted | KeyboardInterrupt | SystemExit)
    return "killed" if is_stopped else "failed"
