"""An epoch of ``Trainer.train()`` against a plain PyTorch loop over the same tiles.

Both sides train the same network on the same batches with the same loss and optimizer, in turns
within one run. The plain loop has no metrics, no log, no snapshots and no early stopping; the
facade has all of them. Prints the median, the spread and the ratio.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from torch.nn import functional

from lis2_lightning import SyntheticDataset, Trainer, UNet
from lis2_lightning.data import SegmentationData
from lis2_lightning.running.around_loop import quiet


class EpochTimes(pl.Callback):
    """Seconds of the training part of each epoch, metrics and log included."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._begun = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start the clock."""
        self._begun = time.perf_counter()

    def on_train_end(self, *_: Any) -> None:
        """Stop the clock after the last thing that training does."""
        self.seconds.append(time.perf_counter() - self._begun)


def network(features: int) -> UNet:
    """The same network for both sides."""
    torch.manual_seed(0)
    return UNet(in_channels=1, out_channels=1, features=features, num_blocks=3)


def plain_epoch(tiles: SyntheticDataset, batch_size: int, features: int) -> float:
    """Train an epoch with nothing but PyTorch; the seconds it took."""
    model = network(features).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    data = SegmentationData(train=tiles, batch_size=batch_size, num_workers=0, seed=0)
    loader = data.loader(tiles, shuffle=True)
    begun = time.perf_counter()
    for batch in loader:
        labelled = batch["labelled"]
        optimizer.zero_grad()
        loss = functional.binary_cross_entropy(
            model(batch["patch"]), batch["target"], labelled.float(), reduction="sum"
        )
        (loss / labelled.sum().clamp(min=1)).backward()
        optimizer.step()
    return time.perf_counter() - begun


def facade_epoch(tiles: SyntheticDataset, batch_size: int, features: int) -> float:
    """Train an epoch through the facade with metrics, log and snapshots; the seconds it took."""
    times = EpochTimes()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            folder,
            model=network(features),
            train_dataset=tiles,
            optimizer=partial(torch.optim.Adam, lr=1e-3),
            batch_size=batch_size,
            num_workers=0,
            epochs=1,
            save_last=True,
            seed=0,
            lightning={"callbacks": [times], "enable_progress_bar": False},
        )
        with quiet():
            trainer.lightning.fit(trainer.module, datamodule=trainer.data)
    return times.seconds[0]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="counted epochs of each side")
    parser.add_argument("--stride", type=int, default=8, help="px; fewer make an epoch longer")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--features", type=int, default=8)
    options = parser.parse_args()
    tiles = SyntheticDataset(seed=7, size=32, stride=options.stride)
    sides = {"plain loop": plain_epoch, "train()": facade_epoch}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for counted in range(-1, options.rounds):
        for name, epoch in sides.items():
            taken = epoch(tiles, options.batch_size, options.features)
            if counted >= 0:  # the first round warms up
                seconds[name].append(taken)
    for name, taken in seconds.items():
        median = statistics.median(taken)
        print(
            f"{name:<12} median {median:.3f} s  min {min(taken):.3f}  max {max(taken):.3f}  "
            f"{len(tiles) / median:.0f} tiles/s"
        )
    pairs = [b / a for a, b in zip(*seconds.values(), strict=True)]
    print(
        f"train() / plain loop: {statistics.median(pairs):.3f} "
        f"(pair by pair {min(pairs):.3f} to {max(pairs):.3f}; {len(tiles)} tiles)"
    )


if __name__ == "__main__":
    main()
