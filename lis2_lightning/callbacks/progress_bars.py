"""Progress: two bars in a terminal or a notebook, one line an epoch in a log file."""

from __future__ import annotations

import logging
import math
import sys
from importlib import import_module
from io import StringIO
from typing import Any, Final, cast

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import RunningStage
from tqdm import tqdm

from lis2_lightning.base.position import epoch_is_whole
from lis2_lightning.data.datamodule import TileBatches

_log = logging.getLogger("lis2_lightning")
_RUNNING: Final = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
_DONE: Final = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
_TITLES: Final = {
    RunningStage.TRAINING: "training",
    RunningStage.VALIDATING: "validation",
    RunningStage.TESTING: "test",
    RunningStage.PREDICTING: "prediction",
}
_PX: Final = "px"
_PIXELS: Final = "{l_bar}{bar}| {n_fmt}/{total_fmt}px [{elapsed}<{remaining}, {rate_fmt}]"
_REFRESH_S: Final = 0.2  # drawing a bar at each step would double the cost of a small one


class NotebookBar(tqdm):  # type: ignore[type-arg]  # generic in the stubs alone
    """A bar of text below the cell, or below another bar, that is overwritten.

    tqdm's own for notebooks is a widget, of which a saved notebook shows nothing.
    """

    def __init__(self, above: NotebookBar | None, **options: Any) -> None:
        self._above = above
        self.below = ""
        if above is None:
            display = import_module("IPython.display").display  # it is there in a notebook only
            self._output = display({"text/plain": ""}, raw=True, display_id=True)
        super().__init__(ncols=100, file=StringIO(), **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw both bars anew."""
        text = str(self) if msg is None else msg
        if self._above is not None:
            self._above.below = text
            self._above.display()
        elif self._output is not None:  # None where ipykernel is imported and no kernel runs
            lines = "\n".join(filter(None, [text, self.below]))
            self._output.update({"text/plain": lines}, raw=True)


class ProgressBars(ProgressBar):
    """A bar over epochs with losses and rate, and one over the batches of an epoch."""

    def __init__(self) -> None:
        super().__init__()
        self._is_enabled = True
        self._epochs: tqdm[Any] | None = None
        self._batches: tqdm[Any] | None = None
        self._lr = 0.0

    def disable(self) -> None:
        """Show nothing (Lightning calls this in all processes but the main one)."""
        self._is_enabled = False

    @property
    def _draws(self) -> bool:
        """Whether there is a notebook or a terminal to draw bars in."""
        if not self._is_enabled:
            return False
        return "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())

    def _open(
        self, title: str, done: int, total: float | None, *, unit: str = "it"
    ) -> tqdm[Any] | None:
        """A new bar; null where a line in the log takes its place."""
        options: dict[str, Any] = {
            "desc": title,
            "initial": done,
            "total": None if total is None or not 0 <= total < math.inf else int(total),
            "leave": self._epochs is None,
            "mininterval": _REFRESH_S,
            "miniters": 1,
            "bar_format": _RUNNING,
            "unit": unit,
            "unit_scale": unit == _PX,
        }
        if not self._draws:
            return None
        if "ipykernel" in sys.modules:
            above = self._epochs if isinstance(self._epochs, NotebookBar) else None
            return NotebookBar(above, **options)
        return tqdm(dynamic_ncols=True, **options)

    def _close_batches(self) -> None:
        if self._batches is not None:
            self._batches.close()
        self._batches = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show how many epochs are done, and note the rate, also where an epoch is resumed."""
        self.on_train_epoch_start(trainer, pl_module)
        self._epochs = self._open("epochs", trainer.current_epoch, trainer.max_epochs)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the rate of the epoch before a scheduler changes it."""
        self._lr = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Show that one more batch of a loop is done."""
        if not self._draws:
            return
        stage, begun, done = cast("RunningStage", trainer.state.stage), args[2], args[2] + 1
        mapped = _mapped(trainer)
        if mapped is not None:
            num = sum(trainer.num_predict_batches)
            begun, done = (_pixels(mapped, part / num) for part in (begun, done))
        bar, title = self._batches, _TITLES[stage]
        if bar is None or bar.desc != f"{title}: " or done < bar.n:  # another loop or epoch
            self._close_batches()
            total = _num_batches(trainer, stage) if mapped is None else _pixels(mapped, 1)
            unit = "it" if mapped is None else _PX
            bar = self._batches = self._open(title, begun, total, unit=unit)
        if bar is not None:
            _show(bar, done)

    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = on_train_batch_end

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the epoch's losses and rate."""
        logged = trainer.callback_metrics
        values = [f"{k}={float(logged[k]):.4g}" for k in ("train_loss", "val_loss") if k in logged]
        values.append(f"lr={self._lr:.3g}")
        # an epoch that a limit has cut short is not done
        done, text = trainer.current_epoch + int(epoch_is_whole(trainer)), " ".join(values)
        if self._epochs is not None:
            self._epochs.set_postfix_str(text, refresh=False)
            _show(self._epochs, done)
            self._epochs.refresh()
        elif self._is_enabled:
            _log.info("epochs %d/%s: %s", done, trainer.max_epochs or "?", text)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Close what is open, also after a failure."""
        self._close_batches()
        if self._epochs is not None:
            self._epochs.close()
        self._epochs = None


def _num_batches(trainer: pl.Trainer, stage: RunningStage) -> float:
    """The batches of a loop; infinite where nobody knows."""
    match stage:
        case RunningStage.VALIDATING:
            return sum(trainer.num_val_batches)
        case RunningStage.TESTING:
            return sum(trainer.num_test_batches)
        case RunningStage.PREDICTING:
            return sum(trainer.num_predict_batches)
        case _:
            return trainer.num_training_batches


def _mapped(trainer: pl.Trainer) -> TileBatches | None:
    """The tiles of an image that is being mapped, whose progress is in pixels."""
    if trainer.state.stage != RunningStage.PREDICTING:
        return None
    dataset = getattr(trainer.predict_dataloaders, "dataset", None)
    return dataset if isinstance(dataset, TileBatches) else None


def _pixels(mapped: TileBatches, part: float) -> int:
    """How many pixels of an image are mapped after a part of the batches."""
    height, width = mapped.tiles.image_shape
    return round(height * width * (mapped.done + (1 - mapped.done) * part))


def _show(bar: tqdm[Any], done: int) -> None:
    """Advance a bar; it is drawn when it is complete, or some time after it was drawn last."""
    running = _PIXELS if bar.unit == _PX else _RUNNING
    bar.bar_format = _DONE if done == bar.total and bar.unit != _PX else running
    bar.update(done - bar.n)
    if done == bar.total:
        bar.refresh()
