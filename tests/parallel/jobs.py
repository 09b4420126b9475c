"""Trainings whose end does not depend on how many processes share them, and who runs them.

    python tests/parallel/jobs.py FOLDER    # one process of a world that a launcher made

The processes are started as torchrun starts them, with its variables. Each runs every job of its
number of processes in the same order; the main one leaves what came of a job in FOLDER.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from lis2_lightning import TileDataset, Trainer
from lis2_lightning.data import BalancedSampler
from lis2_lightning.losses import BceDiceLoss, ClDiceLoss, DiceLoss, FocalLoss, TverskyLoss
from lis2_lightning.metrics import AveragePrecision, Dice, MaskedSSIM
from lis2_lightning.snapshots import read_snapshot

JOINT = 12  # samples of an optimizer step, whoever shares them
LOSSES: dict[str, nn.Module] = {
    "bce": nn.BCELoss(),
    "dice": DiceLoss(),
    "bce_dice": BceDiceLoss(alpha=0.3),
    "focal": FocalLoss(alpha=0.3),
    "tversky": TverskyLoss(),
    "cl_dice": ClDiceLoss(num_erosions=2),
}
OPTIMIZERS: dict[str, Any] = {
    "sgd": partial(torch.optim.SGD, lr=0.5, momentum=0.9),
    "adam": partial(torch.optim.Adam, lr=0.01),
}


class Partly(Dataset[dict[str, Tensor]]):
    """Noise, of which a different share is labelled in each sample, and in some nothing at all."""

    def __init__(self, num: int, seed: int = 0) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.patches = torch.rand((num, 1, 8, 8), generator=rng)
        self.shares = torch.rand(num, generator=rng).pow(3)
        self.shares[::3] = 0
        self.labelled = torch.rand((num, 1, 8, 8), generator=rng) < self.shares[:, None, None, None]

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        patch = self.patches[index]
        target = (patch.roll(1, -1) > 0.7).float()
        return {"patch": patch, "target": target, "labelled": self.labelled[index]}


def weighted_tiles(num: int, seed: int = 0) -> TileDataset:
    """Tiles of one image of noise, whose pixels weigh from 0 to 2; each other one has a target."""
    noise = torch.rand((8, 8 * num), generator=torch.Generator().manual_seed(seed)).numpy()
    has_target = np.arange(8 * num) // 8 % 2 == 0
    return TileDataset(
        noise, target=(noise > 0.7) & has_target, weight=2 * noise[::-1], size=8, stride=8
    )


@dataclass(frozen=True)
class Job:
    """A training.

    Attributes:
        name: What it is called, whoever shares it.
        world: How many processes share it.
        accumulate: How many batches are accumulated for an optimizer step.
        batch_size: Samples in a batch of one process.
        keys: Further keys of the trainer.
        lightning: Further arguments of Lightning's.
        sizes: Samples for training, validation and test.
        data: Makes a data set of so many samples.
    """

    name: str
    world: int
    accumulate: int
    batch_size: int
    keys: dict[str, Any]
    lightning: dict[str, Any]
    sizes: tuple[int, int, int]
    data: Callable[..., Dataset[Any]] = Partly

    @property
    def place(self) -> str:
        """A folder of its own."""
        return f"{self.name}-{self.world}-{self.accumulate}-{self.batch_size}"


SHARED = [(1, 1, 12), (1, 2, 6), (2, 1, 6), (2, 2, 3), (3, 1, 4), (2, 3, 2), (3, 2, 2)]


def steps() -> list[Job]:
    """Three optimizer steps, the last one of fewer samples: losses, optimizers, clipping, average.

    Each loss comes with one optimizer at least, and the first three in both precisions.
    """
    made = []
    # what follows the gradient is the same for every loss: each is there, and so is each pair
    kinds = [
        ("bce", "sgd", None, "64-true", None),
        ("bce", "sgd", None, "64-true", 0.8),
        ("bce", "adam", 0.05, "64-true", None),
        ("dice", "sgd", 0.05, "64-true", None),
        ("dice", "adam", None, "64-true", None),
        ("bce_dice", "sgd", None, "64-true", None),
        ("bce_dice", "adam", 0.05, "32-true", None),
        ("focal", "adam", 0.05, "64-true", None),
        ("tversky", "sgd", 0.05, "64-true", None),
        ("cl_dice", "adam", None, "64-true", None),
    ]
    for loss, optimizer, clip, precision, ema in kinds:
        keys = {"loss": LOSSES[loss], "optimizer": OPTIMIZERS[optimizer], "metrics": [Dice()]}
        keys["ema"] = ema
        lightning = {"gradient_clip_val": clip, "precision": precision}
        name = f"{loss}-{optimizer}-{clip}-{precision}-{ema}"
        made += [Job(name, *shared, keys, lightning, (31, 0, 0)) for shared in SHARED]
    return made


def runs() -> list[Job]:
    """Whole runs with validation and test, of sizes below, at and above the number of processes."""
    made = []
    kinds = [("bce", 1), ("dice", 2), ("bce", 3), ("dice", 5), ("bce", 7), ("dice", 12)]
    for loss, num, data in [*((*kind, Partly) for kind in kinds), ("bce_dice", 7, weighted_tiles)]:
        keys = {
            "loss": LOSSES[loss],
            "optimizer": OPTIMIZERS["adam"],
            "metrics": [AveragePrecision(), Dice(), MaskedSSIM(win_size=3)],
            "early_stopper": True,
            "monitor": "val_loss",
        }
        if (loss, num) == ("dice", 5):
            keys["ema"] = 0.8
        if data is weighted_tiles:
            keys["sampler"] = BalancedSampler(0.3)
        sizes = (25, num, 2 * num + 1)
        made += [
            Job(f"{loss}-{num}", world, 1, batch, keys, {"precision": "64-true"}, sizes, data)
            for world, batch in ((1, 6), (2, 3), (3, 2))
        ]
    return made


def network() -> nn.Sequential:
    """One without batch statistics, the same each time."""
    torch.manual_seed(5)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 1), nn.Sigmoid())


def initial() -> dict[str, Any]:
    """What a training begins with."""
    return {"weights": {name: w.double() for name, w in network().state_dict().items()}}


def trainer(job: Job, folder: Path) -> Trainer:
    """The trainer of a job; every process builds the same."""
    num_train, num_val, num_test = job.sizes
    return Trainer(
        folder,
        job.place,
        model=network(),
        train_dataset=job.data(num_train),
        val_dataset=job.data(num_val, seed=1) if num_val else None,
        test_dataset=job.data(num_test, seed=2) if num_test else None,
        batch_size=job.batch_size,
        epochs=1 if not num_val else 3,
        num_workers=0,
        seed=9,
        save_interval=0,
        report=False,
        **job.keys,
        lightning={
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "accumulate_grad_batches": job.accumulate,
            "devices": job.world,
            **({"strategy": "ddp"} if job.world > 1 else {}),
            **job.lightning,
        },
    )


def result(job: Job, folder: Path) -> dict[str, Any]:
    """Train, and tell weights, returned values and the rows of both tables."""
    made = trainer(job, folder)
    if job.sizes[2]:
        with mock.patch("lis2_lightning.report.run_pictures.draw_curves"):
            returned = dict(made.train())
    else:
        made.fit()
        returned = dict(made.get_final_info())
    tables = {
        name: rows(folder / job.place / name) for name in ("logs_train.csv", "test_results.csv")
    }
    weights = {name: w.detach().double() for name, w in made.model.state_dict().items()}
    maps = [torch.from_numpy(array) for array in made.predict(None)] if job.sizes[2] else []
    path = returned["final_model_path"]
    best = read_snapshot(path)["MODEL"]["MODEL_STATE"] if path else made.model.state_dict()
    return {
        "weights": weights,
        "returned": returned,
        "tables": tables,
        "maps": maps,
        "tested": best,
    }


def rows(path: Path) -> list[dict[str, float]]:
    """A table of numbers; what is empty is NaN."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [{k: float(v or "nan") for k, v in row.items()} for row in csv.DictReader(file)]


def main() -> None:
    """Run all jobs of this world."""
    folder = Path(sys.argv[1])
    world, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    torch.set_num_threads(1)
    for job in [*steps(), *runs()]:
        if job.world == world:
            came = result(job, folder)
            if rank == 0:
                torch.save(came, folder / f"{job.place}.pt")


if __name__ == "__main__":
    main()
