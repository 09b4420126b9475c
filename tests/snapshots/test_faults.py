"""Whatever breaks while a snapshot is written, the earlier one or the new one lies there, whole."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from lis2_lightning import SnapshotError
from lis2_lightning.snapshots import link_snapshot, read_snapshot, to_snapshot, write_snapshot

FAULTS = Path(__file__).parents[1] / "faults"
ONE_SAVE = [
    *("unlink", "open", "write", "posix_fadvise"),
    *("open", "close"),  # what was written is looked at before it takes its name
    *("fsync", "close", "rename"),
    *("open", "fsync", "close"),  # the folder
]
ONE_LINK = ["unlink", "link", "rename", "unlink", "open", "fsync", "close"]


def snapshot(number: int, num_weights: int = 5000) -> dict[str, Any]:
    """A snapshot all of whose weights are its number."""
    weights = {f"model.{i}": torch.full((num_weights,), float(number)) for i in range(4)}
    checkpoint = {"state_dict": weights, "optimizer_states": [], "lr_schedulers": [], "loops": {}}
    return to_snapshot(
        checkpoint, model_config={}, global_config={}, best_loss=0.5, next_epoch=number
    )


def number_of(path: Path) -> int:
    """Which of them lies there, whole."""
    contents = read_snapshot(path)
    number: int = contents["LIGHTNING"]["next_epoch"]
    weights = contents["MODEL"]["MODEL_STATE"].values()
    assert all(torch.equal(w, torch.full_like(w, number)) for w in weights)
    return number


def save_three(folder: Path) -> None:
    """What the end of an epoch may call for."""
    write_snapshot(snapshot(2), folder / "best.pt")
    link_snapshot(folder / "best.pt", folder / "save_1.pt")
    link_snapshot(folder / "best.pt", folder / "last.pt")


@contextmanager
def failing(number: int, code: int) -> Iterator[Callable[[], int]]:
    """Let the n-th of this process's operations on files fail; what it yields counts them."""
    counter = count()

    def broken(real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **options: Any) -> Any:
            fails = next(counter) == number
            if fails and real.__name__ != "close":  # one that fails has closed all the same
                raise OSError(code, os.strerror(code))
            result = real(*arguments, **options)
            if fails:
                raise OSError(code, os.strerror(code))
            return result

        return operation

    with pytest.MonkeyPatch.context() as patch:
        for name in ("open", "fsync", "close", "replace", "link", "unlink"):
            patch.setattr(os, name, broken(getattr(os, name)))
        methods = {name: broken(getattr(io.FileIO, name)) for name in ("write", "close")}
        patch.setattr(io, "FileIO", type("BrokenFile", (io.FileIO,), methods))
        yield lambda: next(counter)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_an_error_of_any_operation_leaves_the_earlier_or_the_new_snapshot(
    tmp_path: Path, code: int
) -> None:
    with failing(-1, code) as counted:
        save_three(tmp_path)
        num_operations = counted()
    assert num_operations > 20
    seen = set()
    for number in range(num_operations):
        for name in ("best.pt", "last.pt"):
            write_snapshot(snapshot(1), tmp_path / name)
        (tmp_path / "save_1.pt").unlink(missing_ok=True)
        with failing(number, code):
            try:
                save_three(tmp_path)
                is_told = False
            except SnapshotError as error:
                is_told = ".pt cannot be written: " in str(error)
        contents = {path.name: number_of(path) for path in tmp_path.glob("*.pt")}
        everything_is_new = contents == {"best.pt": 2, "last.pt": 2, "save_1.pt": 2}
        assert is_told or everything_is_new, number
        assert contents.get("save_1.pt", 2) == 2
        seen.add(tuple(sorted(contents.items())))
    assert len(seen) >= 4  # nothing new, best, best and save_1, all of them


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that breaks calls; the test skips where it cannot be built or loaded."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("breaking calls of the C library needs Linux and a C compiler named cc")
    library = tmp_path_factory.mktemp("shim") / "calls.so"
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(FAULTS / "calls.c"), "-ldl"]
    subprocess.run(command, check=True)
    return library


@pytest.mark.slow
def test_a_fault_or_a_kill_at_any_call_leaves_the_earlier_or_the_new_snapshot(
    shim: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, str(FAULTS / "calls.py"), str(shim), str(tmp_path)],
        env={**os.environ, "LD_PRELOAD": str(shim)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [line for scenario in results.values() for line in scenario["wrong"]] == []
    # that calls were seen at all, and in which order: bytes, then the name, then the folder
    first, three = ([*distinct(results[name]["calls"])] for name in ("the first", "three names"))
    assert first == ONE_SAVE
    assert three == [*ONE_SAVE, *ONE_LINK, *ONE_LINK]
    assert sum(scenario["trials"] for scenario in results.values()) > 500


def distinct(calls: list[str]) -> Iterator[str]:
    """The calls with all writes of a file, and the advice between them, as one of each."""
    writes = {"write", "posix_fadvise"}
    for before, call in zip(["", *calls], calls, strict=False):
        if call not in writes:
            yield call
        elif before not in writes:
            yield from ("write", "posix_fadvise")


TENTHS = pytest.mark.parametrize("tenth", range(10))


def check_full(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write where there is no room, and find the earlier snapshot and the sentence about it."""
    monkeypatch.chdir(path.parent)
    with pytest.raises(SnapshotError) as raised:
        write_snapshot(snapshot(2), path.name)
    message = r"last\.pt cannot be written: (No space .*|File too large); the earlier snapshot is"
    assert re.match(message, str(raised.value))
    assert number_of(path) == 1
    assert [entry.name for entry in path.parent.glob("*.pt*")] == ["last.pt"]
    assert not list(path.parent.glob(".*"))


@TENTHS
def test_a_limit_of_the_file_size_leaves_the_earlier_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tenth: int
) -> None:
    resource = pytest.importorskip("resource", reason="limits are POSIX's")
    write_snapshot(snapshot(1), tmp_path / "last.pt")
    size = (tmp_path / "last.pt").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size * tenth // 10, before[1]))
    try:
        check_full(tmp_path / "last.pt", monkeypatch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    write_snapshot(snapshot(2), tmp_path / "last.pt")
    assert number_of(tmp_path / "last.pt") == 2


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of its own, of 400 kB; the test skips where none can be mounted."""
    folder = tmp_path_factory.mktemp("disk")
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        pytest.skip("there is no mount command")
    command = [mount, "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip("this machine does not let us mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run([umount, str(folder)], check=True)


@TENTHS
def test_a_full_disk_leaves_the_earlier_snapshot(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, tenth: int
) -> None:
    path, ballast = small_disk / "last.pt", small_disk / "ballast"
    write_snapshot(snapshot(1), path)
    free = shutil.disk_usage(small_disk).free - path.stat().st_size * tenth // 10
    ballast.write_bytes(bytes(free))
    try:
        check_full(path, monkeypatch)
    finally:
        monkeypatch.undo()  # nobody may stand in the folder when it goes
        ballast.unlink()
    write_snapshot(snapshot(2), path)
    assert number_of(path) == 2
    path.unlink()
