"""Map an image in one of several processes; a number after the folder kills one of them on its way.

python tests/parallel/mapping_job.py FOLDER [BATCHES]
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import lightning.pytorch as pl
import numpy as np
import torch
from torch import nn

from lis2_lightning import TileDataset, Trainer

SIZE, STRIDE, BATCH_SIZE = 16, 5, 8


class Dies(pl.Callback):
    """Kills the last process after some batches."""

    def __init__(self, num_batches: int) -> None:
        self.num_batches = num_batches

    def on_predict_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        is_last = trainer.global_rank == trainer.world_size - 1
        if is_last and args[3] == self.num_batches:
            os.kill(os.getpid(), signal.SIGKILL)


def network() -> nn.Sequential:
    """The same in each process."""
    torch.manual_seed(5)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 1), nn.Sigmoid())


def main() -> None:
    """Map ``image.npy`` of the folder into a file, and into memory."""
    folder, world = Path(sys.argv[1]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    mock.patch("lis2_lightning.inference.scratch._SAVE_S", -1.0).start()
    small = np.ones((SIZE, SIZE), np.float32)
    callbacks = [Dies(int(number)) for number in sys.argv[2:]]
    trainer = Trainer(
        folder / "runs",
        model=network(),
        train_dataset=TileDataset(small, target=small, size=SIZE, stride=STRIDE),
        batch_size=BATCH_SIZE,
        num_workers=0,
        lightning={
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "callbacks": callbacks,
            "devices": world,
            **({"strategy": "ddp"} if world > 1 else {}),
        },
    )
    image, output = folder / "image.npy", folder / f"of_{world}.npy"
    (lazy,) = trainer.predict(
        None, image=image, output=output, mask=folder / "mask.npy", threshold=0.5, overwrite=True
    )
    (in_memory,) = trainer.predict(None, image=image)
    np.testing.assert_array_equal(lazy, in_memory)


if __name__ == "__main__":
    main()
