"""LIS2's snapshots, rewritten in our form."""

from __future__ import annotations

import os
from pathlib import Path

from lis2_lightning.errors import SnapshotError
from lis2_lightning.snapshots.read import read_as_ours
from lis2_lightning.snapshots.write import write_snapshot


def convert(old: str | os.PathLike[str], new: str | os.PathLike[str]) -> list[str]:
    """Rewrite a snapshot of LIS2's in our form.

    Args:
        old: The file that LIS2 wrote; it is not changed.
        new: The file to write, which must not exist.

    Returns:
        What was left out, a line for each.

    Raises:
        SnapshotError: The old file is no snapshot of LIS2's, or the new one exists or cannot be
            written.
    """
    if Path(new).exists():
        raise SnapshotError(f"{new} exists already: choose another name")
    snapshot, dropped = read_as_ours(old)
    if dropped is None:
        raise SnapshotError(f"{old} has our form already: use it as it is")
    write_snapshot(snapshot, new)
    return dropped
