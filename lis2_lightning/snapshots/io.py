"""Snapshots as files: written whole or not at all, verified before they are read."""

from __future__ import annotations

import logging
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from lis2_lightning.errors import SnapshotError
from lis2_lightning.files import atomic
from lis2_lightning.snapshots.format import check_entries, from_snapshot

_log = logging.getLogger("lis2_lightning")


class SnapshotIO(CheckpointIO):
    """Lightning's checkpoints, written and read as snapshots.

    Args:
        to_snapshot: Turns a checkpoint into a snapshot; it knows the configuration.
    """

    def __init__(self, to_snapshot: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        self._to_snapshot = to_snapshot

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any = None,  # noqa: ARG002 - Lightning's signature
    ) -> None:
        """Write the checkpoint as a snapshot."""
        write_snapshot(self._to_snapshot(checkpoint), path)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = "cpu",
        weights_only: bool | None = True,  # noqa: ARG002, FBT001, FBT002 - never anything else
    ) -> dict[str, Any]:
        """Read a snapshot as the checkpoint it was."""
        return from_snapshot(read_snapshot(path, map_location=map_location))

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove a snapshot; it may be gone already."""
        Path(path).unlink(missing_ok=True)


def write_snapshot(snapshot: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a snapshot so that at every instant the old file or the new one is there, whole.

    Raises:
        SnapshotError: The file cannot be written; an earlier one of that name is untouched.
    """
    try:
        with atomic(path) as file:
            torch.save(snapshot, file)
    except (OSError, RuntimeError) as error:
        raise SnapshotError(f"{path} cannot be written: {error}") from error


def read_snapshot(path: str | os.PathLike[str], *, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a snapshot after checking its checksums; nothing in it is executed.

    Args:
        path: The file.
        map_location: Where tensors go, as for ``torch.load``.

    Raises:
        SnapshotError: The file is missing, damaged, no snapshot, or needs code to be read.
    """
    source = Path(path)
    if not source.is_file():
        raise SnapshotError(f"there is no snapshot {source}: check the path")
    try:
        damaged = _damaged_entry(source)
        loaded: Any = None if damaged else _load(source, map_location)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise SnapshotError(f"{source} is no whole snapshot: {error}") from error
    except Exception as error:  # a broken pickle raises any of a dozen kinds
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SnapshotError(f"{source} cannot be read safely: {told}") from error
    if damaged:
        raise SnapshotError(f"{source} is damaged: the checksum of {damaged} is wrong")
    check_entries(loaded, name=str(source))
    snapshot: dict[str, Any] = loaded
    return snapshot


def _damaged_entry(source: Path) -> str | None:
    """The first entry whose checksum is wrong: torch writes checksums and never compares them."""
    with zipfile.ZipFile(source) as archive:
        return archive.testzip()


def _load(source: Path, map_location: Any) -> Any:
    return torch.load(source, map_location=map_location, weights_only=True)  # noqa: TID251 - the one place


def link_snapshot(source: Path, target: Path) -> None:
    """Give a snapshot a second name without writing its bytes again.

    Where the file system has no hard links, the file is copied.

    Raises:
        SnapshotError: The second name cannot be written; an earlier file there is untouched.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        try:
            temporary.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, temporary)
        temporary.replace(target)
    except OSError as error:
        raise SnapshotError(f"{target} cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def newest_snapshot(folder: Path) -> Path | None:
    """The snapshot of a run folder that goes on latest; damaged ones are named and passed over.

    Which is newest is read from the files, for a copy changes the dates of files.
    """
    newest: tuple[int, bool, Path] | None = None
    for path in sorted(folder.glob("*.pt")):
        try:
            entry = read_snapshot(path)["LIGHTNING"]["next_epoch"], path.name == "last.pt", path
        except SnapshotError as error:
            _log.warning("%s; an older snapshot is taken", error)
            continue
        newest = entry if newest is None else max(newest, entry)
    return newest[2] if newest else None
