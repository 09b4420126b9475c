"""The lock of a run's folder: one run writes into it, and a dead process holds nothing."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from lis2_lightning.errors import ConfigError

_held: dict[tuple[int, Path], str] = {}


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold an existing folder, so that no second run writes into it.

    The kernel's record lock on the file ``.lock`` is released with its process, even where forked
    children outlive it (``flock``, which the package ``filelock`` uses, would be inherited). The
    empty file stays behind: removing it would let two runs lock two different files. Where the
    file system or the platform has no such locks, only a second run of this process is refused.

    Raises:
        ConfigError: Another run holds it, or the file cannot be written.
    """
    path = folder.resolve() / ".lock"
    owner = os.getpid()
    ours = f"process {owner} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}"
    # no second descriptor of this file may be opened: closing it would release the process's lock
    if (holder := _held.setdefault((owner, path), ours)) is not ours:
        raise _in_use(folder, holder)
    try:
        with _locked_file(folder, path) as file:
            _write_holder(file, ours)
            try:
                yield
            finally:
                if owner == os.getpid():  # a forked child holds nothing
                    _write_holder(file, "")
    finally:
        del _held[owner, path]


def _locked_file(folder: Path, path: Path) -> IO[bytes]:
    try:
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be locked ({error.strerror}): choose another output_dir or run_name"
        ) from error
    if acquire(file):
        return file
    with file:
        file.seek(0)
        raise _in_use(folder, file.read(1000).decode(errors="replace"))


def acquire(file: IO[bytes]) -> bool:
    """Lock an open file for this process, until it closes any descriptor of the file.

    False where another process holds the lock; true also where there are no locks.
    """
    try:
        fcntl: Any = import_module("fcntl")  # missing on Windows
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return True
    except OSError as error:
        return error.errno not in {errno.EACCES, errno.EAGAIN}  # others: no locks on this disk
    return True


def _write_holder(file: IO[bytes], holder: str) -> None:
    with suppress(OSError):  # the name of the holder is only for the message
        file.truncate(0)
        file.write(holder.encode())


def _in_use(folder: Path, holder: str) -> ConfigError:
    who = f" ({holder})" if holder else ""
    return ConfigError(
        f"{folder} is used by another run{who}: wait for it, or choose another run_name"
    )
