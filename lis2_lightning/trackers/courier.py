"""Carries a journal's records to a service: in order, with retries, each marked when it is there.

The same loop runs beside a training in a process of its own, in a thread for loggers that are
objects, and in ``lis2 sync``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from lis2_lightning.trackers.journal import Journal, Mark, Record
from lis2_lightning.trackers.limits import Limits
from lis2_lightning.trackers.service import RefusedError, Service

_LOCAL_S = 60.0


_REPLAYS = 5


class GaveUpError(Exception):
    """A service has failed for good."""


class _ReplayError(Exception):
    """What was handed over may be lost: all of it goes again."""


class Courier:
    """Delivers one journal.

    Args:
        journal: What is to be delivered.
        make: Makes the service which a ``start`` record names.
        limits: How long is tried.
        is_over: Whether nobody appends to the journal any more.
        token: Tells this courier's marks from those of an earlier one.
    """

    def __init__(
        self,
        journal: Journal,
        make: Callable[[Mapping[str, Any]], Service],
        limits: Limits,
        is_over: Callable[[], bool],
        token: str = "",
    ) -> None:
        self.journal = journal
        self.calling_since: float | None = None
        self._make = make
        self._limits = limits
        self._is_over = is_over
        self._service: Service | None = None
        self._mark = Mark()
        self._replays = 0
        self._token = token

    def run(self) -> Mark:
        """Deliver until the run is closed; a service that fails for good ends it earlier."""
        self._mark = self.journal.mark()
        self._mark.sent = self._mark.offset
        self._mark.error, self._mark.refused, self._mark.note = "", 0, ""
        self._mark.courier = self._token
        self._note(phase="starting", allow_s=_LOCAL_S)
        try:
            self._deliver_all()
            if self._mark.is_open:  # the run's process is gone, and said nothing of its end
                self._deliver({"kind": "close", "status": "killed"})
        except GaveUpError as error:
            self._note(phase="off", error=str(error), allow_s=0.0)
        else:
            self._note(phase="done", allow_s=0.0)
        return self._mark

    @property
    def is_late(self) -> bool:
        """Whether a call takes longer than it may."""
        began = self.calling_since
        allowed = max(self._limits.call_s, self._mark.allow_s)
        return began is not None and time.monotonic() - began > allowed

    def _deliver_all(self) -> None:
        while True:
            over = self._is_over()  # asked first: what is appended until then is delivered below
            try:
                if not self._deliver_pending() or over:
                    return
            except _ReplayError:
                self._mark.sent = self._mark.offset
            time.sleep(self._limits.poll_s)

    def _deliver_pending(self) -> bool:
        """Deliver what is there; false where the last of it closed the run."""
        last = None
        for record, end in self.journal.read(self._mark.sent):
            if record is not None:
                self._deliver(record)
                last = record
            self._mark.sent = end
            late = (
                self._mark.is_open and self._service is not None and self._service.confirms_at_close
            )
            if not late:
                self._mark.offset = end
            self._note(phase="running", allow_s=0.0)
        return last is None or last["kind"] != "close"

    def _deliver(self, record: Record) -> None:
        began, pause, last_tries = time.monotonic(), self._limits.backoff_s, 0
        while True:
            last_tries += self._is_ending()
            try:
                self._timed(record)
            except RefusedError as error:
                self._mark.refused += 1
                self._mark.error = _told(error)
                return
            except Exception as error:
                unconfirmed = self._failed(error)
                if last_tries > 1 or time.monotonic() - began > self._limits.retry_s:
                    raise GaveUpError(_told(error)) from error
                self._pause(pause)
                if unconfirmed and self._replays < _REPLAYS:
                    self._replays += 1
                    raise _ReplayError from error
                pause = min(2 * pause, self._limits.longest_pause_s)
            else:
                return

    def _timed(self, record: Record) -> None:
        self.calling_since = time.monotonic()
        try:
            self._apply(record)
        finally:
            self.calling_since = None

    def _apply(self, record: Record) -> None:
        kind = record["kind"]
        if kind == "start":
            self._begin(record)
            return
        if kind == "close" and not self._mark.is_open:
            return
        service = self._service or self._opened()
        if kind == "row":
            service.row(record["values"], record)
        elif kind == "params":
            service.params(record["values"], record["group"])
        elif kind == "summary":
            service.summary(record["values"], record)
        elif kind == "close":
            self._end(service, record)
        else:
            self._hand_over_file(service, record)

    def _begin(self, record: Record) -> None:
        former = self._mark.start
        if former is not None and former["key"] != record["key"]:
            if self._service is not None:
                self._service.close("killed")
                self._service.drop()
            self._mark.run_id = ""
        self._service = None
        self._mark.start = record
        self._mark.run_id = self._mark.run_id or record["run_id"]
        self._opened()

    def _opened(self) -> Service:
        start = self._mark.start
        if start is None:
            raise RefusedError("the record belongs to no run")
        service = self._make(start)
        self._note(phase="running", allow_s=_LOCAL_S if service.is_local else 0.0)
        try:
            self._mark.run_id = service.open({**start, "run_id": self._mark.run_id})
        except Exception:
            service.drop()
            raise
        self._service, self._mark.is_open = service, True
        self._note(phase="running", allow_s=0.0)
        return service

    def _hand_over_file(self, service: Service, record: Record) -> None:
        folder = self.journal.run_dir.resolve()
        path = (folder / record["path"]).resolve()
        if not path.is_relative_to(folder):
            raise RefusedError(f"{path} is no file of this run")  # journals may come from anywhere
        if not path.is_file():
            raise RefusedError(f"{path} is gone")
        self._note(
            phase="running",
            allow_s=self._limits.stall_s + path.stat().st_size / self._limits.upload_bytes_per_s,
        )
        if record["kind"] == "image":
            service.image(path, record["tag"], record)
        else:
            service.artifact(path)

    def _end(self, service: Service, record: Record) -> None:
        self._mark.note = service.close(record["status"])
        service.drop()
        self._service, self._mark.is_open = None, False

    def _failed(self, error: Exception) -> bool:
        """Forget the connection; true where what it was handed may not have arrived."""
        unconfirmed = False
        if self._service is not None:
            unconfirmed = self._service.confirms_at_close
            self._service.drop()
            self._service = None
        self._note(phase="running", error=_told(error), allow_s=0.0)
        return unconfirmed

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._is_ending():
            time.sleep(self._limits.poll_s)

    def _is_ending(self) -> bool:
        return self._is_over() or self.journal.is_closing()

    def _note(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self._mark, name, value)
        self.journal.set_mark(self._mark)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
