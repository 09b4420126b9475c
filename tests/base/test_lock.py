"""The lock of a folder: one run at a time, and none that is dead."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lis2_lightning import ConfigError
from lis2_lightning.base.lock import lock

posix = pytest.mark.skipif(os.name != "posix", reason="locks and process numbers are POSIX's")

HOLDS = """
import os, sys, time
from pathlib import Path
from lis2_lightning.base.lock import lock
with lock(Path(sys.argv[1])):
    child = os.fork() if "fork" in sys.argv else 1
    if child == 0:
        time.sleep(60)  # a data loader's worker, which has our descriptors
    print(child, flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that holds a folder, and its child's number where it is to fork one."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            yield process, child
        finally:
            process.kill()
            if arguments:
                os.kill(child, signal.SIGKILL)


@posix
def test_a_second_run_is_refused_with_one_sentence(tmp_path: Path) -> None:
    with holder(tmp_path) as (other, _):
        message = (
            rf"is used by another run \(process {other.pid} on \S+ since "
            r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\): wait for it, or choose another run_name$"
        )
        for _ in range(2):  # being refused must not free it
            with pytest.raises(ConfigError, match=message), lock(tmp_path):
                pass
        assert other.stdin is not None
        other.stdin.close()
        other.wait()
        with lock(tmp_path):
            pass
    assert (tmp_path / ".lock").read_bytes() == b""


@posix
@pytest.mark.parametrize("arguments", [(), ("fork",)], ids=["alone", "with living children"])
def test_the_lock_of_a_killed_process_does_not_block(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    with holder(tmp_path, *arguments) as (other, child):
        other.kill()
        other.wait()
        if arguments:
            os.kill(child, 0)  # it lives
        with lock(tmp_path):
            assert f"process {os.getpid()}" in (tmp_path / ".lock").read_text()


def test_a_second_run_of_the_same_process_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "other").mkdir()
    with lock(tmp_path / "run"), lock(tmp_path / "other"):
        same = tmp_path / "other" / ".." / "run"
        refused = pytest.raises(ConfigError, match=rf"used by another run \(process {os.getpid()} ")
        with refused, lock(same):
            pass
    with lock(tmp_path / "run"):
        pass


@posix
def test_being_refused_in_the_same_process_does_not_free_the_folder(tmp_path: Path) -> None:
    # a record lock goes when any descriptor of its file is closed
    code = HOLDS.replace("sys.stdin.read()", "lock(Path(sys.argv[1])).__enter__()")
    with lock(tmp_path):
        with pytest.raises(ConfigError), lock(tmp_path):
            pass
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
        )
    assert "is used by another run" in done.stderr


def test_a_run_that_fails_frees_its_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyError), lock(tmp_path):
        raise KeyError
    with lock(tmp_path):
        pass


@posix
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_tolerated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    import fcntl

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", fail)
    with lock(tmp_path):
        pass


def test_a_platform_without_record_locks_is_tolerated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    refused = pytest.raises(ConfigError, match="is used by another run")
    with lock(tmp_path), refused, lock(tmp_path):
        pass


def test_a_folder_that_cannot_hold_a_lock_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    refused = pytest.raises(
        ConfigError, match=r"cannot be locked \(.*\): choose another output_dir"
    )
    with refused, lock(tmp_path):
        pass
