"""An epoch with no tracker, with all four, and with a server that hangs, in turns.

The runs follow each other within one process, each with a short training of the same network. What
is timed is an epoch's training and validation, with everything that is logged at its end; the first
epochs, in which the trackers' own processes start, are shown apart. On a busy machine the time on
the clock says little, and what is spent in the trackers' calls themselves is the better measure.
"""

from __future__ import annotations

import argparse
import logging
import socket
import statistics
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import rows
import torch

from lis2_lightning import SyntheticDataset, Trainer, UNet
from lis2_lightning.callbacks.tile_pictures import TilePictures
from lis2_lightning.trackers import Mlflow, TensorBoard, Wandb
from lis2_lightning.trackers.journal_logger import JournalLogger

Times = list[tuple[float, float]]
spent: list[float] = []
_HEADS = f"{'clock':>9}{'processor':>11}{'in calls':>10}{'first epochs':>14}"


def timed(owner: type, name: str) -> None:
    """Note the seconds of a method's calls in ``spent``."""
    method = getattr(owner, name)

    def measured(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            spent.append(time.perf_counter() - start)

    setattr(owner, name, measured)


class EpochTimes(pl.Callback):
    """Seconds of each epoch, from one start to the next: on the clock, and of the processor."""

    def __init__(self) -> None:
        self.starts: list[tuple[float, float]] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        """Note the time."""
        self.starts.append((time.perf_counter(), time.process_time()))

    def on_train_end(self, *_: Any) -> None:
        """Note the time."""
        self.starts.append((time.perf_counter(), time.process_time()))

    @property
    def seconds(self) -> list[tuple[float, float]]:
        """The epochs' durations."""
        pairs = zip(self.starts, self.starts[1:], strict=False)
        return [(b[0] - a[0], b[1] - a[1]) for a, b in pairs]


def epochs(folder: Path, name: str, trackers: list[Any], num_epochs: int) -> Times:
    """Train a run; the seconds of each of its epochs."""
    field = partial(
        SyntheticDataset, height=512, width=512, seed=0, size=64, stride=64, num_folds=2
    )
    torch.manual_seed(0)
    times = EpochTimes()
    trainer = Trainer(
        folder,
        name,
        model=UNet(in_channels=1, out_channels=1, features=8, num_blocks=3),
        train_dataset=field(folds=[0]),
        val_dataset=field(folds=[1]),
        batch_size=8,
        num_workers=0,
        epochs=num_epochs,
        seed=0,
        trackers=trackers,
        lightning={"callbacks": [times], "enable_progress_bar": False, "accelerator": "cpu"},
    )
    logging.getLogger("lis2_lightning").setLevel(logging.ERROR)
    with trainer._built.tracking:
        trainer.fit()
    return times.seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--skip", type=int, default=6, help="epochs while processes start")
    parser.add_argument("--threads", type=int, default=1, help="of torch: the others are free")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    timed(JournalLogger, "log_metrics")
    timed(TilePictures, "on_validation_batch_end")
    with tempfile.TemporaryDirectory() as folder, socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(100)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        kinds: dict[str, Any] = {
            "no tracker": list,
            "all four": lambda: [Wandb(offline=True), Mlflow(), TensorBoard()],
            "a server that hangs": lambda: [Mlflow(url)],
        }
        times: dict[str, Times] = {kind: [] for kind in kinds}
        calls: dict[str, list[float]] = {kind: [] for kind in kinds}
        first: dict[str, Times] = {kind: [] for kind in kinds}
        for turn in range(options.rounds):
            for kind, make in kinds.items():
                spent.clear()
                seconds = epochs(Path(folder), f"{kind}-{turn}", make(), options.epochs)
                calls[kind].append(sum(spent) / sum(clock for clock, _ in seconds))
                first[kind] += seconds[: options.skip]
                times[kind] += seconds[options.skip :]
    show(times, first, calls)


def show(
    times: Mapping[str, Times], first: Mapping[str, Times], calls: Mapping[str, list[float]]
) -> None:
    """Print the table, and leave the rows."""
    print(f"{'':<22}{'epoch':>12}{_HEADS}")
    clock, processor = medians(times["no tracker"])
    for kind, seconds in times.items():
        wall, cpu = medians(seconds)
        first_ratio = medians(first[kind])[1] / medians(first["no tracker"])[1]
        columns = f"{wall / clock:>9.3f}{cpu / processor:>11.3f}"
        columns += f"{statistics.median(calls[kind]):>10.3%}{first_ratio:>14.3f}"
        print(f"{kind:<22}{wall * 1000:>9.1f} ms{columns}")
        if kind != "no tracker":
            both = [[clock for clock, _ in times[name]] for name in (kind, "no tracker")]
            what = f"an epoch with trackers: {kind}"
            rows.add(rows.Row.of(what, both[0], "no tracker", both[1], unit="s", wanted=1.05))


def medians(times: Times) -> tuple[float, float]:
    """Of the clock, and of the processor."""
    return statistics.median(t[0] for t in times), statistics.median(t[1] for t in times)


if __name__ == "__main__":
    main()
