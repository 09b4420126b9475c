"""What a notebook's process does for the processes forked from it, and takes over from them.

Callbacks' states, weights and logged values come back by themselves. This is the rest: bars, which
only the kernel can draw; trackers, whose couriers are to outlive a loop; and the maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn

from lis2_lightning.callbacks import Tracking
from lis2_lightning.callbacks.progress_bars import ProgressBars
from lis2_lightning.inference import Segmenter
from lis2_lightning.parallel.workers import Tell
from lis2_lightning.trackers import Guarded

_RUN: Final = "run"


class Handovers:
    """Hands over what is in bars, trackers and the segmenter.

    Args:
        trainer: The trainer, with its callbacks and loggers.
        segmenter: Has the maps.
        tracking: Ends the trackers' runs.
    """

    def __init__(self, trainer: pl.Trainer, segmenter: Segmenter, tracking: Tracking) -> None:
        self._trainer = trainer
        self._segmenter = segmenter
        self._tracking = tracking
        self._guards = [logger for logger in trainer.loggers if isinstance(logger, Guarded)]

    def begin(self) -> None:
        """Nothing is kept from one loop to the next."""

    def in_worker(self, rank: int, tell: Tell) -> None:
        """Leave screen and couriers to the notebook's process."""
        self._tracking.__enter__()  # that process ends the runs, and not a loop's end
        for guard in self._guards:
            guard.leave_delivery(partial(_tell_of_run, tell, guard.name))
        if rank == 0:  # only the kernel can draw bars
            for bars in self._bars():
                bars.disable()

    def _bars(self) -> list[ProgressBars]:
        callbacks = cast("Any", self._trainer).callbacks
        return [callback for callback in callbacks if isinstance(callback, ProgressBars)]

    def told(self, kind: str, value: Any) -> None:
        """Begin to deliver a tracker's run."""
        if kind == _RUN:
            self._deliver(**value)

    def _deliver(self, name: str, key: str, run_id: str) -> None:
        self._tracking.setup(self._trainer, self._trainer.lightning_module, "fit")
        for guard in self._guards:
            if guard.name == name:
                guard.take_delivery(key, run_id)

    def leave(self) -> dict[str, Any]:
        """The maps, where the loop has made some."""
        if self._trainer.state.fn != TrainerFn.PREDICTING:
            return {}
        return {"maps": [torch.from_numpy(each) for each in self._segmenter.maps]}

    def take(self, trainer: pl.Trainer, left: Mapping[str, Any]) -> None:
        """Take up the maps and the scores, and end runs that nothing else ends."""
        module = trainer.lightning_module
        if "maps" in left:
            self._segmenter.take([each.numpy() for each in left["maps"]])
        if trainer.state.fn == TrainerFn.TESTING:
            self._tracking.on_test_end(trainer, module)
        for guard in self._guards:
            guard.catch_up()
        if left["is_done"]:
            self._tracking.teardown(trainer, module, str(trainer.state.fn))


def _tell_of_run(tell: Tell, name: str, run: Mapping[str, str]) -> None:
    tell(_RUN, {"name": name, **run})
