"""Writing and reading a snapshot against plain ``torch.save`` and ``torch.load``, in turns.

    python benchmarks/snapshots.py --megabytes 100 --folder runs

Each round writes and reads the same weights and optimizer state in every way; the table shows the
median over the rounds, the spread, and the ratio to PyTorch's plain call, round by round. Files are
written over those of the round before, as a training does. A plain ``torch.save`` waits for no
disk; ours is on the disk, with its folder's entry, when it returns, and is checked before it is
read. Memory is what the process holds at most while
it writes, over what it held before, in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import rows
import torch
from torch import Tensor

from lis2_lightning.snapshots import link_snapshot, read_snapshot, to_snapshot, write_snapshot

# ours, the other side, and what both do
ROWS = [
    ("write_snapshot", "torch.save and fsync", "writing a snapshot of"),
    ("best + last + save", "torch.save three times", "best.pt, last.pt and save_10.pt of"),
    ("read_snapshot", "torch.load", "reading a snapshot of"),
]


def snapshot(megabytes: float, num_layers: int = 30) -> dict[str, Any]:
    """Weights and Adam's two moments of them, of some size in all."""
    size = int(megabytes * 1e6 / 4 / 3 / num_layers)
    rng = torch.Generator().manual_seed(0)

    def values() -> Tensor:
        return torch.randn(size, generator=rng)

    checkpoint = {
        "state_dict": {f"model.layer{i}.weight": values() for i in range(num_layers)},
        "optimizer_states": [
            {"state": {i: {"exp_avg": values(), "exp_avg_sq": values()} for i in range(num_layers)}}
        ],
        "lr_schedulers": [],
        "loops": {},
    }
    return to_snapshot(checkpoint, model_config={}, global_config={}, best_loss=0.5, next_epoch=1)


def contestants(content: dict[str, Any], folder: Path) -> dict[str, tuple[str, Callable[[], Any]]]:
    """What is measured: the name of what it is compared with, and how it is done."""
    plain, ours = folder / "plain.pt", folder / "one.pt"
    best, last, save = (folder / f"{name}.pt" for name in ("best", "last", "save_10"))

    def fresh() -> None:
        torch.save(content, folder / "fresh.pt")

    def synced() -> None:
        torch.save(content, folder / "synced.pt")
        descriptor = os.open(folder / "synced.pt", os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    def three() -> None:
        write_snapshot(content, best)
        link_snapshot(best, save)
        link_snapshot(best, last)

    def three_plain() -> None:
        for path in (best, last, save):
            torch.save(content, path.with_suffix(".plain"))

    return {
        "torch.save": ("torch.save", lambda: torch.save(content, plain)),
        "torch.save, no file there": ("torch.save", fresh),
        "torch.save and fsync": ("torch.save", synced),
        "write_snapshot": ("torch.save", lambda: write_snapshot(content, ours)),
        "best + last + save": ("torch.save", three),
        "torch.save three times": ("torch.save", three_plain),
        "torch.load": ("torch.load", lambda: torch.load(plain, weights_only=True)),  # noqa: TID251 - the rival
        "read_snapshot": ("torch.load", lambda: read_snapshot(ours)),
    }


def extra_memory(megabytes: float, way: str) -> float:
    """How much more memory a process holds while it writes, as a part of the file; Linux only."""
    done = subprocess.run(
        [sys.executable, __file__, "--megabytes", str(megabytes), "--memory-of", way],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def measure_memory(megabytes: float, way: str, folder: Path) -> float:
    """The same, in this process, which has done nothing else."""
    import resource  # noqa: PLC0415 - Windows has none

    content = snapshot(megabytes)
    write_snapshot(snapshot(0.01), folder / "first.pt")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    contestants(content, folder)[way][1]()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return grown * 1024 / (megabytes * 1e6)


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=100, help="size of the snapshot")
    parser.add_argument("--rounds", type=int, default=15, help="counted rounds")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder else")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        if options.memory_of:
            print(measure_memory(options.megabytes, options.memory_of, Path(name)))
            return
        ways = contestants(snapshot(options.megabytes), Path(name))
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for counted in range(-1, options.rounds):
            for way, (_, work) in ways.items():
                Path(name, "fresh.pt").unlink(missing_ok=True)
                begun = time.perf_counter()
                work()
                if counted >= 0:  # the first round warms up
                    seconds[way].append(time.perf_counter() - begun)
    show(options, seconds, ways)
    if sys.platform == "linux":
        for way in ("torch.save", "write_snapshot"):
            part = extra_memory(options.megabytes, way)
            print(f"{way + ', extra memory':40}{100 * part:10.1f} % of the file")


def show(
    options: argparse.Namespace,
    seconds: Mapping[str, list[float]],
    ways: Mapping[str, tuple[str, Callable[[], Any]]],
) -> None:
    """Print the table, and leave the rows."""
    print(f"a snapshot of {options.megabytes:g} MB, {options.rounds} rounds")
    print(f"{'':26}{'median ms':>10}{'min-max ms':>14}{'ratio':>8}  to")
    for way, (rival, _) in ways.items():
        times = [taken * 1e3 for taken in seconds[way]]
        spread = f"{min(times):.0f}-{max(times):.0f}"
        pairs = zip(seconds[way], seconds[rival], strict=True)
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        print(f"{way:26}{statistics.median(times):10.0f}{spread:>14}{ratio:8.2f}  {rival}")
    for ours, peer, what in ROWS:
        both, name = (seconds[ours], peer, seconds[peer]), f"{what} {options.megabytes:g} MB"
        rows.add(rows.Row.of(name, *both, unit="s", wanted=1.2))


if __name__ == "__main__":
    main()
