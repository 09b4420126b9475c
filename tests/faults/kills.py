"""Kill runs and start them again: what comes out must be what an undisturbed run gives.

    python tests/faults/kills.py --kills 200 --seed 0    # until that many kills, and the counts
    python tests/faults/kills.py --seed 0 --trial 17     # one trial of them again

This process has imported everything and computes nothing; it forks a fresh trainer for each try,
which takes a fraction of the time that starting Python takes. A trial is one run in a folder of its
own: it is killed (SIGKILL) once or a few times, at a random moment or just before its n-th
operation on a file, and started again with the very same configuration until it ends by itself.
After each kill every snapshot must load; at the end everything that the run leaves must be, bit for
bit, what the undisturbed run left. A trial follows from its seed and number, but for the moments.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from unittest import mock

import torch
from torch import nn

from lis2_lightning import SyntheticDataset, Trainer
from lis2_lightning.snapshots import read_snapshot


class Droppy(nn.Sequential):
    """Batch statistics and dropout: what a resumed run may get wrong."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 2, 3, padding=1),
            nn.BatchNorm2d(2),
            nn.Dropout(0.3),
            nn.Conv2d(2, 1, 1),
            nn.Sigmoid(),
        )


FIELD: Final[dict[str, Any]] = {
    "height": 64,
    "width": 64,
    "seed": 3,
    "size": 16,
    "stride": 16,
    "num_folds": 3,
}
TILES: Final = {"type": "SyntheticDataset", **FIELD}
LIGHTNING: Final = {"enable_progress_bar": False, "accelerator": "cpu"}
RUN: Final = {
    "output_dir": "runs",  # below the working directory, which is each trial's own
    "run_name": "run",
    "seed": 1,
    "model": {"class_path": "__main__.Droppy"},
    "train_dataset": {
        **TILES,
        "folds": [0],
        "data_augmentations": [
            "RandomHorizontalFlip",
            {"type": "NoiseDataAugmentation", "noise_var": 0.1},
        ],
    },
    "val_dataset": {**TILES, "folds": [1]},
    "test_dataset": {**TILES, "folds": [2]},
    "optimizer": {"type": "Adam", "lr": 0.01},
    "early_stopper": True,
    "epochs": 4,
    "batch_size": 1,
    "num_workers": 0,
    "save_interval": 1,
    "save_last": True,
    "save_every_n_steps": 2,
    "resume": "auto",
    "report": False,  # it has times, too
    "lightning": LIGHTNING,
}
# trials take them in turns
VARIANTS: Final[list[dict[str, Any]]] = [
    {"scheduler": {"type": "StepLR", "step_size": 1, "gamma": 0.7}},
    {"scheduler": {"type": "ReduceLROnPlateau", "patience": 0, "threshold": 1.0}},
    {"early_stopper": {"type": "LossEarlyStopping", "patience": 2, "min_delta": 10.0}},
    {"lightning": {**LIGHTNING, "accumulate_grad_batches": 2}},
    {"save_every_n_steps": None, "save_interval": 2},
]
ENDED: Final = 0
ENOUGH: Final = 20  # failures, to be looked at before there are more
FOLDER: Final = Path("runs/run")
RETURNED: Final = Path("returned.json")
WATCHED: Final = {"open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.truncate"}
# these have times, and the lock may name a process that was killed
# the view of the map is made after the result, as pictures are: a run that is over is not repeated
PASSED_OVER: Final = {"environment.json", "events.jsonl", "report_map.npz", ".lock"}
# how often Lightning stepped a scheduler, which nothing reads: the facade steps ReduceLROnPlateau
# itself, and Lightning counts it only after the snapshot has been taken
NOT_COMPARED: Final = "epoch_loop.scheduler_progress"


class BrokenPromiseError(Exception):
    """What a trial found."""


def in_child(work: Callable[[], None], log: Path) -> int:
    """Start a forked child on some work; its process number."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        torch.set_num_threads(1)  # a fork has one
        work()
        status = ENDED
    except BaseException:  # noqa: BLE001 - a child never returns into its parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(child: int, seconds: float | None = None) -> int:
    """Wait for a child, and kill it when its time is up; its exit status, negative for a signal."""
    if seconds is not None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.0005)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Operations:
    """Counts this process's operations on files of a folder, and kills it just before one.

    Args:
        folder: The folder.
        fatal: The number of that operation; none to count alone.
    """

    def __init__(self, folder: Path, fatal: int | None) -> None:
        self.num = 0
        self._folder = str(folder.resolve())
        self._fatal = fatal
        sys.addaudithook(self._hear)  # audit events come before what they tell of
        fsync = os.fsync

        def counted(file: int) -> None:
            self._count()
            fsync(file)

        os.fsync = counted  # type: ignore[assignment]  # the one that has no event

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in WATCHED:
            names = [os.fsdecode(a) for a in arguments if isinstance(a, str | bytes | os.PathLike)]
            if any(os.path.abspath(name).startswith(self._folder) for name in names):  # noqa: PTH100
                self._count()

    def _count(self) -> None:
        if self.num == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        self.num += 1


def train(place: Path, changes: Mapping[str, Any], fatal: int | None = None) -> None:
    """Train in a trial's folder, and note what is returned; nothing is drawn."""
    os.chdir(place)
    mock.patch(
        "lis2_lightning.report.run_pictures.draw_curves"
    ).start()  # pictures take most of the time
    mock.patch("lis2_lightning.report.run_pictures.is_drawn", return_value=False).start()
    operations = Operations(FOLDER.parent, fatal)
    returned = Trainer.from_config({**RUN, **changes}).train()
    RETURNED.write_text(json.dumps({"returned": returned, "operations": operations.num}))


def check_loads(place: Path) -> None:
    """Load each snapshot of a run that was killed.

    Raises:
        SnapshotError: One does not load.
    """
    for path in (place / FOLDER).glob("*.pt"):
        read_snapshot(path)


def check_same(place: Path, reference: Path) -> None:
    """Compare all that a run left with what the undisturbed one left.

    Raises:
        BrokenPromiseError: Something differs.
    """
    differences = [*differing(left_by(reference), left_by(place), "")]
    if differences:
        raise BrokenPromiseError("; ".join([*differences[:6], f"{len(differences)} in all"]))


def left_by(place: Path) -> dict[str, Any]:
    """What a run returned and all of its files, but for how long it took."""
    left: dict[str, Any] = {"returned": json.loads((place / RETURNED).read_text())["returned"]}
    for path in sorted((place / FOLDER).iterdir()):
        if path.suffix == ".pt":
            left[path.name] = read_snapshot(path)
        elif path.name == "result.json":
            left[path.name] = {**json.loads(path.read_text()), "seconds": 0}
        elif path.name not in PASSED_OVER:
            left[path.name] = path.read_bytes()
    return left


def differing(expected: Any, actual: Any, path: str) -> Iterator[str]:
    """Where nested values differ, bit for bit; a NaN is itself."""
    if isinstance(expected, list | tuple) and isinstance(actual, list | tuple):
        expected, actual = dict(enumerate(expected)), dict(enumerate(actual))
    if isinstance(expected, dict) and isinstance(actual, dict):
        yield from (f"{path}/{key} is in one alone" for key in expected.keys() ^ actual.keys())
        common = [key for key in expected if key in actual and key != NOT_COMPARED]
        for key in common:
            yield from differing(expected[key], actual[key], f"{path}/{key}")
    elif isinstance(expected, torch.Tensor) and isinstance(actual, torch.Tensor):
        kinds = [(t.dtype, t.shape, t.contiguous().numpy().tobytes()) for t in (expected, actual)]
        if kinds[0] != kinds[1]:
            yield f"{path} has other values"
    elif repr(expected) != repr(actual):
        yield f"{path} is {actual!r} and was {expected!r}"[:300]


class Soak:
    """Trials one after the other, each against the undisturbed run of its variant.

    Args:
        work: Where the trials' folders go; that of a failed one stays.
        seed: Decides, with a trial's number, how it is killed.
        changes: Keys that win over those of every variant.
    """

    def __init__(self, work: Path, seed: int, changes: Mapping[str, Any]) -> None:
        self.counts: Counter[str] = Counter()
        self._work = work
        self._seed = seed
        self._variants = [{**variant, **changes} for variant in VARIANTS]
        self._references: dict[int, tuple[Path, float, int]] = {}

    def trial(self, number: int) -> None:
        """Kill a run, once or a few times, finish it, and compare.

        Raises:
            BrokenPromiseError: As said.
        """
        variant = number % len(self._variants)
        reference, seconds, operations = self._reference(variant)
        rng = random.Random(f"{self._seed}/{number}")  # noqa: S311 - no secret
        place = self._work / f"trial{number}"
        for _ in range(rng.choice((1, 1, 2, 3))):
            moment, fatal = rng.uniform(0.2, 1) * seconds, rng.randrange(operations)
            kind = rng.choice(("at a moment", "at an operation"))
            ends = {"seconds": moment} if kind == "at a moment" else {"fatal": fatal}
            status = self._start(place, variant, **ends)
            self.counts[f"kills {kind}" if status == -signal.SIGKILL else "ended before"] += 1
            if status not in {ENDED, -signal.SIGKILL}:
                raise BrokenPromiseError(last_words(place / "log"))
            self._check(place, lambda: check_loads(place))
        self._finish(place, variant)
        self._check(place, lambda: check_same(place, reference))
        self.counts["trials"] += 1
        shutil.rmtree(place)

    @property
    def kills(self) -> int:
        """How many there were."""
        return self.counts["kills at a moment"] + self.counts["kills at an operation"]

    def _reference(self, variant: int) -> tuple[Path, float, int]:
        """The undisturbed run: its folder, how long it takes, its operations on files."""
        if variant not in self._references:
            place = self._work / f"reference{variant}"
            begun = time.monotonic()
            self._finish(place, variant)
            seconds = time.monotonic() - begun
            operations = json.loads((place / RETURNED).read_text())["operations"]
            self._references[variant] = place, seconds, operations
        return self._references[variant]

    def _start(
        self, place: Path, variant: int, *, seconds: float | None = None, fatal: int | None = None
    ) -> int:
        place.mkdir(parents=True, exist_ok=True)
        changes = self._variants[variant]
        return wait(in_child(lambda: train(place, changes, fatal), place / "log"), seconds)

    def _finish(self, place: Path, variant: int) -> None:
        if self._start(place, variant) != ENDED:
            raise BrokenPromiseError(last_words(place / "log"))

    def _check(self, place: Path, work: Callable[[], None]) -> None:
        # in a child of its own, for torch is not used in this process
        if wait(in_child(work, place / "checks")) != ENDED:
            raise BrokenPromiseError(last_words(place / "checks"))


def last_words(log: Path) -> str:
    """The last line of a log: what an exception said."""
    return log.read_text().strip().splitlines()[-1]


def main() -> int:
    """Run the trials, print failures and, at last, the counts as JSON; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="go on until there were so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trial", type=int, help="this one alone")
    parser.add_argument("--set", type=json.loads, default={}, help="keys to change, as JSON")
    options = parser.parse_args()
    soak = Soak(Path(tempfile.mkdtemp(prefix="kills-")), options.seed, options.set)
    SyntheticDataset(**FIELD)  # the field is made once, for all children
    begun, number, failed = time.monotonic(), options.trial or 0, 0
    while soak.kills < options.kills and failed < ENOUGH and options.trial in {None, number}:
        try:
            soak.trial(number)
        except BrokenPromiseError as error:
            failed += 1
            message = f"seed {options.seed}, trial {number} in {soak._work}: {error}"
            sys.stdout.write(f"{message}\n")
            sys.stdout.flush()
        number += 1
    seconds = round(time.monotonic() - begun, 1)
    counts = {"kills": soak.kills, "failed": failed, **soak.counts, "seconds": seconds}
    sys.stdout.write(f"{json.dumps(counts)}\n")
    if not failed:
        shutil.rmtree(soak._work)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
