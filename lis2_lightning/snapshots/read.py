"""Snapshots verified before they are read; nothing in them is executed."""

from __future__ import annotations

import logging
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from lis2_lightning.errors import SnapshotError
from lis2_lightning.snapshots.format import check_entries

_log = logging.getLogger("lis2_lightning")


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
