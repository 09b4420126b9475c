"""What a notebook's process does for the processes forked from it, and takes over from them.

Callbacks' states, weights and logged values come back by themselves. This is the rest: bars, which
only the kernel can draw; and the maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn

from lis2_lightning.callbacks import Tracking
from lis2_lightning.callbacks.progress_bars import ProgressBars, Screen, screen
from lis2_lightning.inference import Segmenter
from lis2_lightning.parallel.workers import Tell

_SHOW: Final = "show"
_CLOSE: Final = "close"


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
        self._screen: Screen | None = None

    def begin(self) -> None:
        """Draw new bars for each loop."""
        self._screen = None

    def in_worker(self, rank: int, tell: Tell) -> None:
        """Leave the screen to the notebook's process."""
        if rank == 0:
            for bars in self._bars():
                bars.make_screen = lambda: _ToldScreen(tell)

    def _bars(self) -> list[ProgressBars]:
        callbacks = cast("Any", self._trainer).callbacks
        return [callback for callback in callbacks if isinstance(callback, ProgressBars)]

    def told(self, kind: str, value: Any) -> None:
        """Draw."""
        self._screen = self._screen or screen()
        draw = self._screen.show if kind == _SHOW else self._screen.close
        draw(*value)

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
        if left["is_done"]:
            self._tracking.teardown(trainer, module, str(trainer.state.fn))


class _ToldScreen:
    """A screen in another process."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def show(self, level: int, title: str, done: int, total: int | None, values: str) -> None:
        """Have a bar drawn anew."""
        self._tell(_SHOW, (level, title, done, total, values))

    def close(self, level: int) -> None:
        """Have a bar closed."""
        self._tell(_CLOSE, (level,))
