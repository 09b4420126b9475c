"""Files that are whole or not there, hard links, and leftovers of dead processes."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lis2_lightning.base import files
from lis2_lightning.base.files import atomic, atomic_path, link, make, shown, sweep

posix = pytest.mark.skipif(os.name != "posix", reason="locks and process numbers are POSIX's")


def names(folder: Path) -> list[str]:
    """What lies in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def put(path: Path, content: bytes) -> None:
    """Write a file as the package does."""
    with atomic(path) as file:
        file.write(content)


def fail(number: int) -> Callable[..., None]:
    """A function that raises an error of the system."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def dead_process() -> int:
    """The number of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_file_takes_its_name_when_all_of_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "map.npy"
    with atomic(path) as file:
        file.write(b"all of ")
        assert not path.exists()
        file.write(b"it")
    assert path.read_bytes() == b"all of it"
    assert names(path.parent) == ["map.npy"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_stops_the_writer_leaves_the_earlier_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    put(tmp_path / "a.csv", b"earlier")

    def stop() -> None:
        with atomic(tmp_path / "a.csv") as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        stop()
    assert (tmp_path / "a.csv").read_bytes() == b"earlier"
    assert names(tmp_path) == ["a.csv"]


def test_large_writes_arrive_whole_and_in_order(tmp_path: Path) -> None:
    parts = [os.urandom(size) for size in (5, 20 * 2**20, 100, 9 * 2**20, 8191, 8193)]
    with atomic(tmp_path / "large") as file:
        for part in parts:
            assert file.write(part) == len(part)
    assert (tmp_path / "large").read_bytes() == b"".join(parts)


def test_a_file_can_be_written_back_and_forth(tmp_path: Path) -> None:
    with atomic(tmp_path / "zip") as file:
        file.write(b"....body")
        file.seek(0)
        file.write(b"head")
    assert (tmp_path / "zip").read_bytes() == b"headbody"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_folder_that_cannot_be_synced_is_tolerated_where_the_file_system_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = os.fsync

    def no_folders(file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(number, os.strerror(number))
        real(file)

    monkeypatch.setattr(os, "fsync", no_folders)
    put(tmp_path / "a", b"1")
    assert (tmp_path / "a").read_bytes() == b"1"


def test_a_folder_that_fails_to_be_synced_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", fail(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        make(tmp_path / "new")


def test_a_second_name_outlives_a_new_file_under_the_first(tmp_path: Path) -> None:
    put(tmp_path / "best", b"1")
    put(tmp_path / "last", b"0")
    link(tmp_path / "best", tmp_path / "last")
    link(
        tmp_path / "best", tmp_path / "last"
    )  # a rename between two names of one file does nothing
    put(tmp_path / "best", b"2")
    assert (tmp_path / "last").read_bytes() == b"1"
    assert names(tmp_path) == ["best", "last"]


def test_a_second_name_is_a_copy_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "hardlink_to", fail(errno.EPERM))
    put(tmp_path / "best", b"1")
    link(tmp_path / "best", tmp_path / "last")
    assert (tmp_path / "last").read_bytes() == b"1"
    assert (tmp_path / "last").stat().st_nlink == 1
    assert names(tmp_path) == ["best", "last"]


def test_a_name_for_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    put(tmp_path / "last", b"0")
    with pytest.raises(FileNotFoundError):
        link(tmp_path / "best", tmp_path / "last")
    assert (tmp_path / "last").read_bytes() == b"0"
    assert names(tmp_path) == ["last"]


def test_what_a_dead_process_of_our_number_left_is_not_written_through(tmp_path: Path) -> None:
    # in a container a new process often has the dead one's number, and a process that dies inside
    # link() leaves a temporary file that is a second name of a snapshot
    put(tmp_path / "best", b"precious")
    with atomic(tmp_path / "last") as file:
        temporary = Path(file.name)
    temporary.hardlink_to(tmp_path / "best")
    put(tmp_path / "last", b"new")
    assert (tmp_path / "best").read_bytes() == b"precious"
    assert names(tmp_path) == ["best", "last"]


def left_by(pid: int | str, name: str, machine: str = files._MACHINE, kind: str = "tmp") -> str:
    """The name of a temporary file of a process."""
    return f".{name}.{pid}-{machine}.{kind}"


@posix
def test_a_sweep_removes_what_dead_processes_left_and_nothing_else(tmp_path: Path) -> None:
    dead = dead_process()
    gone = [left_by(dead, name) for name in ("last.pt", "save_1.pt", "config.yaml")]
    kept = [
        left_by(os.getpid(), "last.pt"),
        left_by(os.getppid(), "last.pt"),
        left_by(1, "last.pt"),  # always there, and another user's
        left_by(dead, "last.pt", machine="00000000"),  # may live elsewhere
        left_by("x", "last.pt"),
        left_by(10**30, "last.pt"),
        f"last.pt.{dead}.tmp",
        ".hidden.tmp",
        "last.pt",
    ]
    for name in gone + kept:
        (tmp_path / name).touch()
    assert sorted(path.name for path in sweep(tmp_path)) == sorted(gone)
    assert names(tmp_path) == sorted(kept)
    assert sweep(tmp_path) == []
    assert sweep(tmp_path / "nowhere") == []


@posix
def test_a_sweep_of_some_names_leaves_the_others(tmp_path: Path) -> None:
    dead = dead_process()
    for name in ("map.zarr", "map.zarr.part.0.json", "mask.zarr"):
        (tmp_path / left_by(dead, name)).touch()
    sweep(tmp_path, "map.zarr")
    assert names(tmp_path) == [left_by(dead, "mask.zarr")]


def put_folder(path: Path, content: bytes) -> None:
    """Write a folder as the package does."""
    with atomic_path(path) as temporary:
        temporary.mkdir()
        (temporary / "numbers").write_bytes(content)


def test_a_folder_replaces_an_earlier_one(tmp_path: Path) -> None:
    for content in (b"earlier", b"new"):
        put_folder(tmp_path / "map.zarr", content)
        assert (tmp_path / "map.zarr" / "numbers").read_bytes() == content
        assert names(tmp_path) == ["map.zarr"]


@pytest.mark.parametrize("number", [0, 1])
def test_a_folder_that_cannot_be_replaced_stays(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_folder(tmp_path / "map.zarr", b"earlier")
    calls = iter([fail(errno.EIO) if n == number else Path.replace for n in range(4)])

    def replace(*paths: Path) -> Path | None:
        return next(calls)(*paths)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OSError, match="Input/output"):
        put_folder(tmp_path / "map.zarr", b"new")
    assert (tmp_path / "map.zarr" / "numbers").read_bytes() == b"earlier"
    assert names(tmp_path) == ["map.zarr"]


REPLACES = """
import os, pathlib, signal, sys
from lis2_lightning.base.files import atomic_path
calls, replace = [], pathlib.Path.replace
def killed(*paths):
    calls.append(paths)
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(*paths)
pathlib.Path.replace = killed
with atomic_path(sys.argv[1]) as temporary:
    temporary.mkdir()
    (temporary / "numbers").write_bytes(b"new")
"""


@posix
@pytest.mark.parametrize("number", [1, 2])
def test_an_earlier_folder_outlives_a_kill_before_either_rename(
    number: int, tmp_path: Path
) -> None:
    folder = tmp_path / "map.zarr"
    put_folder(folder, b"earlier")
    dead = subprocess.run([sys.executable, "-c", REPLACES, folder, str(number)], check=False)
    assert dead.returncode == -signal.SIGKILL
    assert folder.exists() == (number == 1)
    sweep(tmp_path)
    assert (folder / "numbers").read_bytes() == b"earlier"
    assert names(tmp_path) == ["map.zarr"]


@posix
def test_an_earlier_folder_is_removed_where_a_new_one_has_its_name(tmp_path: Path) -> None:
    put_folder(tmp_path / "map.zarr", b"new")
    (tmp_path / left_by(dead_process(), "map.zarr", kind="earlier")).mkdir()
    sweep(tmp_path)
    assert (tmp_path / "map.zarr" / "numbers").read_bytes() == b"new"
    assert names(tmp_path) == ["map.zarr"]


def test_what_another_machine_left_is_removed_after_a_day(tmp_path: Path) -> None:
    old, new = (tmp_path / left_by(os.getpid(), name, machine="00000000") for name in "ab")
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 90_000,) * 2)
    assert sweep(tmp_path) == [old]


def test_the_temporary_file_is_one_that_a_sweep_knows(tmp_path: Path) -> None:
    with atomic(tmp_path / "last.pt") as file:
        assert Path(file.name).name == left_by(os.getpid(), "last.pt")
        assert sweep(tmp_path) == []  # for we live


@posix
def test_a_message_shows_a_path_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "runs/a/best.pt") == "runs/a/best.pt"
    monkeypatch.chdir(tmp_path / "inner")
    assert shown(tmp_path / "runs/a/best.pt") == str(tmp_path / "runs/a/best.pt")
    (tmp_path / "inner").rmdir()  # which is the current one
    assert shown(tmp_path / "runs") == str(tmp_path / "runs")
