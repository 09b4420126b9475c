"""Two processes against one with two threads, and what exact masked averaging costs a step.

Both sides train the demo's network on the demo's image with the same global batch, in turns. Within
the two processes epochs alternate between our loss, whose gradient is that of the mean over all
labelled pixels, and plain DDP, which averages each process's own mean. The cost is told twice: as
the ratio of their epochs, pair by pair, and as the time spent sending off and waiting for the
counts, which holds the time that one process waits for the other.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from lis2_lightning import Trainer
from lis2_lightning.parallel.exchange import Exchange

DEMO = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
GLOBAL_BATCH = 64


class PlainMean:
    """What DDP does by itself: each process's mean over its own labelled pixels."""

    def begin(self, count: Tensor, **_: Any) -> None:
        """Nothing is exchanged."""

    def of(self, sums: Sequence[Tensor], **_: Any) -> Tensor:
        """The mean."""
        return sums[1] / sums[0].clamp(min=1)

    def backward(self, loss: Tensor, _: Any) -> None:
        """Differentiate."""
        torch.autograd.backward(loss)


class Stopwatch(pl.Callback):
    """Times epochs, which alternate between the exact loss and the plain one."""

    def __init__(self, *, alternates: bool) -> None:
        self.epochs: list[float] = []
        self.exchange = 0.0
        self.steps = 0
        self._alternates = alternates
        self._exact: Any = None

    def on_fit_start(self, *args: Any) -> None:
        """Time the exchange's calls."""
        self._exact = args[1]._joint
        exchange: Exchange = self._exact._exchange
        for name in ("start", "count"):
            setattr(exchange, name, self._timed(getattr(exchange, name)))

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            begun = time.perf_counter()
            given = call(*args)
            self.exchange += time.perf_counter() - begun
            return given

        return timed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Choose the loss, and start the clock."""
        is_plain = self._alternates and trainer.current_epoch % 2 == 1
        pl_module._joint = PlainMean() if is_plain else self._exact
        self.exchange = 0.0 if trainer.current_epoch < 2 else self.exchange  # these warm up
        self._begun = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Stop the clock with the last step."""
        if trainer.is_last_batch:
            self.epochs.append(time.perf_counter() - self._begun)
            self.steps = int(trainer.num_training_batches)


def worker(pairs: int, steps: int) -> None:
    """Train as one process of its world, and print what was measured."""
    world = int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(2 // world)
    watch = Stopwatch(alternates=world > 1)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer.from_config(
            DEMO,
            output_dir=folder,
            val_dataset=None,
            test_dataset=None,
            early_stopper=None,
            monitor="train_loss",
            epochs=2 + 2 * pairs,
            batch_size=GLOBAL_BATCH // world,
            num_workers=0,
            save_last=False,
            lightning={
                "accelerator": "cpu",
                "devices": world,
                "strategy": "ddp" if world > 1 else "auto",
                "limit_train_batches": steps,
                "enable_progress_bar": False,
                "callbacks": [watch],
            },
        )
        trainer.fit()
    if int(os.environ["RANK"]) == 0:
        told = {"epochs": watch.epochs[2:], "steps": watch.steps, "exchange": watch.exchange}
        print(json.dumps(told), flush=True)


def measured(world: int, pairs: int, steps: int) -> dict[str, Any]:
    """Run one side, and read what its main process prints."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port = opened.getsockname()[1]
    found = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    found |= {"LOCAL_WORLD_SIZE": str(world), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "bench"}
    words = [sys.executable, __file__, "--worker", f"--pairs={pairs}", f"--steps={steps}"]
    processes = [
        subprocess.Popen(
            words,
            env={**os.environ, **found, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    told = [process.communicate()[0] for process in processes]
    read: dict[str, Any] = json.loads(told[0].splitlines()[-1])
    return read


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Median, least and greatest."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=5, help="of epochs in each round")
    parser.add_argument("--steps", type=int, default=20, help="of an epoch")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.pairs, options.steps)
        return
    ratios, costs, shares, each = [], [], [], []
    for _ in range(options.rounds):
        one = measured(1, options.pairs, options.steps)
        two = measured(2, options.pairs, options.steps)
        exact, plain = two["epochs"][::2], two["epochs"][1::2]
        ratios.append(statistics.median(one["epochs"]) / statistics.median(exact))
        costs += [a / b for a, b in zip(exact, plain, strict=True)]
        step = statistics.median(exact) / two["steps"]
        spent = two["exchange"] / (two["steps"] * len(exact))
        shares.append(100 * spent / step)
        each.append(1e3 * step)
    print(f"tiles/s, two processes / one with two threads   {spread(ratios)}")
    print(f"epoch, exact / plain DDP, pair by pair          {spread(costs)}")
    print(f"step of {GLOBAL_BATCH} tiles, ms                           {spread(each, 1)}")
    print(f"of it sending off and waiting for counts, %     {spread(shares, 2)}")


if __name__ == "__main__":
    main()
