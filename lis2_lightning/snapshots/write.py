"""Snapshots written whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import torch

from lis2_lightning.base.files import atomic, link, size_text
from lis2_lightning.errors import SnapshotError
from lis2_lightning.snapshots.outline import read_outline
from lis2_lightning.snapshots.read import opened

_ADVICE: Final = "check the folder and its disk, and start the command again"
_FREE: Final = "free some space and start the command again"
# where there is no room for it; Windows knows no EDQUOT
_REASONS: Final = {
    errno.ENOSPC: ("no space left on device", _FREE),
    getattr(errno, "EDQUOT", -1): ("the disk quota is used up", _FREE),
    errno.EFBIG: ("no file may be that large here", "choose another output_dir"),
}


def write_snapshot(snapshot: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a snapshot so that at every instant the old file or the new one is there, whole.

    The bytes go straight to the file: nothing but the tensors themselves is held in memory.

    Raises:
        SnapshotError: The file cannot be written, or could not be read back; an earlier one of
            that name is untouched.
    """
    target = Path(path)
    with _explained(target, snapshot), _with_checksums(), atomic(target) as file:
        _save(snapshot, file)
        file.flush()
        _check_that_it_reads(Path(file.name), target)


def link_snapshot(source: Path, target: Path) -> None:
    """Give a snapshot a second name without writing its bytes again.

    Where the file system has no hard links, the file is copied.

    Raises:
        SnapshotError: The second name cannot be written; an earlier file there is untouched.
    """
    with _explained(target, source):
        link(source, target)


def _check_that_it_reads(written: Path, target: Path) -> None:
    """Judge all but the tensors' bytes, as a reader will: there may be more than it takes."""
    try:
        with opened(written) as file:
            read_outline(file)
    except SnapshotError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None  # of the disk, not of what was written
        reason = str(error).removeprefix(f"{written} ")
        raise SnapshotError(
            f"{target} is not written, for it could not be read back: it {reason}; look for large "
            "or many values in a callback's state_dict()"
        ) from error


def _save(snapshot: Mapping[str, Any], file: IO[bytes]) -> None:
    handled = sys.exception()
    try:
        torch.save(snapshot, file)
    except RuntimeError as error:
        # torch reports its own confusion where the file refused the bytes, or Ctrl-C came then
        first: BaseException = error
        while first.__context__ not in {None, handled}:
            first = first.__context__
        raise first from None


@contextmanager
def _with_checksums() -> Iterator[None]:
    """Have torch write checksums, also where the program has switched them off."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


@contextmanager
def _explained(path: Path, content: Mapping[str, Any] | Path) -> Iterator[None]:
    """Say in one sentence which file cannot be written, why, what is there, and what to do."""
    earlier = _identity(path)
    try:
        yield
    except OSError as error:
        own = error.strerror or str(error) or type(error).__name__
        reason, advice = _REASONS.get(error.errno or 0, (own[:1].lower() + own[1:], _ADVICE))
        room = _room(path.parent, content) if error.errno in _REASONS else ""
        state = _state(earlier, _identity(path))
        raise SnapshotError(f"{path} cannot be written: {reason}{room}{state}: {advice}") from error
    except RuntimeError as error:  # torch's, of what it cannot write
        raise SnapshotError(f"{path} cannot be written: {str(error).splitlines()[0]}") from error


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _state(earlier: tuple[int, int] | None, now: tuple[int, int] | None) -> str:
    if now is None:
        return ""
    if now == earlier:
        return "; the earlier snapshot is whole"
    return "; the new snapshot is there, but a power cut may undo it"


def _room(folder: Path, content: Mapping[str, Any] | Path) -> str:
    try:
        free = shutil.disk_usage(folder).free
        needed = content.stat().st_size if isinstance(content, Path) else _num_bytes(content)
    except OSError:
        return ""
    return f" (about {size_text(needed)} needed, {size_text(free)} free in {folder})"


def _num_bytes(value: Any) -> int:
    """The size of all tensors; those that share their memory are written once."""
    return sum({s.data_ptr(): s.nbytes() for s in _storages(value)}.values())


def _storages(value: Any) -> Iterator[torch.UntypedStorage]:
    if isinstance(value, torch.Tensor):
        yield value.untyped_storage()
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _storages(item)
