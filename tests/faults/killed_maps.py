"""Kill predictions and start them again: the bytes must be those of an undisturbed one.

    python tests/faults/killed_maps.py --kills 30 --seed 0 --files map.npy mask.npy

As in ``kills.py``: each prediction is killed (SIGKILL) a few times, at a random moment or just
before its n-th operation on a file, and started again with the same arguments until it ends by
itself. Until then neither file has its name, or it is whole; at the end nothing else is left.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))
from lis2_lightning import TileDataset, Trainer
from tests.faults.kills import ENDED, BrokenPromiseError, Operations, in_child, last_words, wait

SIZE: Final = 16
IMAGE: Final = "image.npy"
COUNT: Final = "operations.json"


def network() -> nn.Module:
    """The same in each child."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1), nn.Sigmoid())


def predict(place: Path, names: Sequence[str], fatal: int | None) -> None:
    """Map the image in a trial's folder; the journal is written after each band."""
    small = np.ones((SIZE, SIZE), np.float32)
    trainer = Trainer(
        place / "runs",
        model=network(),
        train_dataset=TileDataset(small, target=small, size=SIZE, stride=4),
        batch_size=16,
        num_workers=0,
        lightning={"enable_progress_bar": False, "accelerator": "cpu"},
    )
    mock.patch("lis2_lightning.inference.scratch._SAVE_S", -1.0).start()
    operations = Operations(place / "out", fatal)
    output, mask = (place / "out" / name for name in names)
    trainer.predict(None, image=place.parent / IMAGE, output=output, mask=mask, threshold=0.5)
    (place / COUNT).write_text(json.dumps(operations.num))


def start(
    place: Path, names: Sequence[str], *, seconds: float | None = None, fatal: int | None = None
) -> int:
    """Start a prediction in a child; its exit status."""
    (place / "out").mkdir(parents=True, exist_ok=True)
    status: int = wait(in_child(lambda: predict(place, names, fatal), place / "log"), seconds)
    return status


def files_of(place: Path) -> dict[str, bytes]:
    """What lies in a trial's folder; a folder in it as all its files, one after the other."""
    return {path.name: content(path) for path in sorted((place / "out").iterdir())}


def content(path: Path) -> bytes:
    """The bytes of a file, or the names and bytes of the files of a folder."""
    if path.is_file():
        return path.read_bytes()
    inside = sorted(entry for entry in path.rglob("*") if entry.is_file())
    return b"".join(str(file.relative_to(path)).encode() + file.read_bytes() for file in inside)


def trial(
    place: Path,
    names: Sequence[str],
    reference: Path,
    counts: Counter[str],
    rng: random.Random,
) -> None:
    """Kill a prediction up to six times, finish it, and compare.

    Raises:
        BrokenPromiseError: As said.
    """
    expected = files_of(reference)
    for _ in range(rng.randrange(1, 7)):
        status = start(place, names, **death(reference, rng))
        if status not in {ENDED, -signal.SIGKILL}:
            raise BrokenPromiseError(last_words(place / "log"))
        left = files_of(place)
        whole = {name for name in names if name in left}
        if any(left[name] != expected[name] for name in whole):
            raise BrokenPromiseError("a file has its name and is not whole")
        counts["kills"] += status != ENDED
        counts["kills after rows"] += any(name.endswith(".json") for name in left)
        counts["kills between the files"] += len(whole) == 1
        if len(whole) == len(names):
            break
    # where both files were there, and no rows, they are not made again
    is_over = status != ENDED and start(place, names) != ENDED
    if is_over and not (len(whole) == 2 and "exists already" in last_words(place / "log")):
        raise BrokenPromiseError(last_words(place / "log"))
    if files_of(place) != expected:
        raise BrokenPromiseError(f"{sorted(files_of(place))} differ")
    shutil.rmtree(place)


def death(reference: Path, rng: random.Random) -> dict[str, Any]:
    """When a prediction is killed: at a moment, or before an operation on a file."""
    if rng.random() < 0.5:
        return {"seconds": rng.uniform(0.1, 1) * float((reference / "seconds").read_text())}
    num = json.loads((reference / COUNT).read_text())
    # the last operations are those that give the files their names
    return {"fatal": rng.choice((rng.randrange(num), num - rng.randrange(12)))}


def main() -> int:
    """Run trials until there were enough kills, and print the counts as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", nargs=2, default=["map.npy", "mask.npy"])
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="killed-maps-"))
    reference = work / "reference"
    reference.mkdir()
    np.save(work / IMAGE, np.random.default_rng(0).random((260, 90), np.float32))
    begun = time.monotonic()
    if start(reference, options.files) != ENDED:
        raise BrokenPromiseError(last_words(reference / "log"))
    (reference / "seconds").write_text(str(time.monotonic() - begun))
    counts: Counter[str] = Counter()
    while counts["kills"] < options.kills:
        rng = random.Random(f"{options.seed}/{counts['trials']}")  # noqa: S311 - no secret
        trial(work / f"trial{counts['trials']}", options.files, reference, counts, rng)
        counts["trials"] += 1
    shutil.rmtree(work)
    sys.stdout.write(f"{json.dumps(counts)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
