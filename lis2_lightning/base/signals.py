"""Signals that end a run: noted when they come, acted upon where nothing is lost."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

_log = logging.getLogger("lis2_lightning")
# a scheduler's end, a user's Ctrl-C, and SLURM's warning before its time limit
NOTED: Final = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)
)


class Signals:
    """Notes the first signal that asks a run to end; a second Ctrl-C ends the process at once."""

    def __init__(self) -> None:
        self.received = 0

    def requests(self) -> list[int]:
        """A 1 for the signal that was received, in the order of :data:`NOTED`, else 0."""
        return [int(number == self.received) for number in NOTED]

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note signals while a block runs; outside the main thread Python allows no handlers."""
        self.received = 0
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        former = {number: signal.signal(number, self._note) for number in NOTED}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == self.received == signal.SIGINT:
            _end_at_once(number, frame)
        self.received = self.received or number


def requested(requests: Sequence[int]) -> int:
    """The first signal that any process received, from summed :meth:`Signals.requests`; else 0."""
    return next((number for number, num in zip(NOTED, requests, strict=False) if num), 0)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    if "ipykernel" in sys.modules:
        signal.default_int_handler(number, frame)  # the notebook's kernel must survive
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


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
