"""Signals that end a run: noted when they come, acted upon where nothing is lost."""

from __future__ import annotations

import atexit
import logging
import multiprocessing.util  # noqa: F401 - it must have registered what it does at exit
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import active_children
from types import FrameType
from typing import Final

from lis2_lightning.base.display import in_notebook
from lis2_lightning.base.files import is_writing

_log = logging.getLogger("lis2_lightning")
# a scheduler's end, a user's Ctrl-C, schedulers' warnings before a limit, a terminal that is gone
NOTED: Final = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGHUP")
    if hasattr(signal, name)
)
_TWICE_S: Final = 1.0  # a signal may reach a process by two ways at nearly the same time
# how long a batch may take after a signal: so long where none has been seen yet, else three times
# the longest; after that, the data does not answer
_FIRST_BATCH_S: Final = 60.0
_LEAST_S: Final = 15.0


class Signals:
    """Notes the first signal that asks a run to end; a second one ends the process at once.

    So does the first, unless it is Ctrl-C, if no batch ends in three times the time of the longest
    before, and in at least 15 s.
    """

    def __init__(self) -> None:
        self.received = 0
        self._received_at = 0.0
        self._asked_at = 0.0
        self._longest_s = 0.0
        self._timer: threading.Timer | None = None

    def requests(self) -> list[int]:
        """A 1 for the signal that was received, in the order of :data:`NOTED`, else 0."""
        now = time.monotonic()
        if self._asked_at:
            self._longest_s = max(self._longest_s, now - self._asked_at)
        self._asked_at = now
        if self._timer is not None:
            self._timer.cancel()  # the loop answers
        return [int(number == self.received) for number in NOTED]

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note signals while a block runs; outside the main thread Python allows no handlers."""
        self.received, self._asked_at, self._longest_s = 0, 0.0, 0.0
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # under nohup, or in the background of a shell, some are ignored, and stay so
        numbers = [n for n in NOTED if signal.getsignal(n) != signal.SIG_IGN]
        former = {number: signal.signal(number, self._note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            if self._timer is not None:
                self._timer.cancel()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == self.received == getattr(signal, "SIGXCPU", None):
            return  # the kernel repeats it every second until the hard limit
        is_later = time.monotonic() > self._received_at + _TWICE_S
        if self.received and (is_later or number == self.received == signal.SIGINT):
            _end_at_once(number, frame)
        if not self.received:
            self.received, self._received_at = number, time.monotonic()
            if number != signal.SIGINT:  # who types Ctrl-C can type it again
                self._wait_for_batch(number)

    def _wait_for_batch(self, number: int) -> None:
        patience = max(_LEAST_S, 3 * self._longest_s) if self._longest_s else _FIRST_BATCH_S
        self._timer = threading.Timer(patience, self._give_up, [number])
        self._timer.daemon = True
        self._timer.start()

    def _give_up(self, number: int) -> None:
        """End a process whose data does not answer, from a thread."""
        if is_writing():  # a large snapshot, on a slow disk
            self._wait_for_batch(number)
            return
        name = signal.Signals(number).name
        text = f"{name}: the data does not answer, so the run ends; what is written is whole"
        with suppress(OSError, ValueError, AttributeError):  # it may be closed, or missing
            os.write(sys.stderr.fileno(), f"lis2: {text}\n".encode())
        _kill_workers()
        os._exit(128 + number)


def requested(requests: Sequence[int]) -> int:
    """The first signal that any process received, from summed :meth:`Signals.requests`; else 0."""
    return next((number for number, num in zip(NOTED, requests, strict=False) if num), 0)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    if in_notebook():
        signal.default_int_handler(number, frame)  # the notebook's kernel must survive
    _kill_workers()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


@atexit.register  # it runs before multiprocessing's own, which waits for those that ignore SIGTERM
def _kill_workers() -> None:
    """End the workers of data loaders, some of which may hang."""
    for process in active_children():
        if process.daemon:
            process.kill()


def leave_to_main_process(worker: int = 0) -> None:  # noqa: ARG001 - a data loader's worker number
    """Ignore the signals in a data loader's worker.

    They reach every process of a job, but the main process needs batches until it has stopped
    where nothing is lost. A worker ends with it in any case.
    """
    for number in NOTED:
        signal.signal(number, signal.SIG_IGN)


def is_requeued() -> bool:
    """Whether SLURM has started this job again: the same command continues instead of starting."""
    return os.environ.get("SLURM_RESTART_COUNT", "0") not in {"", "0"}


def requeue(number: int) -> None:
    """Ask SLURM to start the job again if the signal is its warning before the time limit.

    As Lightning's own handler does it, from the main process, with ``scontrol requeue``.
    """
    job = os.environ.get("SLURM_ARRAY_JOB_ID", os.environ.get("SLURM_JOB_ID"))
    is_warning = number == getattr(signal, "SIGUSR1", None)
    if job is None or not is_warning or os.environ.get("SLURM_PROCID", "0") != "0":
        return
    if task := os.environ.get("SLURM_ARRAY_TASK_ID"):
        job = f"{job}_{task}"
    scontrol = shutil.which("scontrol")
    if scontrol is None:
        _log.warning("scontrol is not on the path: requeue job %s by hand", job)
        return
    done = subprocess.run([scontrol, "requeue", job], check=False)  # noqa: S603 - a fixed command
    outcome = (
        "SLURM has requeued job %s" if done.returncode == 0 else "scontrol cannot requeue job %s"
    )
    _log.warning(outcome, job)
