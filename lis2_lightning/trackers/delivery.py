"""Delivers a journal's records to a service: in order, with retries, each marked on arrival.

The same loop runs in ``lis2 sync``, in a thread for logger objects, and beside a training as
``python -m lis2_lightning.trackers.delivery JOURNAL``: in a process of its own, because importing
and talking take Python's lock, and a hanging call can only be ended together with its process.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from lis2_lightning.base.files import lock
from lis2_lightning.errors import ConfigError
from lis2_lightning.trackers.adapter import Adapter, RefusedError, make_adapter
from lis2_lightning.trackers.journal import Journal, Mark, Record

CALL_S = 60.0  # a longer call ends the delivery
RETRY_S = 300.0  # a record that fails for longer ends the delivery
BACKOFF_S = 0.5  # the first pause; each further one is twice as long
LONGEST_PAUSE_S = 30.0
POLL_S = 0.1
LINGER_S = 60.0  # how long a process outlives its run


class Delivery:
    """Delivers one journal.

    Args:
        journal: The journal.
        connect: Makes the adapter which a ``start`` record names.
    """

    def __init__(self, journal: Journal, connect: Callable[[Record], Adapter]) -> None:
        self.journal = journal
        self.mark = Mark()
        self._connect = connect
        self._adapter: Adapter | None = None
        self._start: Record | None = None  # of the run that is open at the service
        self._ending = threading.Event()
        self._end: int | None = None
        self._call_began: float | None = None
        self._furthest, self._tries, self._failing_since = -1, 0, 0.0

    def end(self) -> None:
        """Deliver what is in the journal now, and stop; more may be a later run's."""
        self._end = self.journal.size
        self._ending.set()

    @property
    def is_late(self) -> bool:
        """Whether a call takes longer than it may."""
        began = self._call_began
        return began is not None and time.monotonic() - began > CALL_S

    def note(self, **values: Any) -> None:
        """Update the mark."""
        for name, value in values.items():
            setattr(self.mark, name, value)
        self.journal.set_mark(self.mark)

    def run(self) -> None:
        """Deliver until the end; a service that fails for good ends it earlier.

        Raises:
            ConfigError: Another process delivers this journal.
        """
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
            if record is not None:
                self._deliver(record)
            if end > self._furthest:
                self._furthest, self._tries = end, 0
            is_late = self._adapter is not None and self._adapter.confirms_at_close
            offset = self.mark.offset if is_late else end
            self.note(sent=end, offset=offset)

    def _close_killed(self) -> bool:
        """Close a run whose process ended without a word."""
        if self._start is None or self._end != self.journal.size:
            return False
        self.journal.append("close", status="killed")
        self._end = self.journal.size
        return True

    def _deliver(self, record: Record) -> None:
        self._call_began = time.monotonic()
        try:
            self._apply(record)
        except RefusedError as error:
            self.mark.refused += 1
            self.mark.error = _described(error)
        finally:
            self._call_began = None

    def _apply(self, record: Record) -> None:
        kind = record["kind"]
        if kind == "start":
            self._begin(record)
            return
        adapter = self._connected()
        if kind in {"row", "summary"}:
            getattr(adapter, kind)(record["values"], record)
        elif kind == "params":
            adapter.params(record["values"], record["group"])
        elif kind == "checkpoint":
            adapter.checkpoint()
        elif kind == "close":
            self._start = None
            self.mark.note = adapter.close(record["status"])
            self._drop()
        else:
            self._send_file(adapter, record)

    def _begin(self, record: Record) -> None:
        if self._start is not None and self._start["key"] != record["key"]:
            self._apply({"kind": "close", "status": "killed"})
        self._drop()
        self._start = record
        self._connected()

    def _connected(self) -> Adapter:
        if self._start is None:
            raise RefusedError("the record belongs to no run")
        if self._adapter is None:
            adapter = self._adapter = self._connect(self._start)
            key = self._start["key"]
            run_id = self.mark.run_ids.get(key) or self._start["run_id"]
            self.mark.run_ids[key] = adapter.open({**self._start, "run_id": run_id})
            self.note()
        return self._adapter

    def _send_file(self, adapter: Adapter, record: Record) -> None:
        folder = self.journal.run_dir.resolve()
        path = (folder / record["path"]).resolve()
        if not path.is_relative_to(folder):  # a journal may come from anywhere
            raise RefusedError(f"{path} is outside the run's folder")
        if not path.is_file():
            raise RefusedError(f"{path} no longer exists")
        if record["kind"] == "image":
            adapter.image(path, record)
        else:
            adapter.artifact(path)

    def _may_retry(self, error: Exception) -> bool:
        """Forget the connection and pause; false where the service has failed for good."""
        self._drop()
        now = time.monotonic()
        self._failing_since = self._failing_since if self._tries else now
        self._tries += 1
        self.note(error=_described(error))
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
        self.mark.sent, self._start = self.mark.offset, None
        for record, end in self.journal.read():
            if end > self.mark.offset:
                return
            if record is not None and record["kind"] in {"start", "close"}:
                self._start = record if record["kind"] == "start" else None


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


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


def main(path: str) -> None:
    """Deliver a journal until standard input ends, and what is left then.

    Args:
        path: The journal.
    """
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP"):  # the training reports its end itself
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)
    if os.name == "posix":
        os.nice(10)
    journal = Journal(Path(path))
    delivery = Delivery(journal, partial(make_adapter, journal.run_dir))
    for watch in (_await_end, _end_hanging_call):
        threading.Thread(target=watch, args=(delivery,), daemon=True).start()
    delivery.run()
    sys.stdout.flush()
    os._exit(0)  # a library's exit handlers may hang


def _await_end(delivery: Delivery) -> None:
    sys.stdin.read(1)  # a character says that the run has ended; nothing, that its process has
    delivery.end()
    time.sleep(LINGER_S)
    os._exit(1)


def _end_hanging_call(delivery: Delivery) -> None:
    while not delivery.is_late:
        time.sleep(0.2)
    delivery.note(error="a call did not return in time")
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
