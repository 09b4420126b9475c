"""Files that are there whole or not at all, second names of them, and the lock of a folder.

What is written here outlives a crash, a full disk and a power cut: a temporary file beside the
target, its bytes on the disk, a rename, and the folder's entries on the disk.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Final

from lis2_lightning.errors import ConfigError

_HOST: Final = socket.gethostname()
_MACHINE: Final = f"{zlib.crc32(_HOST.encode()):08x}"
_TEMPORARY: Final = re.compile(r"\..+\.(?P<pid>\d+)-(?P<machine>[0-9a-f]{8})\.tmp")
_FORGOTTEN_S: Final = 86_400  # another machine's temporary file is left over after a day untouched
_STEP: Final = 8 * 2**20  # larger ones leave the disk idle at the start, smaller ones cost calls
_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
_held: dict[tuple[int, Path], str] = {}


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file for writing that takes its name only when all of it is on the disk.

    At every instant the earlier file or the new one lies under the name, whole: also after a
    crash, a full disk or a power cut.

    Args:
        path: The file's final name; its folder is made where it is missing.

    Yields:
        A binary file beside it.

    Raises:
        OSError: The file cannot be written; an earlier one is untouched. Where only the folder
            could not be synced, the new one is there, and a power cut may undo it.
    """
    target = Path(path)
    make(target.parent)
    temporary = _beside(target)
    try:
        with io.BufferedWriter(_EarlyFile(temporary, "xb")) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        _discard(temporary)
        raise
    _sync(target.parent)


def link(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Give a file a second name, in place of what lay there, without writing its bytes again.

    Where the file system has no hard links, the file is copied. At every instant the earlier file
    or the new one lies under the name, whole.

    Args:
        source: A file that is on the disk already, as :func:`atomic` leaves it.
        target: The second name.

    Raises:
        OSError: As for :func:`atomic`.
    """
    temporary = _beside(Path(target))
    try:
        temporary.hardlink_to(source)
    except OSError:
        with Path(source).open("rb") as old, atomic(target) as new:
            shutil.copyfileobj(old, new, _STEP)
        return
    try:
        temporary.replace(target)
    finally:
        _discard(temporary)  # a rename leaves it where both are names of one file already
    _sync(Path(target).parent)


def make(folder: Path) -> None:
    """Make a folder and those above it, each with its entry on the disk.

    Raises:
        OSError: One of them cannot be made.
    """
    if not folder.is_dir():
        make(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


class _EarlyFile(io.FileIO):
    """A file whose bytes are on their way to the disk while the next ones are computed.

    Without it the disk would idle until ``fsync``, which would then wait for all of it.
    """

    mode = "wb"  # astropy asks, and knows no exclusive creation
    _written = 0
    _begun = 0

    def write(self, data: Any) -> int:
        written = super().write(memoryview(data)[:_STEP])  # the buffer above writes the rest
        self._written += written
        if self._written - self._begun >= _STEP and hasattr(os, "posix_fadvise"):
            with suppress(OSError):  # a hint: Linux takes it as the order to begin
                os.posix_fadvise(self.fileno(), self._begun, 0, os.POSIX_FADV_DONTNEED)
            self._begun = self._written
        return written


def _beside(target: Path) -> Path:
    """A free name in the target's folder: a rename is atomic within one file system only.

    A dead process with our number may have left a file there, and that may be a second name of a
    snapshot: it is removed, and never written to.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{_MACHINE}.tmp")
    _discard(temporary)
    return temporary


def _discard(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _sync(folder: Path) -> None:
    """Make a rename outlive a power cut: a folder's entries are synced apart from its files."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return  # Windows opens no folders, and a folder may be written to and not read
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> list[Path]:
    """Remove the temporary files that dead processes left in a folder.

    Those of a living process of this machine stay, and those of another machine stay for a day:
    whether that process lives cannot be seen from here.

    Args:
        folder: The folder; what lies below its own folders is not looked at.

    Returns:
        What was removed.
    """
    found = ((path, _TEMPORARY.fullmatch(path.name)) for path in sorted(folder.glob(".*.tmp")))
    left_over = [path for path, name in found if name and _is_left_over(path, name)]
    for path in left_over:
        _discard(path)
    return [path for path in left_over if not path.exists()]


def _is_left_over(path: Path, name: re.Match[str]) -> bool:
    if name["machine"] == _MACHINE and os.name == "posix":
        return not _lives(int(name["pid"]))
    try:
        return time.time() - path.stat().st_mtime > _FORGOTTEN_S
    except OSError:
        return False  # gone in the meantime


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # another user's, or no number of a process
    return True


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a folder, so that no second run writes into it; a dead process holds nothing.

    The lock is the kernel's, on the file ``.lock``, and goes with its process, also where forked
    children outlive it. The file stays behind, empty: were it removed, a run that opens it in that
    moment would hold a file which nobody else sees. Where the file system or the platform knows no
    such locks, only a second run of the same process is refused.

    Args:
        folder: An existing folder.

    Yields:
        Nothing.

    Raises:
        ConfigError: Another run holds it, or the file cannot be written.
    """
    path = folder.resolve() / ".lock"
    owner, since = os.getpid(), f"{datetime.now():%Y-%m-%d %H:%M:%S}"
    ours = f"process {owner} on {_HOST} since {since}"
    # no second descriptor of this file may be opened: closing one would drop the process's lock
    if (theirs := _held.setdefault((owner, path), ours)) is not ours:
        raise _in_use(folder, theirs)
    try:
        with _taken(folder, path) as file:
            _note(file, ours)
            try:
                yield
            finally:
                if owner == os.getpid():  # a forked child holds nothing
                    _note(file, "")
    finally:
        del _held[owner, path]


def _taken(folder: Path, path: Path) -> IO[bytes]:
    try:
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be locked ({error.strerror}): choose another output_dir or run_name"
        ) from error
    if _take(file):
        return file
    with file:
        file.seek(0)
        raise _in_use(folder, file.read(1000).decode(errors="replace"))


def _take(file: IO[bytes]) -> bool:
    """Whether the lock is ours now, or none can be had here."""
    try:
        fcntl: Any = import_module("fcntl")  # Windows has none
        # not flock: forked children would inherit it, and may outlive a parent that is killed
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return True
    except OSError as error:
        return error.errno not in {errno.EACCES, errno.EAGAIN}  # others: no locks on this disk
    return True


def _note(file: IO[bytes], holder: str) -> None:
    with suppress(OSError):  # who holds the lock is told where it can be, and not needed
        file.truncate(0)
        file.write(holder.encode())


def _in_use(folder: Path, holder: str) -> ConfigError:
    who = f" ({holder})" if holder else ""
    return ConfigError(
        f"{folder} is used by another run{who}: wait for it, or choose another run_name"
    )


def size_text(num_bytes: float) -> str:
    """A number of bytes as people read it.

    >>> size_text(482_600_000), size_text(1500), size_text(7)
    ('483 MB', '1.5 kB', '7 bytes')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.3g} {name}"
    return f"{num_bytes:.0f} bytes"
