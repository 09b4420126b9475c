"""What a snapshot says of itself, and which snapshot of a run is the newest."""

from __future__ import annotations

import io
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lis2_lightning.base.files import shown
from lis2_lightning.errors import SnapshotError
from lis2_lightning.snapshots.archive import read_entry
from lis2_lightning.snapshots.format import checkpoint_state, plain
from lis2_lightning.snapshots.outline import Note, read_outline
from lis2_lightning.snapshots.read import check_outline, opened, read_snapshot

_log = logging.getLogger("lis2_lightning")


@dataclass(eq=False)
class Snapshot(os.PathLike[str]):
    """A snapshot's file and what it says of itself; its tensors are read when they are needed.

    A resumed run continues with ``next_batch`` of ``next_epoch``, both counted from 0. ``names``
    are those of the files that the run was to give this snapshot, ``row`` the log's last one.
    """

    path: Path
    next_epoch: int
    next_batch: int
    best_loss: float
    config: dict[str, Any]
    names: tuple[str, ...]
    row: dict[str, float | None]
    _content: dict[str, Any] | None = field(default=None, repr=False)

    def __fspath__(self) -> str:
        """The file, so that Lightning takes the snapshot for a path."""
        return str(self.path)

    def __str__(self) -> str:
        return shown(self.path)

    @property
    def position(self) -> tuple[int, int]:
        """The epoch and the batch at which a resumed run continues."""
        return self.next_epoch, self.next_batch

    @property
    def place(self) -> str:
        """The position in words."""
        batch = f", batch {self.next_batch}" if self.next_batch else ""
        return f"epoch {self.next_epoch}{batch}"

    def read(self) -> None:
        """Read and verify the whole file, if that has not been done, and keep what it holds."""
        if self._content is None:
            self._content = read_snapshot(self.path)

    def take(self) -> dict[str, Any]:
        """What the file holds, read now if it was not before; it is not kept any longer."""
        self.read()
        content, self._content = self._content, None
        return content or {}


def peek(path: str | os.PathLike[str]) -> Snapshot:
    """Read what a snapshot says of itself, without its tensors and their checksums."""
    with opened(path) as file:
        outline = read_outline(file)
        check_outline(outline, path)
        content, info = outline.content, outline.content["TRAIN_INFO"]
        ours = content.get("LIGHTNING", {"next_epoch": info["EPOCHS_RUN"] + 1, "next_batch": 0})
        state = checkpoint_state(ours.get("checkpoint", {}))
        return Snapshot(
            path=Path(path),
            next_epoch=ours["next_epoch"],
            next_batch=ours["next_batch"],
            best_loss=_number(info["BEST_LOSS"], file),
            config=plain(content["GLOBAL_CONFIG"], "GLOBAL_CONFIG"),
            names=tuple(Path(name).name for name in state["names"]),
            row=dict(state["row"]),
        )


def snapshots_in(folder: Path) -> list[Snapshot]:
    """The snapshots of a run folder, the one that continues latest first.

    Which is newest is read from the files, for a copy changes the dates of files. Damaged ones are
    reported and left out; tensors are not read.
    """
    snapshots = []
    for path in sorted(folder.glob("*.pt")):
        try:
            snapshots.append(peek(path))
        except SnapshotError as error:
            _warn(error)
    return sorted(snapshots, key=lambda s: (s.position, s.path.name == "last.pt", s.path))[::-1]


def newest_snapshot(folder: Path) -> Snapshot | None:
    """The newest whole snapshot of a run folder, read and ready to be taken."""
    for snapshot in snapshots_in(folder):
        try:
            snapshot.read()
        except SnapshotError as error:
            _warn(error)
        else:
            return snapshot
    return None


def _warn(error: SnapshotError) -> None:
    _log.warning("%s; it is passed over", error)


def _number(value: Any, file: io.FileIO) -> float:
    """A number, which LIS2 writes as a tensor."""
    if not isinstance(value, Note):
        return float(value)
    storage, offset, *_ = value.arguments
    content = bytearray(read_entry(file, storage.entry))
    return float(torch.frombuffer(content, dtype=storage.dtype)[offset])
