"""Snapshots written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lis2_lightning.errors import SnapshotError
from lis2_lightning.files import atomic


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
