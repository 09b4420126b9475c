"""What a tracker is to get, as lines in a file, and how much of it has arrived.

The file is the queue: the training appends a line and goes on, and whoever talks to the service
reads it from where the last one stopped. So nothing waits in memory, a process that is killed
loses nothing, and what did not arrive can be delivered later by the same code.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

Record = dict[str, Any]
Phase = Literal["new", "starting", "running", "off", "done"]
_TAIL = 65_536


@dataclass
class Mark:
    """How far a journal has been delivered.

    Args:
        offset: Bytes of the journal that have arrived for good.
        sent: Bytes that were handed over; more than ``offset`` where a service confirms late.
        start: The record which began the run that is being delivered.
        run_id: What the service calls that run.
        is_open: Whether that run has been begun there and not been closed.
        phase: What the courier is doing; ``off`` says that it gave up.
        allow_s: How long the present call may take.
        error: What went wrong last.
        refused: How many records the service did not take.
        note: What a user should know of the run at its end.
        courier: Who has written this.
    """

    offset: int = 0
    sent: int = 0
    start: Record | None = None
    run_id: str = ""
    is_open: bool = False
    phase: Phase = "new"
    allow_s: float = 0.0
    error: str = ""
    refused: int = 0
    note: str = ""
    courier: str = ""


class Journal:
    """The records of one tracker in ``trackers/<name>.jsonl``.

    Args:
        path: The file; what has arrived stands in the folder of the same name without suffix.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state_dir = path.with_suffix("")

    @property
    def name(self) -> str:
        """The tracker's name."""
        return self.path.stem

    @property
    def run_dir(self) -> Path:
        """The run's folder."""
        return self.path.parent.parent

    def append(self, kind: str, **values: Any) -> None:
        """Add a record; it is in the kernel's hands, and outlives this process, on return.

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
        """Read whole lines.

        Args:
            offset: The first byte to read.

        Yields:
            A record, or null where a line is none, and the byte after it.
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

    def is_closing(self) -> bool:
        """Whether the last record says that the run is over."""
        if not self.path.is_file():
            return False
        with self.path.open("rb") as file:
            file.seek(max(0, self.path.stat().st_size - _TAIL))
            lines = file.read().splitlines()
        last = _parsed(lines[-1]) if lines else None
        return last is not None and last["kind"] == "close"

    def undelivered(self) -> Iterator[Record]:
        """The records that have not arrived for good."""
        return (record for record, _ in self.read(self.mark().offset) if record is not None)

    def mark(self) -> Mark:
        """How much has arrived; nothing where that cannot be read."""
        try:
            values = json.loads((self.state_dir / "mark.json").read_bytes())
        except (OSError, ValueError):
            return Mark()  # what is delivered twice is the same as once
        return Mark(**{field.name: values.get(field.name, field.default) for field in fields(Mark)})

    def set_mark(self, mark: Mark) -> None:
        """Note how much has arrived."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        temporary = self.state_dir / f"mark.{os.getpid()}.tmp"
        temporary.write_text(json.dumps(asdict(mark)), encoding="utf-8")
        temporary.replace(self.state_dir / "mark.json")


def _parsed(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "kind" in record else None
