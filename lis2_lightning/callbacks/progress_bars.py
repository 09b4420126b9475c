"""Progress: two bars in a terminal, two lines in a notebook, one line an epoch in a log file."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, Protocol

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

_log = logging.getLogger("lis2_lightning")
_GOING: Final = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
_DONE: Final = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
_REFRESH_S: Final = 0.2  # a bar drawn at each step doubles the cost of a small one


class Screen(Protocol):
    """Where progress is shown; ``level`` 0 is the epochs' bar, 1 the batches'."""

    def show(self, level: int, title: str, done: int, total: int | None, values: str) -> None:
        """Draw a bar anew."""

    def close(self, level: int) -> None:
        """Remove the batches' bar, or leave the epochs' bar as it is."""


class TerminalScreen:
    """Two tqdm bars, one below the other."""

    def __init__(self) -> None:
        self._bars: dict[int, tqdm[Any]] = {}

    def show(self, level: int, title: str, done: int, total: int | None, values: str) -> None:
        """Draw a bar anew."""
        bar = self._bars.get(level)
        if bar is not None and (bar.desc.rstrip(": ") != title or done < bar.n):
            self.close(level)  # another loop, or another epoch: its own clock
            bar = None
        if bar is None:
            position = len(self._bars)
            bar = tqdm(position=position, leave=level == 0, dynamic_ncols=True, file=sys.stderr)
            bar.initial = done
            self._bars[level] = bar
        bar.set_description_str(title, refresh=False)
        bar.set_postfix_str(values, refresh=False)
        bar.total, bar.n = total, done
        bar.refresh()

    def close(self, level: int) -> None:
        """Remove the batches' bar, or leave the epochs' bar as it is."""
        if bar := self._bars.pop(level, None):
            bar.close()


class NotebookScreen:
    """Lines of text under the cell, drawn over; the saved notebook keeps the last state."""

    def __init__(self) -> None:
        display = import_module("IPython.display").display  # it is there in a notebook only
        self._lines: dict[int, str] = {}
        self._begun: dict[int, tuple[str, int, float]] = {}
        self._last: dict[int, int] = {}
        self._handle = display(_Text(""), display_id=True)

    def show(self, level: int, title: str, done: int, total: int | None, values: str) -> None:
        """Draw a line anew."""
        now = time.monotonic()
        if done < self._last.get(level, 0) or self._begun.get(level, (title,))[0] != title:
            del self._begun[level]  # another loop, or another epoch: its own clock
        _, initial, begun = self._begun.setdefault(level, (title, done, now))
        self._last[level] = done
        self._lines[level] = tqdm.format_meter(
            done,
            total or 0,
            now - begun,
            ncols=100,
            prefix=title,
            postfix=values,
            initial=initial,
            bar_format=_DONE if done == total else _GOING,
        )
        self._draw()

    def close(self, level: int) -> None:
        """Remove the batches' line where the epochs' one says it all; else leave it as it is."""
        if level > 0 and 0 in self._lines:
            self._lines.pop(level, None)
        self._draw()

    def _draw(self) -> None:
        if self._handle is not None:
            self._handle.update(_Text("\n".join(self._lines[key] for key in sorted(self._lines))))


class _Text:
    """Text that a notebook shows without quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


class LogScreen:
    """One line in the log for each epoch, for files and schedulers."""

    def __init__(self) -> None:
        self._last = 0

    def show(self, level: int, title: str, done: int, total: int | None, values: str) -> None:
        """Write a line when an epoch is done."""
        if level == 0 and values and done != self._last:
            self._last = done
            _log.info("%s %d/%s: %s", title, done, total or "?", values)

    def close(self, level: int) -> None:
        """Nothing is open."""


def screen() -> Screen:
    """What suits the place: a terminal, a notebook, or a file."""
    if "ipykernel" in sys.modules:
        return NotebookScreen()
    return TerminalScreen() if sys.stderr.isatty() else LogScreen()


class ProgressBars(ProgressBar):
    """A bar over epochs with losses and rate, and one over the batches inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.make_screen: Callable[[], Screen] = screen  # a forked process has another one
        self._screen: Screen | None = None
        self._drawn = 0.0
        self._lr = 0.0
        self._enabled = True

    def disable(self) -> None:
        """Show nothing (Lightning calls this in all processes but the main one)."""
        self._enabled = False

    def enable(self) -> None:
        """Show the bars."""
        self._enabled = True

    def _show(self, level: int, title: str, done: int, total: float, values: str = "") -> None:
        if not self._enabled:
            return
        self._screen = self._screen or self.make_screen()
        known = int(total) if total != float("inf") else None
        self._screen.show(level, title, done, known, values)

    def _close(self, *levels: int) -> None:
        for level in levels:
            if self._screen is not None:
                self._screen.close(level)

    def _batch(self, title: str, done: int, total: float) -> None:
        now = time.monotonic()
        if now - self._drawn > _REFRESH_S or done >= total:
            self._drawn = now
            self._show(1, title, done, total)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show how many epochs are done."""
        self._show(0, "epochs", trainer.current_epoch, trainer.max_epochs or 0)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the rate of the epoch before a scheduler changes it."""
        self._lr = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(  # noqa: D102 - Lightning's hook
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        self._batch("training", args[2] + 1, trainer.num_training_batches)

    def on_validation_batch_end(  # noqa: D102 - Lightning's hook
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        self._batch("validation", args[2] + 1, sum(trainer.num_val_batches))

    def on_test_batch_end(  # noqa: D102 - Lightning's hook
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        self._batch("test", args[2] + 1, sum(trainer.num_test_batches))

    def on_predict_batch_end(  # noqa: D102 - Lightning's hook
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        self._batch("prediction", args[2] + 1, sum(trainer.num_predict_batches))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the epoch's losses and rate."""
        logged = trainer.callback_metrics
        values = [f"{k}={float(logged[k]):.4g}" for k in ("train_loss", "val_loss") if k in logged]
        values.append(f"lr={self._lr:.3g}")
        done, total = trainer.current_epoch + 1, trainer.max_epochs or 0
        self._show(0, "epochs", done, total, " ".join(values))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Close what is open, also after a failure."""
        self._close(1, 0)
        self._screen = None
