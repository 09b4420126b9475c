"""The logger that Lightning sees of a tracker: it writes a line and goes on."""

from __future__ import annotations

import logging
import os
import secrets
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lis2_lightning.trackers.closing import Closing
from lis2_lightning.trackers.hosts import DistantHost, Host, ProcessHost, ThreadHost
from lis2_lightning.trackers.journal import Journal
from lis2_lightning.trackers.limits import Limits
from lis2_lightning.trackers.service import Status
from lis2_lightning.trackers.to_logger import ToLogger

_log = logging.getLogger("lis2_lightning")
LIMITS = Limits()
_LOOK_S = 1.0


class Guarded(Logger):
    """Stands before a service or a logger that may fail, hang or be slow.

    Each call appends a line to ``trackers/<name>.jsonl`` in the run's folder; a courier beside the
    training delivers it. Where that fails for good there is one warning, and the lines stay.

    Args:
        path: The journal.
        run_name: The run's name.
        service: Which service: a name that :func:`make_service` knows.
        options: The tracker's keys, plain values.
        inner: The logger, where it is an object; its attributes can be reached through this one.
        is_local: Whether all that is waited for is work of this machine.
    """

    def __init__(
        self,
        path: Path,
        run_name: str,
        *,
        service: str,
        options: Mapping[str, Any],
        inner: Logger | None = None,
        is_local: bool = False,
    ) -> None:
        super().__init__()
        self.journal = Journal(path)
        self.inner = inner
        self.is_local = is_local
        self.log_model = bool(options.get("log_model", False))
        self.key = ""
        self._given_id = ""
        self._described = {"service": service, "options": dict(options), "run_name": run_name}
        self._host: Host | None = None
        self._tell_of_run: Callable[[dict[str, str]], None] | None = None
        self._index = -1
        self._known: dict[int, Any] = {}
        self._has_warned = False
        self._last_look = 0.0

    def __getattr__(self, name: str) -> Any:
        inner = self.__dict__.get("inner")
        if inner is None or name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(inner, name)

    @property
    def name(self) -> str:
        """The tracker's name."""
        return self.journal.name

    @property
    def version(self) -> str:
        """The run's key: the id of its run at W&B, a tag at MLflow."""
        return self.key

    @property
    def run_id(self) -> str:
        """What the service calls the run; empty until it has answered."""
        mark = self.journal.mark()
        is_this = mark.start is not None and mark.start["key"] == self.key
        return mark.run_id if is_this and mark.run_id else self._given_id

    @property
    def is_started(self) -> bool:
        """Whether a courier delivers for this run."""
        return self._host is not None

    def begin(self, key: str = "", run_id: str = "") -> None:
        """Begin a run, or go on with one.

        Args:
            key: The run's own key, where it goes on.
            run_id: What the service calls it, where it goes on.
        """
        if self._host is not None:
            return
        self._given_id = run_id or self.run_id
        self.key = key or self.key or secrets.token_hex(4)
        self._index, self._known = _earlier_rows(self.journal, self.key)
        try:
            self.journal.append(
                "start", key=self.key, run_id=self._given_id, pid=os.getpid(), **self._described
            )
            self._host = self._started()
        except OSError as error:
            self._warn(f"{self.journal.path} cannot be written ({error.strerror})")

    def leave_delivery(self, tell_of_run: Callable[[dict[str, str]], None]) -> None:
        """Only write the journal: another process delivers it, and closes the run.

        Args:
            tell_of_run: Called with ``key`` and ``run_id`` when a run begins here.
        """
        self._tell_of_run = tell_of_run
        if self._host is not None:
            self._host = DistantHost(self.journal)

    def take_delivery(self, key: str, run_id: str) -> None:
        """Deliver a run that another process has begun and writes the journal of.

        Args:
            key: The run's own key.
            run_id: What the service calls it; empty where it is a new one.
        """
        if self._host is not None:
            return
        self.key, self._given_id = key, run_id
        try:
            self._host = self._started()
        except OSError as error:
            self._warn(f"its courier cannot be started ({error.strerror})")

    def catch_up(self) -> None:
        """Know the rows that another process has written."""
        if self._host is not None:
            self._index, self._known = _earlier_rows(self.journal, self.key)

    def _started(self) -> Host:
        if self._tell_of_run is not None:
            self._tell_of_run({"key": self.key, "run_id": self._given_id})
            return DistantHost(self.journal)
        if self.inner is None:
            return ProcessHost(self.journal, LIMITS)
        inner, run_dir = self.inner, self.journal.run_dir
        return ThreadHost(self.journal, LIMITS, lambda _: ToLogger(run_dir, {}, inner))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row; one that stands in the journal already, of a run that goes on, is not."""
        values = {name: float(value) for name, value in metrics.items()}
        epoch = int(values["epoch"]) if "epoch" in values else None
        shown = repr(values)
        if epoch is not None and self._known.get(epoch) == shown:
            return
        self._index = max(self._index + 1, -1 if epoch is None else epoch)
        self.add("row", values=values, step=self._index if step is None else step)
        if epoch is not None:
            self._known[epoch] = shown

    @rank_zero_only
    def log_hyperparams(
        self,
        params: dict[str, Any] | Namespace,
        *args: Any,  # noqa: ARG002 - Lightning's signature
        **kwargs: Any,  # noqa: ARG002 - same
    ) -> None:
        """Add parameters."""
        values = vars(params) if isinstance(params, Namespace) else dict(params or {})
        self.add("params", values=values, group="")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Do nothing: Lightning calls this after each loop, and a run has several."""

    def add(self, kind: str, **values: Any) -> None:
        """Add a record to the journal; never fails, and waits for nobody."""
        if self._host is None and not self._has_warned:
            self.begin()
        try:
            self.journal.append(kind, index=max(self._index, 0), **values)
        except OSError as error:
            self._warn(f"{self.journal.path} cannot be written ({error.strerror})")
        if time.monotonic() - self._last_look > _LOOK_S:
            self._last_look = time.monotonic()
            self._look()

    def _look(self) -> None:
        if self._host is None:
            return
        mark = self._host.mark
        if mark.phase == "off" or not self._host.is_alive():
            self._warn(mark.error or "its process has ended")

    def _warn(self, told: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            _log.warning(
                "tracker %r is off (%s): its rows stay in %s, and `lis2 sync %s` delivers them",
                self.name,
                told,
                self.journal.path,
                self.journal.run_dir,
            )

    def _say_goes_on(self) -> None:
        self._has_warned = True
        _log.warning(
            "tracker %r is not done: it goes on by itself for up to %.0f s, and `lis2 sync %s` "
            "delivers what is missing then",
            self.name,
            LIMITS.linger_s,
            self.journal.run_dir,
        )

    def wait(self, closing: Closing) -> None:
        """Wait for the courier, as long as something arrives and the time is not up."""
        host = self._host
        if host is None:
            return
        while host.is_alive() and closing.goes_on(host.mark):
            time.sleep(0.02)
        mark = host.mark
        if mark.phase not in {"off", "done"} and host.is_alive() and not mark.error:
            self._say_goes_on()
        elif mark.phase != "done":
            self._warn(mark.error or "it did not answer in time")
        elif mark.refused:
            self._warn(f"{mark.refused} records were refused, the last one with {mark.error}")
        if mark.phase == "done" and mark.note:
            _log.info("%s: %s", self.name, mark.note)
        self._host = None


def close_all(guards: Iterable[Guarded], status: Status) -> None:
    """End a run at every tracker, in a bounded time for all of them together.

    Args:
        guards: The trackers.
        status: How the run ended.
    """
    open_ones = [guard for guard in guards if guard.is_started]
    for guard in open_ones:
        guard.add("close", status=status)
    began = time.monotonic()
    closings: list[tuple[Guarded, Closing]] = [
        (guard, Closing(began, LIMITS, is_local=guard.is_local)) for guard in open_ones
    ]
    for guard, closing in closings:
        guard.wait(closing)


def _earlier_rows(journal: Journal, key: str) -> tuple[int, dict[int, str]]:
    """The last index of a run's rows in a journal, and its epochs' rows."""
    index, known, is_ours = -1, {}, False
    for record, _ in journal.read():
        if record is None:
            continue
        if record["kind"] == "start":
            is_ours = record["key"] == key
        elif is_ours and record["kind"] == "row":
            index = max(index, record["index"])
            if "epoch" in record["values"]:
                known[int(record["values"]["epoch"])] = repr(record["values"])
    return index, known
