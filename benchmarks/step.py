"""A training step of a tiny network, against Lightning without us.

All sides train the same network on the same batches with the same loss, each in epochs of its own,
in turns within one run. ``Lightning alone`` logs nothing and shows no bar; ``with self.log`` logs
the loss of each epoch and shows one; ``with a curve`` also has the precision-recall curve of
torchmetrics at 200 thresholds. The facade has its loss, its metrics (average precision, Dice, ROC
AUC), its bar and all its callbacks; ``bare facade`` has neither metrics nor bar. Prints the medians
and the ratios, pair by pair.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import lightning.pytorch as pl
import rows
import torch
from peers import bare_trainer, loss_of
from torch import Tensor, nn
from torchmetrics.classification import BinaryPrecisionRecallCurve

from lis2_lightning import SyntheticDataset, Trainer
from lis2_lightning.data import SegmentationData
from lis2_lightning.running.around_loop import quiet


class StepTimes(pl.Callback):
    """Seconds from the start of the second batch of an epoch to the end of the last."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._begun = 0.0

    def on_train_batch_start(self, *args: Any) -> None:
        """Start the clock with the second batch: the first one builds the optimizer's state."""
        if args[-1] == 1:
            self._begun = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        """Look at the clock."""
        self.seconds = time.perf_counter() - self._begun


class Plain(pl.LightningModule):
    """What a user of Lightning writes."""

    def __init__(self, *, logs: bool = False, curve: bool = False) -> None:
        super().__init__()
        self.model = network()
        self.logs = logs
        self.curve = BinaryPrecisionRecallCurve(thresholds=200) if curve else None

    def training_step(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The loss of the labelled pixels."""
        labelled = batch["labelled"]
        output = self.model(batch["patch"])
        loss = loss_of(output, batch)
        if self.logs:
            self.log("loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        if self.curve is not None:
            self.curve.update(output[labelled].detach(), batch["target"][labelled].long())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The same as ours."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


def network() -> nn.Module:
    """The same for all sides."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Sigmoid())


def lightning_epoch(tiles: SyntheticDataset, batch_size: int, *, bar: bool, **parts: bool) -> float:
    """An epoch of Lightning's trainer; seconds a step."""
    times = StepTimes()
    with tempfile.TemporaryDirectory() as folder, quiet():
        trainer = bare_trainer(times, folder, bar=bar)
        data = SegmentationData(train=tiles, batch_size=batch_size, num_workers=0, seed=0)
        trainer.fit(Plain(**parts), data.loader(tiles, shuffle=True))
    return times.seconds / (len(tiles) // batch_size - 1)


def facade_epoch(tiles: SyntheticDataset, batch_size: int, *, bar: bool, **keys: Any) -> float:
    """An epoch of the facade; seconds a step."""
    times = StepTimes()
    with tempfile.TemporaryDirectory() as folder, quiet():
        trainer = Trainer(
            folder,
            model=network(),
            train_dataset=tiles,
            optimizer=partial(torch.optim.SGD, lr=0.1),
            batch_size=batch_size,
            num_workers=0,
            epochs=1,
            seed=0,
            lightning={"callbacks": [times], "enable_progress_bar": bar, "accelerator": "cpu"},
            **keys,
        )
        trainer.lightning.fit(trainer.module, datamodule=trainer.data)
    return times.seconds / (len(tiles) // batch_size - 1)


SIDES: dict[str, Callable[..., float]] = {
    "Lightning alone": partial(lightning_epoch, bar=False),
    "with self.log": partial(lightning_epoch, bar=True, logs=True),
    "with a curve": partial(lightning_epoch, bar=True, logs=True, curve=True),
    "bare facade": partial(facade_epoch, bar=False, metrics=[]),
    "facade": partial(facade_epoch, bar=True),
}
# ours, the other side, and the ratio that is wanted
COMPARED = [
    ("facade", "Lightning alone", 1.2),
    ("facade", "with self.log", 0.6),
    ("facade", "with a curve", 0.25),
    ("bare facade", "Lightning alone", 1.2),
]


@contextmanager
def terminal() -> Iterator[None]:
    """A terminal for the bars, which nobody looks at."""
    main, other = os.openpty()
    stderr, sys.stderr = sys.stderr, os.fdopen(other, "w")
    reader = threading.Thread(target=drain, args=(main,), daemon=True)
    reader.start()
    try:
        yield
    finally:
        sys.stderr.close()
        sys.stderr = stderr
        reader.join()


def drain(descriptor: int) -> None:
    """Read until the other end is closed."""
    with suppress(OSError):
        while os.read(descriptor, 4096):
            pass
    os.close(descriptor)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="counted epochs of each side")
    parser.add_argument("--size", type=int, default=16, help="side of a tile, px")
    parser.add_argument("--batch-size", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)  # a second one would only wait
    tiles = SyntheticDataset(seed=7, size=options.size, stride=16)
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    for counted in range(-1, options.rounds):
        for name, epoch in SIDES.items():
            with terminal():
                taken = epoch(tiles, options.batch_size)
            if counted >= 0:  # the first round warms up
                seconds[name].append(taken)
    for name, taken in seconds.items():
        print(f"{name:<16} {1e6 * statistics.median(taken):6.0f} us a step")
    for ours, theirs, wanted in COMPARED:
        what = f"a step of a tiny network, {ours}"
        us = {name: [1e6 * taken for taken in seconds[name]] for name in (ours, theirs)}
        row = rows.Row.of(what, us[ours], theirs, us[theirs], unit="us", wanted=wanted)
        print(f"{ours} / {theirs}: {row.spread}")
        rows.add(row)


if __name__ == "__main__":
    main()
