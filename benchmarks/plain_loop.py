"""An epoch of ``Trainer.train()`` against a plain PyTorch loop over the same tiles.

All sides train the same network on the same batches with the same loss and optimizer, in turns
within one run. The plain loop has no metrics, no log, no snapshots and no early stopping; the
facade has all of them, and is measured without metrics and ``last.pt``, too. Lightning alone,
Accelerate and Ignite stand beside, the last two where they are installed (the extra ``bench``).
Prints the median, the spread and the ratio.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import lightning.pytorch as pl
import rows
import torch
from peers import bare_trainer, loss_of
from torch import Tensor

from lis2_lightning import SyntheticDataset, Trainer, UNet
from lis2_lightning.data import SegmentationData
from lis2_lightning.running.around_loop import quiet

OURS: Final = "train()"
WITHOUT: Final = "train() without metrics"


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
        optimizer.zero_grad()
        loss_of(model(batch["patch"]), batch).backward()
        optimizer.step()
    return time.perf_counter() - begun


def accelerate_epoch(tiles: SyntheticDataset, batch_size: int, features: int) -> float:
    """The plain loop as Accelerate has it; the seconds it took."""
    from accelerate import Accelerator  # noqa: PLC0415 - may not be installed

    accelerator = Accelerator(cpu=True)
    data = SegmentationData(train=tiles, batch_size=batch_size, num_workers=0, seed=0)
    model = network(features).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model, optimizer = accelerator.prepare(model, optimizer)
    begun = time.perf_counter()
    for batch in data.loader(tiles, shuffle=True):
        optimizer.zero_grad()
        accelerator.backward(loss_of(model(batch["patch"]), batch))
        optimizer.step()
    return time.perf_counter() - begun


def ignite_epoch(tiles: SyntheticDataset, batch_size: int, features: int) -> float:
    """The plain loop as a step of an Ignite engine; the seconds it took."""
    from ignite.engine import Engine  # noqa: PLC0415 - may not be installed

    data = SegmentationData(train=tiles, batch_size=batch_size, num_workers=0, seed=0)
    model = network(features).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step(_: Engine, batch: Mapping[str, Tensor]) -> None:
        optimizer.zero_grad()
        loss_of(model(batch["patch"]), batch).backward()
        optimizer.step()

    begun = time.perf_counter()
    Engine(step).run(data.loader(tiles, shuffle=True), max_epochs=1)
    return time.perf_counter() - begun


class Plain(pl.LightningModule):
    """The plain loop as a module of Lightning's."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.model = network(features)

    def training_step(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The loss of the labelled pixels."""
        return loss_of(self.model(batch["patch"]), batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The same as ours."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def lightning_epoch(tiles: SyntheticDataset, batch_size: int, features: int) -> float:
    """An epoch of Lightning's trainer with nothing switched on; the seconds it took."""
    times = EpochTimes()
    with tempfile.TemporaryDirectory() as folder, quiet():
        trainer = bare_trainer(times, folder)
        data = SegmentationData(train=tiles, batch_size=batch_size, num_workers=0, seed=0)
        trainer.fit(Plain(features), data.loader(tiles, shuffle=True))
    return times.seconds[0]


def facade_epoch(tiles: SyntheticDataset, batch_size: int, features: int, **keys: Any) -> float:
    """Train an epoch through the facade, by default with all it has; the seconds it took."""
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
            seed=0,
            lightning={"callbacks": [times], "enable_progress_bar": False},
            **{"save_last": True, **keys},
        )
        with quiet():
            trainer.lightning.fit(trainer.module, datamodule=trainer.data)
    return times.seconds[0]


def contestants() -> dict[str, Callable[..., float]]:
    """Those that are installed here."""
    sides: dict[str, Callable[..., float]] = {
        "plain loop": plain_epoch,
        OURS: facade_epoch,
        WITHOUT: partial(facade_epoch, metrics=[], save_last=False),
        "Lightning alone": lightning_epoch,
    }
    if importlib.util.find_spec("accelerate"):
        sides["Accelerate"] = accelerate_epoch
    if importlib.util.find_spec("ignite"):
        sides["Ignite"] = ignite_epoch
    return sides


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="counted epochs of each side")
    parser.add_argument("--stride", type=int, default=8, help="px; fewer make an epoch longer")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--features", type=int, default=8)
    options = parser.parse_args()
    tiles = SyntheticDataset(seed=7, size=32, stride=options.stride)
    sides = contestants()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for counted in range(-1, options.rounds):
        for name, epoch in sides.items():
            taken = epoch(tiles, options.batch_size, options.features)
            if counted >= 0:  # the first round warms up
                seconds[name].append(taken)
    for name, taken in seconds.items():
        median = statistics.median(taken)
        print(
            f"{name:<24} median {median:.3f} s  min {min(taken):.3f}  max {max(taken):.3f}  "
            f"{len(tiles) / median:.0f} tiles/s"
        )
    parts = {
        OURS: "an epoch of a U-Net, metrics, log and snapshots",
        WITHOUT: "an epoch of a U-Net, without metrics and last.pt",
    }
    for ours, what in parts.items():
        for name in [name for name in seconds if name not in parts]:
            row = rows.Row.of(what, seconds[ours], name, seconds[name], unit="s", wanted=1.02)
            print(f"{ours} / {name}: {row.spread}; {len(tiles)} tiles")
            rows.add(row)


if __name__ == "__main__":
    main()
