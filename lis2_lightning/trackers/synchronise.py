"""Delivers what did not arrive during a run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lis2_lightning.base.lock import lock
from lis2_lightning.errors import ConfigError
from lis2_lightning.trackers.adapter import make_adapter
from lis2_lightning.trackers.delivery import Delivery
from lis2_lightning.trackers.journal import Journal


@dataclass(frozen=True)
class SyncResult:
    """What became of one tracker's journal."""

    tracker: str
    rows: int  # that have arrived now
    left: int  # rows that have not arrived
    refused: int  # records that the service rejected
    complete: bool  # everything has arrived, files and the run's status included
    message: str  # the last error, or what the user should know

    def __str__(self) -> str:
        refused = f", {self.refused} records refused" if self.refused else ""
        message = f" ({self.message})" if self.message else ""
        return f"{self.tracker}: {self.rows} rows delivered, {self.left} left{refused}{message}"


def sync(run_dir: Path) -> list[SyncResult]:
    """Deliver what the trackers of a run have not received; may be repeated.

    Raises:
        ConfigError: There is no such folder, it has no trackers, or its run is in progress.
    """
    paths = sorted((run_dir / "trackers").glob("*.jsonl"))
    if not paths:
        raise ConfigError(f"{run_dir} has no rows for a tracker: pass the folder of a run")
    with lock(run_dir):
        return [_synchronised(Journal(path)) for path in paths]


def _synchronised(journal: Journal) -> SyncResult:
    before = journal.rows_left()
    journal.forget_errors()
    delivery = Delivery(journal, partial(make_adapter, journal.run_dir))
    delivery.end()
    delivery.deliver()
    mark, left = delivery.mark, journal.rows_left()
    is_complete = next(journal.read(mark.offset), None) is None
    message = mark.error or mark.note
    return SyncResult(journal.name, before - left, left, mark.refused, is_complete, message)
