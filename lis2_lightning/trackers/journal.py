"""What a tracker is to receive, as lines of a file, and how much of it has arrived.

The file is the queue: the training appends a line and continues, and a delivery reads from where
the last one stopped. So nothing waits in memory, and a process that is killed loses nothing.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

Record = dict[str, Any]


@dataclass
class Mark:
    """How far a journal has been delivered.

    Args:
        offset: Bytes of the journal that have arrived for good.
        sent: Bytes that were sent; more than ``offset`` where a service confirms at the run's end.
        error: The last error.
        refused: How many records the service rejected.
        note: What the user should know at the run's end.
    """

    offset: int = 0
    sent: int = 0
    error: str = ""
    refused: int = 0
    note: str = ""


class Journal:
    """The records of one tracker in ``trackers/<name>.jsonl``.

    Args:
        path: The file; the mark lies in the folder of the same name without suffix.
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
        """Add a record, which outlives this process once the call returns.

        Raises:
            OSError: The file cannot be written.
        """
        record = {"kind": kind, "time": time.time(), **values}
        line = json.dumps(record, default=str, ensure_ascii=False) + "\n"
        self.state_dir.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            # a line that a crash cut short must not swallow this one
            is_cut = size > 0 and file.read(1) != b"\n"
            file.write(b"\n" * is_cut + line.encode(errors="replace"))

    def read(self, offset: int = 0) -> Iterator[tuple[Record | None, int]]:
        """Read whole lines from a byte on.

        Yields:
            A record, or ``None`` where the line is damaged, and the byte after it.
        """
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                yield _parsed(line), offset

    def rows_left(self) -> int:
        """How many rows have not arrived for good."""
        records = (record for record, _ in self.read(self.mark().offset) if record is not None)
        return sum(record["kind"] == "row" for record in records)

    def mark(self) -> Mark:
        """How much has arrived; nothing where the mark is damaged: sending twice is harmless."""
        try:
            values = json.loads((self.state_dir / "mark.json").read_bytes())
        except (OSError, ValueError):
            return Mark()
        known = {item.name for item in fields(Mark)}
        return Mark(**{name: value for name, value in values.items() if name in known})

    def set_mark(self, mark: Mark) -> None:
        """Save how much has arrived, atomically."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        temporary = self.state_dir / f"mark.{os.getpid()}.tmp"
        temporary.write_text(json.dumps(asdict(mark)), encoding="utf-8")
        temporary.replace(self.state_dir / "mark.json")

    def forget_errors(self) -> None:
        """Remove what an earlier delivery reported."""
        self.set_mark(replace(self.mark(), error="", refused=0, note=""))


def _parsed(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "kind" in record else None
