"""Two processes against one with two threads, and what exact masked averaging costs a step.

Both sides train the demo's network on the demo's image with the same global batch, in turns. Within
the two processes steps alternate between our loss, whose gradient is that of the mean over all
labelled pixels, and plain DDP, which averages each process's own mean. The cost is given twice: as
the ratio of the median steps of a round, and as the time spent sending off and waiting for the
counts, which holds the time that one process waits for the other. What the machine allows at most
is measured, too: two processes with one thread and half a batch each, side by side, that exchange
nothing.
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
import rows
import torch
from torch import Tensor

from lis2_lightning import Trainer
from lis2_lightning.parallel.exchange import Exchange

DEMO = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
GLOBAL_BATCH = 64
WARM_UP = 20  # steps
OURS, ALONE = "two processes", "one process with two threads"
APART = "two that exchange nothing"


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
    """Times steps, which alternate between the exact loss and the plain one."""

    def __init__(self, *, alternates: bool) -> None:
        self.steps: list[tuple[bool, float]] = []
        self.exchange = 0.0
        self._alternates = alternates
        self._exact: Any = None
        self._is_exact = True
        self._begun = 0.0

    def on_fit_start(self, *args: Any) -> None:
        """Time the exchange's calls."""
        self._exact = args[1]._joint
        exchange: Exchange = self._exact._exchange
        for name in ("start", "count"):
            setattr(exchange, name, self._timed(getattr(exchange, name)))

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            begun = time.perf_counter()
            result = call(*args)
            self.exchange += time.perf_counter() - begun
            return result

        return timed

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        """Choose the loss, and start the clock."""
        # every other epoch begins with the other loss: odd steps may differ from even ones
        self._is_exact = not self._alternates or (args[1] + trainer.current_epoch) % 2 == 0
        pl_module._joint = self._exact if self._is_exact else PlainMean()
        self.exchange = 0.0 if len(self.steps) < WARM_UP else self.exchange
        self._begun = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Stop the clock, but for the last batch, which is smaller."""
        if not trainer.is_last_batch:
            self.steps.append((self._is_exact, time.perf_counter() - self._begun))


def worker(epochs: int, parts: int) -> None:
    """Train as one process of its world, on its part of the threads; print what was measured."""
    world = int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(2 // parts)
    watch = Stopwatch(alternates=world > 1)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer.from_config(
            DEMO,
            output_dir=folder,
            val_dataset=None,
            test_dataset=None,
            early_stopper=None,
            monitor="train_loss",
            epochs=epochs,
            batch_size=GLOBAL_BATCH // parts,
            num_workers=0,
            save_last=False,
            lightning={
                "accelerator": "cpu",
                "devices": world,
                "strategy": "ddp" if world > 1 else "auto",
                "enable_progress_bar": False,
                "callbacks": [watch],
            },
        )
        trainer.fit()
    if int(os.environ["RANK"]) == 0:
        print(json.dumps({"steps": watch.steps[WARM_UP:], "exchange": watch.exchange}), flush=True)


def measured(parts: int, epochs: int, *, alone: bool = False) -> dict[str, Any]:
    """Run one side, and read what its main process prints; `alone`, each is a world of its own."""
    world = 1 if alone else parts
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port = opened.getsockname()[1]
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    variables |= {"LOCAL_WORLD_SIZE": str(world), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "bench"}
    words = [sys.executable, __file__, f"--worker={parts}", f"--epochs={epochs}"]
    processes = [
        subprocess.Popen(
            words,
            env={**os.environ, **variables, **dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ([0] * parts if alone else range(parts))
    ]
    outputs = [process.communicate()[0] for process in processes]
    result: dict[str, Any] = json.loads(outputs[0].splitlines()[-1])
    return result


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Median, least and greatest."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=6, help="of each side in a round")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.epochs, options.worker)
        return
    durations: dict[str, list[float]] = {name: [] for name in (OURS, ALONE, APART)}
    costs, shares = [], []
    for _ in range(options.rounds):
        alone = measured(1, options.epochs)["steps"]
        apart = measured(2, options.epochs, alone=True)["steps"]
        two = measured(2, options.epochs)
        exact, plain = (
            [seconds for is_exact, seconds in two["steps"] if is_exact == kind]
            for kind in (True, False)
        )
        durations[OURS].append(statistics.median(exact))
        durations[ALONE].append(statistics.median(seconds for _, seconds in alone))
        durations[APART].append(statistics.median(seconds for _, seconds in apart))
        costs.append(statistics.median(exact) / statistics.median(plain))
        shares.append(100 * two["exchange"] / sum(exact))
    rates = {name: [GLOBAL_BATCH / taken for taken in steps] for name, steps in durations.items()}
    for peer, wanted in ((ALONE, 1.3), (APART, 0.9)):
        row = rows.Row.of(
            f"{OURS} on two cores",
            rates[OURS],
            peer,
            rates[peer],
            unit="tiles/s",
            wanted=wanted,
            larger_is_better=True,
        )
        rows.add(row)
        print(f"tiles/s, {OURS} / {peer}: {row.spread}")
    steps_ms = [1e3 * step for step in durations[OURS]]
    print(f"step, exact / plain DDP                         {spread(costs)}")
    print(f"step of {GLOBAL_BATCH} tiles, ms                           {spread(steps_ms, 1)}")
    print(f"of it sending off and waiting for counts, %     {spread(shares, 2)}")


if __name__ == "__main__":
    main()
