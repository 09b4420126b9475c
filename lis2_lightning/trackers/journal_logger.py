"""The loggers that Lightning sees of trackers: each appends a line to a file and returns."""

from __future__ import annotations

import logging
import os
import secrets
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lis2_lightning.errors import ConfigError
from lis2_lightning.trackers.adapter import Status
from lis2_lightning.trackers.choices import CsvLogger, Tracker
from lis2_lightning.trackers.csv_rows import CsvCopy, CsvRows
from lis2_lightning.trackers.delivery import LINGER_S, Delivery
from lis2_lightning.trackers.delivery_process import DeliveryProcess
from lis2_lightning.trackers.journal import Journal
from lis2_lightning.trackers.lightning_adapter import LightningAdapter

CLOSE_S = 60.0  # how long the end of a run waits for all trackers together,
STALL_S = 3.0  # and for one at which nothing arrives
_log = logging.getLogger("lis2_lightning")


class JournalLogger(Logger):
    """Stands before a service or an inner logger that may fail, hang or be slow.

    A delivery in the background sends what is in the journal; the ``start`` record has the
    ``service``, its ``options`` and the ``run_name``. Where it fails for good there is one
    warning, and the lines stay.
    """

    version = ""  # the run's key: the id of its run at W&B, a tag at MLflow

    def __init__(
        self,
        journal: Journal,
        start: Mapping[str, Any],
        inner: Logger | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.journal = journal
        self.start = start
        self.inner = inner
        self._environment = environment or {}
        self._adapter = LightningAdapter(journal.run_dir, {}, inner) if inner else None
        self._delivery: DeliveryProcess | Delivery | None = None
        self._index = -1
        self._epochs: set[str] = set()
        self.has_warned = False
        self._end, self._sent, self._sent_at = 0, 0, 0.0

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
    def is_started(self) -> bool:
        """Whether a run is open."""
        return self._delivery is not None

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row, unless it is that of an epoch which is trained again with the same values."""
        self._begin()
        values = {name: float(value) for name, value in metrics.items()}
        if "epoch" in values:
            if repr(values) in self._epochs:
                return
            self._epochs.add(repr(values))
        # W&B takes no step twice, and may know this run's earlier epochs from another folder
        self._index = max(self._index + 1, int(values.get("epoch", 0)))
        self.add("row", values=values, step=self._index if step is None else step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Add parameters."""
        values = vars(params) if isinstance(params, Namespace) else dict(params)
        self.add("params", values=values, group="")

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Have a logger object informed in the background; services get ``best.pt`` at the end."""
        if self._adapter:
            self._adapter.checkpoint_callback = checkpoint_callback
            self.add("checkpoint")

    def add(self, kind: str, **values: Any) -> None:
        """Add a record to the journal, the first of which begins a run; never fails or waits."""
        self._begin()
        try:
            self.journal.append(kind, key=self.version, index=max(self._index, 0), **values)
        except OSError as error:
            self._warn_off(f"{self.journal.path} cannot be written: {error.strerror}")
        if self._delivery is not None and not self._delivery.is_alive():
            self._warn_off(self.journal.mark().error or "its process has ended")

    def _begin(self) -> None:
        """Begin a run, or resume the one with this key."""
        if self._delivery is not None or self.has_warned:
            return
        self.version = self.version or secrets.token_hex(8)
        try:
            records = [record for record, _ in self.journal.read() if record["kind"] == "row"]
            rows = [row for row in records if row.get("key") == self.version]
            self._index = max((row["index"] for row in rows), default=-1)
            self._epochs = {repr(row["values"]) for row in rows if "epoch" in row["values"]}
            self.journal.append("start", key=self.version, pid=os.getpid(), **self.start)
            self.journal.forget_errors()
            if self._adapter is None:
                self._delivery = DeliveryProcess(self.journal, self._environment)
            else:
                self._delivery = Delivery(self.journal, self._adapter)
                self._delivery.start()
        except OSError as error:
            self._warn_off(f"{self.journal.path} cannot be written: {error.strerror}")

    def end(self, status: Status) -> None:
        """End the run, and let the delivery finish."""
        self.add("close", status=status)
        self._end = self.journal.size
        self._sent, self._sent_at = self.journal.mark().sent, time.monotonic()
        if self._delivery is not None:
            self._delivery.end()

    def wait(self, deadline: float) -> None:
        """Wait until all has arrived, or nothing arrives any more."""
        is_local = self.start["options"].get("is_local", False)
        while self._delivery is not None and self._delivery.is_alive():
            mark, now = self.journal.mark(), time.monotonic()
            if mark.sent != self._sent:
                self._sent, self._sent_at = mark.sent, now
            is_stalled = not is_local and now > self._sent_at + STALL_S
            if mark.offset >= self._end or is_stalled or now > deadline:
                return
            time.sleep(0.02)

    def report(self) -> None:
        """Say what became of the run at the service."""
        mark = self.journal.mark()
        is_alive = self._delivery is not None and self._delivery.is_alive()
        if mark.offset < self._end and is_alive and not mark.error:
            self._warn(
                f"still uploading in the background (up to {LINGER_S:.0f} s); if rows are missing "
                f"after that, run `lis2 sync {self.journal.run_dir}`"
            )
        elif mark.offset < self._end:
            self._warn_off(mark.error or "it did not answer in time")
        elif mark.refused:
            self._warn_off(f"{mark.refused} records were refused, the last one with {mark.error}")
        if mark.offset >= self._end and mark.note:
            _log.info("%s: %s", self.name, mark.note)
        self._delivery = None

    def _warn_off(self, reason: str) -> None:
        self._warn(
            f"off ({reason}): its rows stay in {self.journal.path}, and "
            f"`lis2 sync {self.journal.run_dir}` delivers them"
        )

    def _warn(self, state: str) -> None:
        if not self.has_warned:
            self.has_warned = True
            _log.warning("tracker %r is %s", self.name, state)


def start_all(
    trackers: Sequence[Tracker | Logger], plain: Sequence[Any], run_dir: Path, run_name: str
) -> list[Logger]:
    """Make every logger of a run; the first writes ``logs_train.csv``.

    The configured trackers are passed as objects, and as plain values where a configuration
    names them.
    """
    csv = next((tracker for tracker in trackers if isinstance(tracker, CsvLogger)), CsvLogger())
    own = run_dir / "logs_train.csv"
    loggers: list[Logger] = [CsvRows(own)]
    elsewhere = Path(csv.output_run or run_dir).absolute()  # the program may change its folder
    if elsewhere.resolve() != run_dir.resolve():
        loggers.append(CsvCopy(elsewhere / own.name, own))
    names: list[str] = []
    for tracker, values in zip(trackers, chain(plain, repeat(None)), strict=False):
        if isinstance(tracker, CsvLogger):
            continue
        logger = journal_logger(tracker, values, run_dir, run_name)
        names.append(logger.name)
        if (number := names.count(logger.name)) > 1:
            logger.journal = Journal(logger.journal.path.with_stem(f"{logger.name}-{number}"))
        loggers.append(logger)
    return loggers


def journal_logger(
    tracker: Tracker | Logger, plain: Any, run_dir: Path, run_name: str
) -> JournalLogger:
    """Put a journal before a service, or a Lightning logger that ``plain`` may describe."""
    if isinstance(tracker, JournalLogger):
        raise ConfigError("trackers cannot contain a JournalLogger: pass the tracker or its logger")
    name = type(tracker).__name__.lower()
    journal = Journal(run_dir / "trackers" / f"{name}.jsonl")
    if isinstance(tracker, Tracker):
        if find_spec(name) is None:
            package = name if name == "wandb" else f'"lis2-lightning[{name}]"'
            raise ConfigError(f"tracker {name!r} needs {name}: pip install {package}")
        options = {"is_local": tracker.is_local, **vars(tracker)}
        environment = options.pop("environment", None)
        start = {"service": name, "options": options, "run_name": run_name}
        return JournalLogger(journal, start, environment=environment)
    is_named = isinstance(plain, Mapping) and "class_path" in plain
    start = {"service": "lightning", "options": plain} if is_named else {"service": "object"}
    return JournalLogger(journal, {"options": {}, **start, "run_name": run_name}, tracker)


def close_all(loggers: Sequence[JournalLogger], status: Status) -> None:
    """End a run at every tracker, in a bounded time for all of them together."""
    started = [logger for logger in loggers if logger.is_started]
    for logger in started:
        logger.end(status)
    deadline = time.monotonic() + CLOSE_S
    for logger in started:
        logger.wait(deadline)
        logger.report()
    for logger in loggers:
        logger.has_warned = False  # the next run may succeed, or warn again
