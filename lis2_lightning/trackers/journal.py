"""What a tracker is to receive, as lines of a file, and how much of it has arrived.

The file is the queue: the training appends a line and continues, and a delivery reads from where
the last one stopped. So nothing waits in memory, and a process that is killed loses nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lis2_lightning.base.records import Record, append_record, read_records


@dataclass
class Mark:
    """How far a journal has been delivered."""

    offset: int = 0  # bytes that have arrived for good
    sent: int = 0  # bytes that were sent; more where a service confirms at the run's end
    error: str = ""  # the last one
    refused: int = 0  # records that the service rejected
    note: str = ""  # what the user should know at the run's end


class Journal:
    """The records of one tracker in ``trackers/<name>.jsonl``.

    The mark is in the folder of the same name without suffix.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem
        self.run_dir = path.parent.parent
        self.state_dir = path.with_suffix("")

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def append(self, kind: str, **values: Any) -> None:
        """Add a record, which outlives this process once the call returns."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        append_record(self.path, kind, **values)

    def read(self, offset: int = 0) -> Iterator[tuple[Record, int]]:
        """The whole records from a byte on, and the byte after each; damaged lines are skipped."""
        return read_records(self.path, offset)

    def rows_left(self) -> int:
        """How many rows have not arrived for good."""
        return sum(record["kind"] == "row" for record, _ in self.read(self.mark().offset))

    def mark(self) -> Mark:
        """How much has arrived; nothing where the mark is damaged: sending twice is harmless."""
        try:
            return Mark(**json.loads((self.state_dir / "mark.json").read_bytes()))
        except (OSError, ValueError, TypeError):
            return Mark()

    def set_mark(self, mark: Mark) -> None:
        """Save how much has arrived, atomically."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        temporary = self.state_dir / f"mark.{os.getpid()}.tmp"
        temporary.write_text(json.dumps(asdict(mark)), encoding="utf-8")
        temporary.replace(self.state_dir / "mark.json")

    def forget_errors(self) -> None:
        """Remove what an earlier delivery reported."""
        self.set_mark(replace(self.mark(), error="", refused=0, note=""))
