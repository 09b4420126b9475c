"""Records as lines of JSON in a file that is appended to, and outlives a crash at any instant."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def append_record(path: Path, kind: str, /, **values: Any) -> None:
    """Add a record, which outlives this process once the call returns.

    Raises:
        OSError: The file cannot be written.
    """
    record = {"kind": kind, "time": time.time(), **values}
    line = json.dumps(record, default=str, ensure_ascii=False) + "\n"
    with path.open("a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        # a line that a crash cut short must not swallow this one
        is_cut = size > 0 and file.read(1) != b"\n"
        file.write(b"\n" * is_cut + line.encode(errors="replace"))


def read_records(path: Path, offset: int = 0) -> Iterator[tuple[Record, int]]:
    """The whole records from a byte on, and the byte after each; damaged lines are skipped."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            offset += len(line)
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if line.endswith(b"\n") and isinstance(record, dict) and "kind" in record:
                yield record, offset
