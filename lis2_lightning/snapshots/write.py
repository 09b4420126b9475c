"""Snapshots written whole or not at all."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import torch

from lis2_lightning.base.files import atomic, link
from lis2_lightning.errors import SnapshotError, one_line
from lis2_lightning.snapshots.outline import read_outline
from lis2_lightning.snapshots.read import opened, read_as_ours

# what to do about an error of the system; Windows knows no EDQUOT
_ADVICE: Final = {
    errno.ENOSPC: "free some space",
    getattr(errno, "EDQUOT", -1): "free some space",
    errno.EFBIG: "choose another output_dir",
}


def write_snapshot(snapshot: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a snapshot so that at every instant the old file or the new one is there, whole.

    The bytes go straight to the file: nothing but the tensors themselves is held in memory.

    Args:
        snapshot: A snapshot in our form.
        path: The file.

    Raises:
        SnapshotError: The file cannot be written, or could not be read back; an earlier file of
            that name is untouched.
    """
    target = Path(path)
    with _explained(target), atomic(target) as file:
        _save(snapshot, file)
        file.flush()
        _check_that_it_reads(Path(file.name), target)


def link_snapshot(source: Path, target: Path) -> None:
    """Give a snapshot a second name: a hard link, or a copy where the file system has none."""
    with _explained(target):
        link(source, target)


def convert(old: str | os.PathLike[str], new: str | os.PathLike[str]) -> list[str]:
    """Rewrite a snapshot of LIS2's in our form, in a new file; gives the names of what is lost."""
    if Path(new).exists():
        raise SnapshotError(f"{new} exists already: choose another name")
    snapshot, dropped = read_as_ours(old)
    if dropped is None:
        raise SnapshotError(f"{old} has our form already: use it as it is")
    write_snapshot(snapshot, new)
    return dropped


def _check_that_it_reads(written: Path, target: Path) -> None:
    """Judge all but the tensors' bytes as a reader will, which has limits."""
    try:
        with opened(written) as file:
            read_outline(file)
    except SnapshotError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None  # of the disk, not of what was written
        reason = str(error).removeprefix(f"{written} ")
        raise SnapshotError(
            f"{target} is not written because it could not be read back: it {reason}; look for "
            "large or many values in a callback's state_dict()"
        ) from error


def _save(snapshot: Mapping[str, Any], file: IO[bytes]) -> None:
    handled = sys.exception()
    has_checksums = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)  # the program may have switched them off
    try:
        torch.save(snapshot, file)
    except RuntimeError as error:
        # where the file refused the bytes, or Ctrl-C came, torch reports what followed from it
        first: BaseException = error
        while first.__context__ not in {None, handled}:
            first = first.__context__
        raise first from None
    finally:
        torch.serialization.set_crc32_options(has_checksums)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say in one sentence which file cannot be written, why, what is there, and what to do."""
    earlier = _inode(path)
    try:
        yield
    except OSError as error:
        state = ""
        if now := _inode(path):
            state = "; the new snapshot is in place, but a power cut may undo it"
            state = "; the earlier snapshot is whole" if now == earlier else state
        advice = _ADVICE.get(error.errno or 0, "check the folder and its disk")
        raise SnapshotError(
            f"{path} cannot be written: {error.strerror or one_line(error)}{state}: {advice}, "
            "and start the command again"
        ) from error
    except RuntimeError as error:  # torch's, of what it cannot write
        raise SnapshotError(f"{path} cannot be written: {str(error).splitlines()[0]}") from error


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0
