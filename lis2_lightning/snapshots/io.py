"""Lightning's plugin for checkpoints: it writes and reads snapshots."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO

from lis2_lightning.snapshots.format import NAMES, from_snapshot
from lis2_lightning.snapshots.header import Snapshot
from lis2_lightning.snapshots.overrides import reconcile
from lis2_lightning.snapshots.read import read_snapshot
from lis2_lightning.snapshots.write import link_snapshot, write_snapshot


class SnapshotIO(CheckpointIO):
    """Writes Lightning's checkpoints as snapshots, and reads them back.

    A checkpoint may list, as ``names``, the files that are to hold the same bytes. The first of
    them is written; the others become hard links to it.

    Args:
        to_snapshot: Turns a checkpoint into a snapshot.
        config: The resolved configuration; where it differs from a snapshot's, it wins.
    """

    def __init__(
        self,
        to_snapshot: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        config: Mapping[str, Any],
    ) -> None:
        self._to_snapshot = to_snapshot
        self._config = config
        self._names: list[str] = []
        self._written = Path()

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any = None,  # noqa: ARG002 - Lightning's signature
    ) -> None:
        """Write the checkpoint as a snapshot, or link it where its bytes have been written."""
        names = checkpoint.get(NAMES)
        if names and names is self._names:  # the same list, not an equal one of another epoch
            link_snapshot(self._written, Path(path))
            return
        write_snapshot(self._to_snapshot(checkpoint), path)
        self._names, self._written = names or [], Path(path)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = "cpu",
        weights_only: bool | None = True,  # noqa: ARG002, FBT001, FBT002 - never anything else
    ) -> dict[str, Any]:
        """Read a snapshot as the checkpoint it was; one that has been read is not read again."""
        if isinstance(path, Snapshot):
            snapshot = path.take()
        else:
            snapshot = read_snapshot(path, map_location=map_location)
        checkpoint = from_snapshot(snapshot)
        reconcile(checkpoint, snapshot["GLOBAL_CONFIG"], self._config)
        return checkpoint

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove a snapshot; it may be gone already."""
        Path(path).unlink(missing_ok=True)
