"""The logger that Lightning sees of a tracker: it appends a line to a file and returns."""

from __future__ import annotations

import logging
import os
import secrets
import time
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lis2_lightning.trackers.adapter import Status
from lis2_lightning.trackers.delivery import LINGER_S, Delivery
from lis2_lightning.trackers.delivery_process import DeliveryProcess
from lis2_lightning.trackers.journal import Journal
from lis2_lightning.trackers.lightning_adapter import LightningAdapter

CLOSE_S = 60.0  # how long the end of a run waits for all trackers together,
STALL_S = 3.0  # and for one at which nothing arrives
_log = logging.getLogger("lis2_lightning")
_CHECK_S = 1.0


class JournalLogger(Logger):
    """Stands before a service or a logger that may fail, hang or be slow.

    Each call appends a line to ``trackers/<name>.jsonl`` in the run's folder; a delivery in the
    background sends it. Where that fails for good there is one warning, and the lines stay.

    Args:
        run_dir: The run's folder.
        run_name: The run's name.
        name: The tracker's name.
        service: The adapter's name, where it is another one; "object" where only this process has
            the logger.
        options: The tracker's keys, plain values.
        inner: The logger, where it is an object; its attributes can be reached through this one.
        is_local: Whether everything that the end of a run waits for happens on this machine.
    """

    def __init__(
        self,
        run_dir: Path,
        run_name: str,
        name: str,
        *,
        service: str | None = None,
        options: Mapping[str, Any],
        inner: Logger | None = None,
        is_local: bool = False,
    ) -> None:
        super().__init__()
        self.journal = Journal(run_dir / "trackers" / f"{name}.jsonl")
        self.inner = inner
        self.log_model = bool(options.get("log_model", False))
        self.key = ""
        self._is_local = is_local
        self._tracker = {"service": service or name, "options": dict(options)}
        self._tracker["run_name"] = run_name
        self._adapter = LightningAdapter(run_dir, {}, inner) if inner else None
        self._delivery: DeliveryProcess | Delivery | None = None
        self._index = -1
        self._sent: dict[int, str] = {}
        self._has_warned = False
        self._next_check = 0.0
        self._end = 0
        self._arrived, self._arrived_at = -1, 0.0

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
    def is_started(self) -> bool:
        """Whether a run is open."""
        return self._delivery is not None

    def begin(self, key: str = "") -> None:
        """Begin a run, or resume the one with this key."""
        if self._delivery is not None:
            return
        self.key = key or self.key or secrets.token_hex(8)
        self._index, self._sent = _earlier_rows(self.journal, self.key)
        try:
            self.journal.append("start", key=self.key, pid=os.getpid(), **self._tracker)
            self.journal.forget_errors()
            self._delivery = self._started()
        except OSError as error:
            self._warn(f"{self.journal.path} cannot be written: {error.strerror}")

    def _started(self) -> DeliveryProcess | Delivery:
        adapter = self._adapter
        if adapter is None:
            return DeliveryProcess(self.journal)
        thread = Delivery(self.journal, lambda _: adapter)
        thread.start()
        return thread

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row, unless it is that of an epoch which is trained again with the same values."""
        values = {name: float(value) for name, value in metrics.items()}
        epoch = int(values.get("epoch", -1))
        if epoch >= 0 and self._sent.get(epoch) == repr(values):
            return
        self._index = max(self._index + 1, epoch)
        self.add("row", values=values, step=self._index if step is None else step)
        self._sent[epoch] = repr(values)

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
    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Have a logger object informed in the background; services get ``best.pt`` at the end."""
        if self._adapter:
            self._adapter.checkpoint_callback = checkpoint_callback
            self.add("checkpoint")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Do nothing: Lightning calls this after each loop, and a run has several."""

    def add(self, kind: str, **values: Any) -> None:
        """Add a record to the journal; never fails, and waits for nothing."""
        if self._delivery is None and not self._has_warned:
            self.begin()
        try:
            self.journal.append(kind, index=max(self._index, 0), **values)
        except OSError as error:
            self._warn(f"{self.journal.path} cannot be written: {error.strerror}")
        if self._delivery is not None and time.monotonic() > self._next_check:
            self._next_check = time.monotonic() + _CHECK_S
            if not self._delivery.is_alive():
                self._warn(self.journal.mark().error or "its process has ended")

    def end(self, status: Status) -> None:
        """End the run, and let the delivery finish."""
        self.add("close", status=status)
        self._end = self.journal.size
        self._arrived, self._arrived_at = -1, time.monotonic()
        if self._delivery is not None:
            self._delivery.end()

    def is_arriving(self) -> bool:
        """Whether something has arrived at the service lately, and something is missing."""
        mark, now = self.journal.mark(), time.monotonic()
        is_alive = self._delivery is not None and self._delivery.is_alive()
        if not is_alive or mark.offset >= self._end:
            return False
        if mark.sent != self._arrived:
            self._arrived, self._arrived_at = mark.sent, now
        return self._is_local or now < self._arrived_at + STALL_S

    def report(self) -> None:
        """Say what became of the run at the service."""
        mark = self.journal.mark()
        is_alive = self._delivery is not None and self._delivery.is_alive()
        self._delivery = None
        if mark.offset < self._end:
            if is_alive and not mark.error:
                self._warn_once(
                    f"tracker {self.name!r} is still uploading in the background (up to "
                    f"{LINGER_S:.0f} s); if rows are missing after that, run "
                    f"`lis2 sync {self.journal.run_dir}`"
                )
            else:
                self._warn(mark.error or "it did not answer in time")
            return
        if mark.refused:
            self._warn(f"{mark.refused} records were refused, the last one with {mark.error}")
        if mark.note:
            _log.info("%s: %s", self.name, mark.note)

    def _warn(self, reason: str) -> None:
        self._warn_once(
            f"tracker {self.name!r} is off ({reason}): its rows stay in {self.journal.path}, and "
            f"`lis2 sync {self.journal.run_dir}` delivers them"
        )

    def _warn_once(self, message: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            _log.warning(message)


def close_all(loggers: Iterable[JournalLogger], status: Status) -> None:
    """End a run at every tracker, in a bounded time for all of them together.

    Args:
        loggers: The trackers.
        status: How the run ended.
    """
    started = [logger for logger in loggers if logger.is_started]
    for logger in started:
        logger.end(status)
    deadline, waiting = time.monotonic() + CLOSE_S, started
    while waiting and time.monotonic() < deadline:
        time.sleep(0.02)
        waiting = [logger for logger in started if logger.is_arriving()]
    for logger in started:
        logger.report()


def _earlier_rows(journal: Journal, key: str) -> tuple[int, dict[int, str]]:
    """The last index of a run's rows in a journal, and its epochs' rows."""
    index, rows, is_ours = -1, {}, False
    for record, _ in journal.read():
        if record is None:
            continue
        if record["kind"] == "start":
            is_ours = record["key"] == key
        elif is_ours and record["kind"] == "row":
            index = max(index, record["index"])
            rows[int(record["values"].get("epoch", -1))] = repr(record["values"])
    return index, rows
