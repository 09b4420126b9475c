"""The main process of a host and those that Lightning starts from it watch each other.

A process that fails with an exception reports it, and ends with code 1 or 2. The main process
reports every other death; the first of those it has started reports that of the main process.
Lightning's own observer kills the main process without a message.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, NoReturn

from lis2_lightning.base.redaction import without_login
from lis2_lightning.base.signals import NOTED
from lis2_lightning.parallel.processes import local_rank

RESUME: Final = "run the same command with resume: auto to continue"
# Not LIS2_…: those are keys of the configuration.
_STARTED_BY: Final = "_LIS2_STARTED_BY"
_POLL_S: Final = 0.2
_GRACE_S: Final = 1.5  # after a death, in which the main thread may end in order, too
_EXIT_S: Final = 5.0  # after a run that is over, the others have no more to do than to exit
_REPORTED: Final = (1, 2)  # Python and the command line end with these after a report


class Children:
    """The processes that this one has started."""

    def __init__(self) -> None:
        self._launcher: Any = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._is_ending = threading.Event()

    def __bool__(self) -> bool:
        """Whether any were started."""
        return bool(self._all())

    def watch(self, launcher: Any) -> None:
        """Watch the processes that the strategy's launcher is about to start, if it has one."""
        if launcher is None or local_rank() > 0:
            return
        is_first = self._launcher is None
        self._launcher = launcher
        if is_first:
            os.environ[_STARTED_BY] = str(os.getpid())
            atexit.register(self._end_at_exit)
            threading.Thread(target=self._watch, daemon=True, name="children").start()

    def end(self) -> None:
        """Kill the processes; nobody reports their end after that."""
        self._is_ending.set()
        for process in self._all():
            process.kill()  # nothing happens where it has ended

    def _all(self) -> list[subprocess.Popen[bytes]]:
        """Empty the launcher's list, which is also that of Lightning's observer: it ends then."""
        started: list[Any] = getattr(self._launcher, "procs", [])
        with self._lock:
            while started:
                self._processes.append(started.pop(0))
        return self._processes

    def _failed(self) -> list[tuple[int, int, int]]:
        codes = [(rank, p.pid, p.poll()) for rank, p in enumerate(self._all(), start=1)]
        # one that is over may end a moment before the main process
        return [(rank, pid, code) for rank, pid, code in codes if code]

    def _watch(self) -> None:
        while not self._is_ending.wait(_POLL_S):
            if self._failed() and not self._is_ending.wait(_GRACE_S):
                sentence, code = loss(
                    *min(self._failed(), key=lambda end: end[-1] not in _REPORTED)
                )
                if sentence:
                    tell(sentence)
                self.end()
                end_now(code)

    def _end_at_exit(self) -> None:
        self._is_ending.set()
        # set where an exception that nobody has caught ends the interpreter
        failed = getattr(sys, "last_value", None) is not None
        with suppress(subprocess.TimeoutExpired):
            for process in self._all():
                process.wait(0 if failed else _EXIT_S)
        self.end()


CHILDREN: Final = Children()


def loss(rank: int, pid: int, code: int) -> tuple[str, int]:
    """The main process's report of the death of another, empty where that one has reported it.

    The exit code comes with it. That of the other process is negative where a signal killed it.

    >>> print(*loss(1, 4711, -9))
    process 1 (4711) was killed by SIGKILL, as happens when memory runs out: the run has stopped;
    run the same command with resume: auto to continue 1
    >>> loss(1, 4711, 143)[1], loss(1, 4711, 2)
    (143, ('', 2))
    """
    if code in _REPORTED:
        return "", code
    number = -code if code < 0 else code - 128  # a handler adds 128, as a shell does
    how, exit_code = f"ended with code {code} before the run was over", code
    if number in NOTED:
        how, exit_code = f"was ended by {signal.Signals(number).name}", 128 + number
    elif number in set(signal.Signals):
        hint = ", as happens when memory runs out" if number == signal.SIGKILL else ""
        how, exit_code = f"was killed by {signal.Signals(number).name}{hint}", 1
    return f"process {rank} ({pid}) {how}: the run has stopped; {RESUME}", exit_code


def tell(sentence: str) -> None:
    """Write a sentence to the standard error, as the command line reports an error."""
    with suppress(OSError, ValueError, AttributeError):  # it may be closed, or missing
        sys.stderr.write(f"lis2: {without_login(sentence)}\n")
        sys.stderr.flush()


def end_now(code: int) -> NoReturn:
    """End this process and its data loaders' workers, whatever its main thread is waiting for.

    Nothing is lost: files are written whole or not at all, and a lock goes with its process.
    """
    for worker in multiprocessing.active_children():
        worker.kill()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(code)


def is_started() -> bool:
    """Whether the main process of this host has started this one."""
    return _STARTED_BY in os.environ and local_rank() > 0


def watch_parent() -> None:
    """End this process when the one that started it is gone; call it as early as possible."""
    # on Windows a process keeps the number of its parent for ever
    is_watched = any(thread.name == "parent" for thread in threading.enumerate())
    if is_started() and os.name == "posix" and not is_watched:
        parent = int(os.environ[_STARTED_BY])
        when_alone(parent, partial(_end_without, parent), name="parent")


def when_alone(parent: int, then: Callable[[], object], *, name: str) -> None:
    """Call a function, in a thread of this name, once the process that started this one is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_S)
        then()

    threading.Thread(target=watch, daemon=True, name=name).start()


def _end_without(parent: int) -> NoReturn:
    # a main process that ends in order waits for those it has started, or kills them
    if local_rank() == 1:
        tell(f"the main process ({parent}) was killed: the run has stopped; {RESUME}")
    end_now(1)
