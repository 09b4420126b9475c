"""Our metrics beside scikit-learn's and torchmetrics', on the same pixels, in turns.

    python benchmarks/metrics.py --pixels 1000000

Each round feeds the same batches to every contestant and asks for average precision and ROC AUC;
the table shows the median over the rounds, the spread, the ratio to ours and how far the two values
lie from scikit-learn's. One thread, so that rounds are comparable.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import rows
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision

from lis2_lightning.metrics import AveragePrecision, PixelMetrics, RocAuc

BATCH_SIZE = 52_000  # labelled pixels: 256 patches of 32 x 32 px, a fifth of them labelled

Batches = list[tuple[Tensor, Tensor]]
Contestant = Callable[[Batches], tuple[float, float]]


def pixels(num: int) -> Batches:
    """Probabilities as a trained network gives them, crowded near 0 and 1, and their truth."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(num, generator=rng) * 4 - 4
    target = (torch.rand(num, generator=rng) < torch.sigmoid(logits / 2)).float()
    probs = torch.sigmoid(logits)
    parts = (torch.split(values, BATCH_SIZE) for values in (probs, target))
    return list(zip(*parts, strict=True))


def ours(batches: Batches) -> tuple[float, float]:
    """One histogram for both."""
    metrics = PixelMetrics([AveragePrecision(), RocAuc()])
    for probs, target in batches:
        metrics.update(probs, target)
    values = metrics.compute()
    return values["average_precision"].item(), values["roc_auc"].item()


def scikit_learn(batches: Batches) -> tuple[float, float]:
    """Everything kept, sorted at the end, once for each value."""
    probs, target = (np.concatenate(part) for part in zip(*batches, strict=True))
    return average_precision_score(target, probs), roc_auc_score(target, probs)


def torchmetrics(thresholds: int | None) -> Contestant:
    """Exact, everything kept, without thresholds; binned with them; states shared."""

    def measure(batches: Batches) -> tuple[float, float]:
        pair: dict[str, Metric | MetricCollection] = {
            "average_precision": BinaryAveragePrecision(thresholds=thresholds),
            "roc_auc": BinaryAUROC(thresholds=thresholds),
        }
        metrics = MetricCollection(pair)
        for probs, target in batches:
            metrics.update(probs, target.int())
        values = metrics.compute()
        return values["average_precision"].item(), values["roc_auc"].item()

    return measure


CONTESTANTS: dict[str, Contestant] = {
    "lis2_lightning": ours,
    "scikit-learn": scikit_learn,
    "torchmetrics, exact": torchmetrics(None),
    "torchmetrics, 200 thresholds": torchmetrics(200),
}


def main(arguments: list[str] | None = None) -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pixels", type=int, default=20_000_000, help="labelled pixels in all")
    parser.add_argument("--rounds", type=int, default=3, help="how often each contestant runs")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    batches = pixels(options.pixels)
    ours(batches[:1])  # imports and caches are nobody's time
    seconds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    values: dict[str, tuple[float, float]] = {}
    for _ in range(options.rounds):
        for name, contestant in CONTESTANTS.items():
            start = time.perf_counter()
            values[name] = contestant(batches)
            seconds[name].append(time.perf_counter() - start)
    print(f"{options.pixels:,} labelled pixels in {len(batches)} batches, {options.rounds} rounds")
    print(f"{'':30}{'median s':>10}{'min-max s':>16}{'ratio':>8}{'AP off':>10}{'AUC off':>10}")
    for name, times in seconds.items():
        median = statistics.median(times)
        ratio = median / statistics.median(seconds["lis2_lightning"])
        off = [got - true for got, true in zip(values[name], values["scikit-learn"], strict=True)]
        spread = f"{min(times):.2f}-{max(times):.2f}"
        if name != "lis2_lightning":
            what, own = f"AP and ROC AUC of {options.pixels:,} pixels", seconds["lis2_lightning"]
            rows.add(rows.Row.of(what, own, name, times, unit="s", wanted=1 / 50))
        print(f"{name:30}{median:10.3f}{spread:>16}{ratio:8.1f}{off[0]:10.0e}{off[1]:10.0e}")


if __name__ == "__main__":
    main()
