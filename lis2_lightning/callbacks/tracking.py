"""What trackers get besides an epoch's row, and when a run begins and ends there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import lightning.pytorch as pl

from lis2_lightning.callbacks.run_folder import is_trial
from lis2_lightning.errors import Interrupted
from lis2_lightning.trackers import Guarded
from lis2_lightning.trackers.guarded_logger import close_all
from lis2_lightning.trackers.service import Status

_PICTURES: Final = ("curves.png", "prediction.png")


class Tracking(pl.Callback):
    """Begins a run at every tracker, hands over its files and scores, and ends it.

    As a context it surrounds training, test and pictures: the trackers stay open until its end.
    Without one, they are closed when Lightning's loop is over.

    Args:
        folder: The run's folder.
        config: The resolved configuration, plain values.
        summary: Says what came of the run, at its end.
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
        self._guards: list[Guarded] = []
        self._runs: dict[str, dict[str, str]] = {}
        self._scores: dict[str, float] = {}
        self._is_surrounded = False
        self._status: Status = "finished"

    def __enter__(self) -> Self:
        self._is_surrounded = True
        self._status = "finished"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_surrounded = False
        if error is not None:
            self._status = _status(error)
        self._end()

    def state_dict(self) -> dict[str, Any]:
        """Which runs these are at the services, so that a resumed one goes on with them."""
        runs = {
            guard.name: {"key": guard.key, "run_id": guard.run_id}
            for guard in self._guards
            if guard.is_started
        }
        return {"runs": runs} if runs else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the runs at the services."""
        self._runs = dict(state_dict["runs"])

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the trackers."""
        is_ours = trainer.is_global_zero and not is_trial(trainer)
        self._guards = [
            logger for logger in trainer.loggers if is_ours and isinstance(logger, Guarded)
        ]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the runs, with the configuration and the environment."""
        environment = self._environment() if self._guards else {}
        for guard in self._guards:
            guard.begin(**self._runs.get(guard.name, {}))
            guard.add("params", values=dict(self.config), group="")
            guard.add("params", values=environment, group="environment")
            for name in ("config.yaml", "environment.json"):
                guard.add("artifact", path=name)

    def _environment(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads((self.folder / "environment.json").read_bytes())
        return read

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
        """End the runs, unless there is more to come."""
        if not self._is_surrounded:
            self._end()

    def _end(self) -> None:
        for guard in self._guards:
            if guard.is_started:
                self._hand_over(guard)
        close_all(self._guards, self._status)
        self._status = "finished"

    def _hand_over(self, guard: Guarded) -> None:
        if self._status != "finished":
            return
        values = {**self._scores, **self._summary()}
        guard.add("summary", values=values, step=max(0, int(values["epochs_run"]) - 1))
        wanted = [*_PICTURES, *(["best.pt"] if guard.log_model else [])]
        for name in wanted:
            if (self.folder / name).is_file():
                guard.add("artifact", path=name)


def _status(error: BaseException) -> Status:
    asked = isinstance(error, Interrupted | KeyboardInterrupt | SystemExit)
    return "killed" if asked else "failed"
