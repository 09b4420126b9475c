"""Break every system call of a save in turn, and look at what lies there afterwards.

    cc -shared -fPIC -o calls.so tests/faults/calls.c
    LD_PRELOAD=calls.so python tests/faults/calls.py calls.so FOLDER

Each scenario saves snapshots over earlier ones in a forked child. For each call of the C library on
their folder there is a trial for each fault: the call fails before or after its work, all calls
fail from there on, half is written, the process is killed after the call, which is before the next.
Under each name there must then be the earlier snapshot or the new one, whole. Prints what was
tried, as JSON.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import torch

from lis2_lightning import SnapshotError
from lis2_lightning.base import files
from lis2_lightning.snapshots import link_snapshot, read_snapshot, to_snapshot, write_snapshot

COUNT, FAIL, FAIL_AFTER, FAIL_FROM, HALF, KILL = range(6)
FAULTS: Final = {
    "fails with EIO": (FAIL, errno.EIO),
    "fails with ENOSPC": (FAIL, errno.ENOSPC),
    "works and reports EIO": (FAIL_AFTER, errno.EIO),
    "and all later ones fail with EIO": (FAIL_FROM, errno.EIO),
    "and all later ones fail with ENOSPC": (FAIL_FROM, errno.ENOSPC),
    "writes half": (HALF, 0),
    "is the last before a kill": (KILL, 0),
}
NUM_WEIGHTS: Final = 3000
OLD, NEW = 1, 2


def snapshot(number: int) -> dict[str, Any]:
    """A small snapshot, all of whose weights are its number."""
    weights = {f"model.{i}": torch.full((NUM_WEIGHTS,), float(number)) for i in range(3)}
    checkpoint = {"state_dict": weights, "optimizer_states": [], "lr_schedulers": [], "loops": {}}
    return to_snapshot(
        checkpoint, model_config={}, global_config={}, best_loss=0.5, next_epoch=number
    )


def number_of(path: Path) -> int | str | None:
    """Which snapshot lies under a name: its number, none, or what is wrong with it."""
    if not path.exists():
        return None
    try:
        content = read_snapshot(path)
    except SnapshotError as error:
        return str(error)
    values = {float(v) for w in content["MODEL"]["MODEL_STATE"].values() for v in w.unique()}
    number: int = content["LIGHTNING"]["next_epoch"]
    return number if values == {float(number)} else f"{values} in number {number}"


def save_one(folder: Path) -> None:
    """One snapshot over an earlier one, or where there was none."""
    write_snapshot(snapshot(NEW), folder / "last.pt")


def save_three(folder: Path) -> None:
    """What the end of an epoch may call for."""
    write_snapshot(snapshot(NEW), folder / "best.pt")
    link_snapshot(folder / "best.pt", folder / "save_1.pt")
    link_snapshot(folder / "best.pt", folder / "last.pt")


def save_three_without_links(folder: Path) -> None:
    """The same on a file system that knows no second names."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    Path.hardlink_to = refuse  # type: ignore[assignment]  # in the child alone
    save_three(folder)


# what lies there before, and the save
SCENARIOS: Final[dict[str, tuple[tuple[str, ...], Callable[[Path], None]]]] = {
    "the first": ((), save_one),
    "over an earlier one": (("last.pt",), save_one),
    "three names": (("best.pt", "last.pt"), save_three),
    "three names, copied": (("best.pt", "last.pt"), save_three_without_links),
}


class Calls:
    """The library that counts calls, loaded into this process already.

    Args:
        path: The library.
    """

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        self._library.disarm.restype = ctypes.c_char_p

    def run(
        self,
        work: Callable[[Path], None],
        folder: Path,
        mode: int = COUNT,
        at: int = -1,
        code: int = 0,
    ) -> tuple[int, dict[str, Any]]:
        """Run a save in a forked child; its exit status, and what it tells."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            report: dict[str, Any] = {"error": None}
            self._library.arm(os.fsencode(folder), mode, at, code)
            try:
                work(folder)
            except SnapshotError as error:
                report["error"] = str(error)
            except BaseException as error:  # noqa: BLE001 - a child must not return from here
                report["error"] = f"not ours: {error!r}"
            report["calls"] = self._library.disarm().decode().split()
            os.write(writer, json.dumps(report).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            answer = json.loads(pipe.read() or "{}")
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), answer


def begin(folder: Path, earlier: tuple[str, ...]) -> None:
    """Have the earlier snapshots lie in an otherwise empty folder."""
    for path in folder.iterdir():
        path.unlink()
    for name in earlier:
        write_snapshot(snapshot(OLD), folder / name)


def found_wrong(
    folder: Path, earlier: tuple[str, ...], status: int, answer: dict[str, Any]
) -> Iterator[str]:
    """What a trial found that must not be."""
    names = {*earlier, *(path.name for path in folder.glob("*.pt"))}
    now = {name: number_of(folder / name) for name in names}
    allowed = {name: {OLD if name in earlier else None, NEW} for name in names}
    yield from (f"{name} is {now[name]}" for name in names if now[name] not in allowed[name])
    if status == -signal.SIGKILL:
        return
    error = answer.get("error", "it told nothing")
    if error is None and set(now.values()) != {NEW}:
        yield f"no error, and there is {now}"
    if error and not (".pt cannot be written: " in error and str(folder) in error):
        yield f"the error is {error}"
    if error and "the earlier snapshot is whole" in error:
        name = Path(error.split(" cannot be written")[0]).name
        if now[name] != OLD:
            yield f"{name} is {now[name]} where the error says that it is the earlier one"


def recover(folder: Path, save: Callable[[Path], None]) -> Iterator[str]:
    """Do what the next run does: sweep and save again; what is wrong then."""
    files.sweep(folder)
    left = [path.name for path in folder.iterdir() if path.suffix != ".pt"]
    if left:
        yield f"{left} is left after the sweep"
    save(folder)
    if any(number_of(path) != NEW for path in folder.iterdir()):
        yield "the next save does not work"


def every_call(calls: Calls, folder: Path, name: str) -> tuple[list[str], int, list[str]]:
    """Every fault at every call of a scenario: the calls, the number of trials, what is wrong."""
    earlier, save = SCENARIOS[name]
    begin(folder, earlier)
    _, trace = calls.run(save, folder)
    wrong, trials = [], 0
    for at, call in enumerate(trace["calls"]):
        for fault, (mode, code) in FAULTS.items():
            if mode == HALF and call != "write":
                continue
            begin(folder, earlier)
            status, answer = calls.run(save, folder, mode, at, code)
            faults = [*found_wrong(folder, earlier, status, answer)]
            if status == -signal.SIGKILL:
                faults += recover(folder, save_three if "three" in name else save_one)
            elif mode != FAIL_FROM and call != "unlink":
                faults += (f"{path.name} is left" for path in folder.glob(".*"))
            wrong += [f"{name}, call {at} ({call}) {fault}: {text}" for text in faults]
            trials += 1
    return trace["calls"], trials, wrong


def main() -> int:
    """Try everything and print it."""
    torch.set_num_threads(1)
    calls = Calls(sys.argv[1])
    folder = Path(tempfile.mkdtemp(dir=sys.argv[2]))
    results = {}
    for name in SCENARIOS:
        done, trials, wrong = every_call(calls, folder, name)
        results[name] = {"calls": done, "trials": trials, "wrong": wrong}
    shutil.rmtree(folder)
    sys.stdout.write(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
