"""Progress: a line an epoch that stays, and a bar below it; in a notebook, a table instead."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Sized
from typing import Any, Final, cast

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import RunningStage, TrainerFn

from lis2_lightning.base.display import in_notebook, network_text
from lis2_lightning.base.position import batches_done, epoch_is_whole
from lis2_lightning.callbacks.checkpoints import BestSnapshot
from lis2_lightning.callbacks.notebook_bar import NotebookBar, Row
from lis2_lightning.callbacks.terminal_bar import TerminalBar, shown_number
from lis2_lightning.data import AnyDataset, SegmentationData, tile_parts
from lis2_lightning.data.datamodule import TileBatches
from lis2_lightning.training.module import SegmentationModule

_log = logging.getLogger("lis2_lightning")
_BEST: Final = "best"
_PX: Final = "px"
_FORMATS: Final = {
    "epochs": "{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
    "it": "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]",
    _PX: "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}px "
    "[{elapsed}<{remaining}, {rate_fmt}]",
}
_ENDLESS: Final = "{desc}{elapsed}{postfix}"
_TITLES: Final = {
    RunningStage.TRAINING: "training",
    RunningStage.VALIDATING: "validation",
    RunningStage.TESTING: "test",
    RunningStage.PREDICTING: "prediction",
}
_REFRESH_S: Final = 0.2  # drawing at each step, and reading its loss, would double a small one


class ProgressBars(ProgressBar):
    """A line for each epoch, and below it how far the run is; a bar for any other loop."""

    def __init__(self) -> None:
        super().__init__()
        self._is_enabled = True
        self._bar: TerminalBar | None = None
        self._shown_at = self._begun = 0.0
        self._lr = 0.0

    def disable(self) -> None:
        """Show nothing (Lightning calls this in all processes but the main one)."""
        self._is_enabled = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report what is trained, and show how many epochs are done."""
        self.on_train_epoch_start(trainer, pl_module)
        if self._is_enabled:
            _log.info("%s", _what_is_trained(trainer, cast("SegmentationModule", pl_module)))
            done, total = _steps(trainer, batches_done(trainer))
            self._bar = _bar(_epoch_name(trainer), done, total, unit="epochs")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the time, and the rate of the epoch before a scheduler changes it."""
        self._begun = time.perf_counter()
        self._lr = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Show that one more batch of a loop is done."""
        stage, done = cast("RunningStage", trainer.state.stage), args[2] + 1
        total = _num_batches(trainer, stage)
        is_soon = time.perf_counter() - self._shown_at < _REFRESH_S and done != total
        if is_soon or not self._is_enabled or stage not in _TITLES:
            return
        self._shown_at = time.perf_counter()
        if trainer.state.fn == TrainerFn.FITTING:
            part = f"{_TITLES[stage]} {done}/{_count(total)}"
            self._show_epoch(trainer, cast("SegmentationModule", pl_module), part, done)
        else:
            self._show_loop(trainer, stage, done, total)

    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = on_train_batch_end

    def _show_epoch(
        self, trainer: pl.Trainer, module: SegmentationModule, part: str, done: int
    ) -> None:
        if self._bar is None:
            return
        loss = float(module.train_scores.loss.so_far())
        known = f"loss {shown_number('loss', loss)}, " if math.isfinite(loss) else ""
        self._bar.set_description_str(f"{_epoch_name(trainer)}: ", refresh=False)
        self._bar.set_postfix_str(f"{known}{part}", refresh=False)
        in_epoch = batches_done(trainer) + (0 if trainer.training else done)
        self._bar.n, self._bar.total = _steps(trainer, in_epoch)
        self._bar.refresh()

    def _show_loop(self, trainer: pl.Trainer, stage: RunningStage, done: int, total: float) -> None:
        mapped, unit, begun = _mapped(trainer), "it", done - 1
        if mapped is not None:
            unit = _PX
            begun, done = (_pixels(mapped, part / total) for part in (begun, done))
            total = _pixels(mapped, 1)
        if self._bar is None:
            self._bar = _bar(_TITLES[stage], begun, total, unit=unit)
        if self._bar is not None:
            self._bar.n = done
            self._bar.refresh()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the epoch's losses, its rate and its time, and whether it is the best so far."""
        if not self._is_enabled:
            return
        logged = trainer.callback_metrics
        best = next((c for c in trainer.checkpoint_callbacks if isinstance(c, BestSnapshot)), None)
        names = ["train_loss", "val_loss", *([] if best is None else [str(best.monitor)])]
        row: Row = {"epoch": trainer.current_epoch + 1}
        row |= {name: float(logged[name]) for name in names if name in logged}
        row |= {"lr": self._lr, "seconds": time.perf_counter() - self._begun}
        is_best = best is not None and best.is_due(trainer)
        if isinstance(self._bar, NotebookBar):
            self._bar.add(row, is_best=is_best)
            return
        # an epoch that a limit has cut short is not done
        cut = "" if epoch_is_whole(trainer) else f"  cut short after batch {batches_done(trainer)}"
        mark = _BEST if is_best else ""
        text = f"{_line(trainer, row)}{cut}  {mark}".rstrip()
        _log.info("%s", text, extra={"mark": mark})

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Close what is open."""
        if self._bar is not None:
            self._bar.close()
        self._bar, self._shown_at = None, 0.0

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leave a clean screen: Lightning calls no teardown after a failure or a Ctrl-C."""
        self.teardown(trainer, pl_module, "")


def _bar(title: str, done: int, total: float | None, *, unit: str) -> TerminalBar | None:
    """A new bar; null where neither a notebook nor a terminal is there to draw it in."""
    is_notebook = in_notebook()
    if not is_notebook and (sys.stderr is None or not sys.stderr.isatty()):
        return None
    options: dict[str, Any] = {
        "desc": f"{title}: ",
        "initial": done,
        "total": None if total is None or not 0 <= total < math.inf else int(total),
        "leave": False,
        "miniters": 1,
        "bar_format": _FORMATS[unit] if _count(total or math.inf) != "?" else _ENDLESS,
        "unit": unit,
        "unit_scale": unit == _PX,
    }
    return NotebookBar(**options) if is_notebook else TerminalBar(dynamic_ncols=True, **options)


def _what_is_trained(trainer: pl.Trainer, module: SegmentationModule) -> str:
    """The network, where it runs, and on how much, as one line."""
    where = trainer.strategy.root_device.type
    where = where if trainer.world_size == 1 else f"{trainer.world_size} x {where}"
    text = f"{network_text(module.model)} on {where}"
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, SegmentationData):
        return text
    more = {"val": data.val, "test": None if data.test is data.val else data.test}
    others = [f"{name} {len(cast('Sized', d)):,}" for name, d in more.items() if d is not None]
    batches = f"{_count(trainer.num_training_batches)} batches"
    trained = f"{len(cast('Sized', data.train)):,} {_kind(data.train)} in {batches}"
    others_text = f" ({', '.join(others)})" if others else ""
    return f"{text}: {trained}{others_text}"


def _kind(dataset: AnyDataset) -> str:
    return "tiles" if next(tile_parts(dataset), None) is not None else "samples"


def _epoch_name(trainer: pl.Trainer) -> str:
    num = "?" if trainer.max_epochs in {None, -1} else str(trainer.max_epochs)
    return f"epoch {trainer.current_epoch + 1:>{len(num)}}/{num}"


def _line(trainer: pl.Trainer, row: Row) -> str:
    values = [
        f"{name} {shown_number(name, value):<{7 if name != 'lr' else 8}}"
        for name, value in row.items()
        if name not in {"epoch", "seconds"}
    ]
    return "  ".join(
        [_epoch_name(trainer), *values, f"{shown_number('seconds', row['seconds']):>5} s"]
    )


def _count(num: float) -> str:
    return f"{num:.0f}" if math.isfinite(num) else "?"


def _steps(trainer: pl.Trainer, in_epoch: int) -> tuple[int, int | None]:
    """How many batches of the whole run are done, and how many there are; null for unknown."""
    num = trainer.num_training_batches + sum(trainer.num_val_batches)
    epochs = trainer.max_epochs
    if not math.isfinite(num):
        return in_epoch, None
    total = None if epochs in {None, -1} else int(num * (epochs or 0))
    return int(num * trainer.current_epoch + min(in_epoch, num)), total


def _num_batches(trainer: pl.Trainer, stage: RunningStage) -> float:
    """The batches of a loop; infinite where nobody knows."""
    # by identity: Lightning compares its stages as lower-case texts, in each step
    if stage is RunningStage.VALIDATING:
        return sum(trainer.num_val_batches)
    if stage is RunningStage.TESTING:
        return sum(trainer.num_test_batches)
    if stage is RunningStage.PREDICTING:
        return sum(trainer.num_predict_batches)
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
