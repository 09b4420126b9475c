"""Files that are written whole or not at all, hard links to them, and what crashes leave behind.

What is written here survives a crash, a full disk and a power cut: a temporary file beside the
target, fsync, a rename, and fsync of the folder.
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
from pathlib import Path
from typing import IO, Final

from lis2_lightning.errors import ConfigError

_MACHINE: Final = f"{zlib.crc32(socket.gethostname().encode()):08x}"
_TEMPORARY: Final = re.compile(
    r"\.(?P<target>.+)\.(?P<pid>\d+)-(?P<machine>[0-9a-f]{8})\.(?P<kind>tmp|earlier)"
)
_open: list[Path] = []  # temporary files of this process
_STALE_S: Final = 86_400  # a temporary file of another machine is removed after a day
_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears under its name only when all of it is on the disk.

    At every instant, the name refers to the complete earlier file or the complete new one. Missing
    folders are created.

    Raises:
        OSError: The file cannot be written, and an earlier one is untouched; or only the folder
            cannot be synced: the new file is in place, but a power cut may undo it.
    """
    with (
        _placed(Path(path)) as temporary,
        # not mode "xb", which astropy does not know
        io.BufferedWriter(io.FileIO(temporary, "wb", opener=_exclusive)) as file,
    ):
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def written(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """The same for a file that a user has named.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        with atomic(path) as file:
            yield file
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{shown(Path(path))} cannot be written: {reason}") from error


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A free path beside a file or folder, which gets its name when all of it is on the disk.

    For libraries that open files themselves. An earlier folder is moved aside first: between the
    two renames nothing has the name, and :func:`sweep` gives it back after a kill. Errors as for
    :func:`atomic`.
    """
    with _placed(Path(path)) as temporary:
        yield temporary
        for entry in (temporary, *temporary.rglob("*")):
            _sync(entry)


@contextmanager
def _placed(target: Path) -> Iterator[Path]:
    """A temporary path that replaces the target, or is removed after an error."""
    make(target.parent)
    temporary = _beside(target)
    _open.append(temporary)
    try:
        yield temporary
        if target.is_dir() and temporary.is_dir():
            _replace_folder(temporary, target)
        else:
            temporary.replace(target)
    except BaseException:
        _discard(temporary)
        raise
    finally:
        _open.remove(temporary)
    _sync(target.parent)


def _replace_folder(temporary: Path, target: Path) -> None:
    """Move a folder aside until another has its name: one of the two is whole at any moment."""
    earlier = _beside(target, "earlier")
    try:
        target.replace(earlier)
        temporary.replace(target)
    finally:
        if not target.exists():
            earlier.replace(target)
    _sync(target.parent)
    # renamed, so that no sweep puts back what is removed in part
    _discard(earlier.replace(_beside(target)))


def is_writing() -> bool:
    """Whether this process is writing a file of :func:`atomic`."""
    return bool(_open)


def link(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Replace `target` atomically by a hard link to `source`, a file of :func:`atomic`.

    Where the file system has no hard links, it becomes a copy. Errors as for :func:`atomic`.
    """
    temporary = _beside(Path(target))
    try:
        temporary.hardlink_to(source)
    except OSError:
        with Path(source).open("rb") as old, atomic(target) as new:
            shutil.copyfileobj(old, new)
        return
    try:
        temporary.replace(target)
    finally:
        _discard(temporary)  # renaming one link of a file to another does nothing
    _sync(Path(target).parent)


def make(folder: Path) -> None:
    """Create a folder and its parents, and sync each entry to the disk."""
    if not folder.is_dir():
        make(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _exclusive(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_EXCL, 0o666)


def _beside(target: Path, kind: str = "tmp") -> Path:
    """A free name in the target's folder, because renames are atomic only within a file system.

    A dead process with our number may have left a hard link to a snapshot under it: it is removed,
    never written to.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{_MACHINE}.{kind}")
    _discard(temporary)
    return temporary


def _discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _sync(path: Path) -> None:
    """Sync a file, or a folder's entries, so that a rename survives a power cut."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return  # on Windows, or a folder that is writable and not readable
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)


def sweep(folder: Path, start: str = "") -> list[Path]:
    """Remove the temporary files that dead processes left in a folder, and return their paths.

    A folder that was moved aside gets its name back, if nothing has taken it. Files of other
    machines are kept for a day, because we cannot see whether those processes live.

    Args:
        folder: The folder.
        start: How the names of the files begin that were written.
    """
    matches = ((path, _TEMPORARY.fullmatch(path.name)) for path in sorted(folder.glob(".*")))
    left_over = [
        (path, match)
        for path, match in matches
        if match and match["target"].startswith(start) and _is_left_over(path, match)
    ]
    for path, match in left_over:
        target = folder / match["target"]
        if match["kind"] == "earlier" and not target.exists():
            with suppress(OSError):  # another process has done it
                path.replace(target)
        else:
            _discard(path)
    return [path for path, _ in left_over if not path.exists()]


def _is_left_over(path: Path, name: re.Match[str]) -> bool:
    if name["machine"] == _MACHINE and os.name == "posix":
        return not _lives(int(name["pid"]))
    try:
        return time.time() - path.stat().st_mtime > _STALE_S
    except OSError:
        return False  # removed meanwhile


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 only tests for existence
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # another user's process, or no valid process number
    return True


def stats(path: Path) -> list[tuple[Path, os.stat_result]]:
    """The state of a file, or of each file in a folder, such as a Zarr array, in order."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return [(file, file.stat()) for file in files]


def shown(path: Path) -> str:
    """A path as a message shows it: from the current folder, where it lies below that."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (OSError, ValueError):  # the current folder may be gone
        return str(path)


def size_text(num_bytes: float) -> str:
    """A number of bytes in readable units.

    >>> size_text(482_600_000), size_text(1500), size_text(7)
    ('483 MB', '1.5 kB', '7 bytes')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.3g} {name}"
    return f"{num_bytes:.0f} bytes"
