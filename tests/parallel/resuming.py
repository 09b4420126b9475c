"""Two processes, interrupted by a signal to one of them, and started again.

python tests/parallel/resuming.py FOLDER    # one process of a world that a launcher made
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import lightning.pytorch as pl
import torch
from torch import nn

from lis2_lightning import Trainer
from tests.parallel.jobs import Partly, network

# where a signal comes: the loop, the epoch, the batch, and the process that gets it
PLACES = [
    ("train", 0, 0, 1),
    ("train", 1, 2, 0),
    ("train", 1, 4, 1),
    ("validation", 1, 0, 1),
    ("validation", 0, 1, 0),
]
AVERAGED = PLACES[2]  # here a moving average is trained
EPOCHS = 3


class Droppy(nn.Sequential):
    """Batch statistics and dropout: what a resumed run may get wrong."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 3, 3, padding=1),
            nn.BatchNorm2d(3),
            nn.Dropout(0.3),
            nn.Conv2d(3, 1, 1),
            nn.Sigmoid(),
        )


class Signals(pl.Callback):
    """Sends one process a signal at a place."""

    def __init__(self, place: tuple[str, int, int, int]) -> None:
        self.place = place

    def _send(self, trainer: pl.Trainer, loop: str, batch: int) -> None:
        if (loop, trainer.current_epoch, batch, trainer.global_rank) == self.place:
            signal.raise_signal(signal.SIGTERM)

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Send it before a training batch."""
        self._send(trainer, "train", args[2])

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Send it before a validation batch."""
        self._send(trainer, "validation", args[2])

    def on_test_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Send it before a test batch."""
        self._send(trainer, "test", args[2])

    def on_predict_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Send it before a batch of a prediction."""
        self._send(trainer, "predict", args[2])


def trainer(folder: Path, name: str, world: int, model: nn.Module, **changes: Any) -> Trainer:
    """The trainer of a run; every process builds the same."""
    callbacks = changes.pop("callbacks", [])
    arguments = {
        "train_dataset": Partly(31),
        "val_dataset": Partly(7, seed=1),
        "batch_size": 6 // world,
        "epochs": EPOCHS,
        "num_workers": 0,
        "seed": 9,
        "save_last": True,
        "save_interval": 0,
        "resume": "auto",
        "report": False,
        **changes,
    }
    return Trainer(
        folder,
        name,
        model=model,
        **arguments,
        lightning={
            "accelerator": "cpu",
            "devices": world,
            "strategy": "ddp" if world > 1 else "auto",
            "enable_progress_bar": False,
            "callbacks": callbacks,
        },
    )


def droppy() -> nn.Module:
    """The same first weights each time."""
    torch.manual_seed(3)
    return Droppy()


def interrupted(folder: Path) -> None:
    """An undisturbed run, and one for each place that is interrupted there and started again."""
    trainer(folder, "whole", 2, droppy()).train()
    trainer(folder, "averaged", 2, droppy(), ema=0.8).train()
    for place in PLACES:
        name, changes = "-".join(map(str, place)), {"ema": 0.8 if place == AVERAGED else None}
        stopped = trainer(folder, name, 2, droppy(), callbacks=[Signals(place)], **changes)
        assert_ended(stopped.train)
        torch.rand(3)  # what is drawn in between must not matter
        trainer(folder, name, 2, droppy(), **changes).train()
    for loop in ("test", "predict"):
        stopped = trainer(folder, "whole", 2, droppy(), callbacks=[Signals((loop, 0, 0, 1))])
        assert_ended(getattr(stopped, loop))


def assert_ended(run: Callable[[], Any]) -> None:
    """In this process, too, the signal to one of them ends the loop, with its code."""
    try:
        run()
    except SystemExit as ended:
        assert ended.code == 143  # noqa: PT017 - this is no test, its exit code is looked at
    else:
        raise AssertionError("the signal ended nothing")


def main() -> None:
    """Run what belongs to this world."""
    folder, world = Path(sys.argv[1]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    with mock.patch("lis2_lightning.report.run_pictures.draw_curves"):
        if world == 2:
            interrupted(folder)
            trainer(folder, "two", 2, network(), epochs=2).train()
        elif world == 3:
            if int(os.environ["RANK"]) == 0:
                shutil.copytree(folder / "two", folder / "three")
            pl.Trainer(
                accelerator="cpu", devices=3, strategy="ddp", logger=False
            ).strategy.setup_environment()
            torch.distributed.barrier()
            trainer(folder, "three", 3, network()).train()


if __name__ == "__main__":
    main()
