"""Delivers a journal's records to a service: in order, with retries, each marked on arrival.

The same loop runs in a process beside a training, in a thread for logger objects, and in
``lis2 sync``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lis2_lightning.base.lock import lock
from lis2_lightning.base.records import Record
from lis2_lightning.base.redaction import without_login
from lis2_lightning.errors import ConfigError, one_line
from lis2_lightning.trackers.adapter import Adapter, RefusedError, make_adapter
from lis2_lightning.trackers.journal import Journal, Mark

RETRY_S = 300.0  # a record that fails for longer ends the delivery
BACKOFF_S = 0.5  # the first pause; each further one is twice as long
LONGEST_PAUSE_S = 30.0
POLL_S = 0.1
LINGER_S = 60.0  # how long a process outlives its run


class Delivery(threading.Thread):
    """Delivers one journal, through an adapter or those which its ``start`` records name."""

    def __init__(self, journal: Journal, adapter: Adapter | None = None) -> None:
        super().__init__(name=journal.name, daemon=True)
        self.journal = journal
        self.mark = Mark()
        self._only_adapter = adapter
        self._adapter: Adapter | None = None
        self._open_run: Record | None = None  # its ``start`` record
        self._ending = threading.Event()
        self._end: int | None = None
        self._furthest, self._tries, self._failing_since = -1, 0, 0.0

    def end(self) -> None:
        """Deliver what is in the journal now, and stop; more may be a later run's."""
        self._end = self.journal.size
        self._ending.set()

    def run(self) -> None:
        """Deliver in a thread, which has nobody to report an error to."""
        with suppress(ConfigError, OSError):  # held by another process, or no room on the disk
            self.deliver()

    def deliver(self) -> None:
        """Deliver until the end; a service that fails for good ends it earlier."""
        with _held(self.journal):
            self.mark = self.journal.mark()
            self._rewind()
            while True:
                is_last = self._ending.is_set()
                try:
                    self._deliver_pending()
                    if is_last and not self._close_killed():
                        return
                except Exception as error:  # noqa: BLE001 - whatever a library raises
                    if not self._may_retry(error):
                        return
                else:
                    self._ending.wait(POLL_S)

    def _deliver_pending(self) -> None:
        for record, end in self.journal.read(self.mark.sent):
            if self._end is not None and end > self._end:
                return
            try:
                self._apply(record)
            except RefusedError as error:
                self.mark.refused += 1
                self.mark.error = _described(error)
            if end > self._furthest:
                self._furthest, self._tries = end, 0
            self.mark.sent = end
            if self._adapter is None or not self._adapter.confirms_at_close:
                self.mark.offset = end
            self.journal.set_mark(self.mark)

    def _close_killed(self) -> bool:
        """Close a run whose process ended without a word."""
        if self._open_run is None or self._end != self.journal.size:
            return False
        self.journal.append("close", status="killed")
        self._end = self.journal.size
        return True

    def _apply(self, record: Record) -> None:
        kind = record["kind"]
        if kind == "start":
            if self._open_run is not None and self._open_run["key"] != record["key"]:
                self._apply({"kind": "close", "status": "killed", "time": record["time"]})
            self._drop()
            self._open_run = record
        adapter = self._connected()
        if kind in {"row", "summary"}:
            getattr(adapter, kind)(record["values"], record)
        elif kind == "params":
            adapter.params(record["values"], record["group"])
        elif kind == "checkpoint":
            adapter.checkpoint()
        elif kind == "file":
            self._send_file(adapter, record)
        elif kind == "close":
            self._open_run = None
            self.mark.note = adapter.close(record)
            self._drop()

    def _connected(self) -> Adapter:
        if self._open_run is None:
            raise RefusedError("the record belongs to no run")
        if self._adapter is None:
            run = self._open_run
            self._adapter = self._only_adapter or make_adapter(self.journal.run_dir, run)
            self._adapter.open(run)
        return self._adapter

    def _send_file(self, adapter: Adapter, record: Record) -> None:
        folder = self.journal.run_dir.resolve()
        path = (folder / record["path"]).resolve()
        if not path.is_relative_to(folder):  # a journal may come from anywhere
            raise RefusedError(f"{path} is outside the run's folder")
        if not path.is_file():
            raise RefusedError(f"{path} no longer exists")
        adapter.file(path, record)

    def _may_retry(self, error: Exception) -> bool:
        """Forget the connection and pause; false where the service has failed for good."""
        self._drop()
        now = time.monotonic()
        self._failing_since = self._failing_since if self._tries else now
        self._tries += 1
        self.mark.error = _described(error)
        self.journal.set_mark(self.mark)
        if now - self._failing_since > RETRY_S or (self._ending.is_set() and self._tries > 1):
            return False
        self._ending.wait(min(BACKOFF_S * 2 ** (self._tries - 1), LONGEST_PAUSE_S))
        self._rewind()
        return True

    def _drop(self) -> None:
        if self._adapter is not None:
            self._adapter.drop()
            self._adapter = None

    def _rewind(self) -> None:
        """Go back to what has arrived for good, and find which run was open there."""
        self.mark.sent, self._open_run = self.mark.offset, None
        for record, end in self.journal.read():
            if end > self.mark.offset:
                return
            if record["kind"] in {"start", "close"}:
                self._open_run = record if record["kind"] == "start" else None


def _described(error: Exception) -> str:
    return without_login(f"{type(error).__name__}: {one_line(error)}")[:300]


@contextmanager
def _held(journal: Journal) -> Iterator[None]:
    """Wait until no other process delivers the journal, and keep others away."""
    journal.state_dir.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + LINGER_S
    while True:
        try:
            with lock(journal.state_dir):
                yield
                return
        except ConfigError:
            if time.monotonic() > until:
                raise
        time.sleep(0.1)


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
    delivery = Delivery(journal)
    delivery.end()
    delivery.deliver()
    mark, left = delivery.mark, journal.rows_left()
    is_complete = next(journal.read(mark.offset), None) is None
    message = mark.error or mark.note
    return SyncResult(journal.name, before - left, left, mark.refused, is_complete, message)
