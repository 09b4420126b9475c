"""The main process of a host and those that Lightning starts from it watch each other.

Who reports what: a process that fails with an exception reports it, and ends with code 1 or 2. The
main process reports every other death of a process it has started; the first of those reports that
of the main process. Lightning's own observer kills the main process without a word.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Final

from lis2_lightning.base.signals import NOTED
from lis2_lightning.errors import ProcessLost
from lis2_lightning.parallel.output import RESUME, end_now, tell
from lis2_lightning.parallel.processes import local_rank

# Not LIS2_…: those are keys of the configuration.
_STARTED_BY: Final = "_LIS2_STARTED_BY"
_POLL_S: Final = 0.2
_GRACE_S: Final = 5.0  # in which the main thread may notice a death, too, and end in order
_EXIT_S: Final = 5.0  # after a run that is over, the others have no more to do than to exit
_TOLD: Final = (1, 2)  # Python and the command line end with these after they have reported why


class Children:
    """The processes that this one has started; there is one object, for there is one such group."""

    def __init__(self) -> None:
        self._launcher: Any = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._is_ending = threading.Event()
        self._is_told = False

    def __bool__(self) -> bool:
        """Whether any were started."""
        self._take_over()
        return bool(self._processes)

    def watch(self, launcher: Any) -> None:
        """Watch the processes that a launcher is about to start, until this one ends.

        Args:
            launcher: That of Lightning's strategy, or null where it starts nothing.
        """
        if launcher is None or is_started():
            return
        is_first = self._launcher is None
        self._launcher = launcher
        if is_first:
            os.environ[_STARTED_BY] = str(os.getpid())
            atexit.register(self._end_at_exit)
            threading.Thread(target=self._watch, daemon=True, name="children").start()

    def let_end(self) -> None:
        """Treat the end of a process as no loss any more."""
        self._is_ending.set()

    def end(self) -> None:
        """Kill the processes, after which they report nothing any more."""
        self.let_end()
        self.kill()

    def kill(self) -> None:
        """Kill the processes, and still see that this one ends soon, too."""
        self._take_over()
        for process in self._processes:
            process.kill()  # nothing happens where it has ended

    def loss(self, within_s: float = 0) -> ProcessLost | None:
        """Find the process whose end ends the run.

        Args:
            within_s: How long to wait for one. The connections of a process close before it ends.

        Returns:
            The one that has reported its reason, else one with an exit code, else one that ended
            early; null where none has ended.
        """
        until = time.monotonic() + within_s
        while not (ended := self._ended()) and time.monotonic() < until:
            time.sleep(0.02)
        if not ended:
            return None
        codes = [code for *_, code in ended]
        worst = min(range(len(ended)), key=lambda i: (codes[i] not in _TOLD, codes[i] == 0))
        return _loss(*ended[worst])

    def report(self, loss: ProcessLost) -> None:
        """Report a loss, unless that was done by the lost process or another thread."""
        if not (loss.is_told or self._is_told):
            self._is_told = True
            tell(str(loss))

    def _ended(self) -> list[tuple[int, int, int]]:
        self._take_over()
        codes = [(rank, p.pid, p.poll()) for rank, p in enumerate(self._processes, start=1)]
        return [(rank, pid, code) for rank, pid, code in codes if code is not None]

    def _take_over(self) -> None:
        """Empty the launcher's list, which is also that of Lightning's observer: it ends then."""
        processes: list[Any] = getattr(self._launcher, "procs", [])
        with self._lock:
            while processes:
                self._processes.append(processes.pop(0))

    def _watch(self) -> None:
        while not self._is_ending.wait(_POLL_S):
            # one that is over may end a moment before the main process
            if any(code for *_, code in self._ended()):
                break
        if not self._is_ending.wait(_GRACE_S) and (loss := self.loss()):
            self.report(loss)
            self.kill()
            end_now(loss.exit_code)

    def _end_at_exit(self) -> None:
        self.let_end()
        # set where an exception that nobody has caught ends the interpreter
        failed = getattr(sys, "last_value", None) is not None
        until = time.monotonic() + (0 if failed else _EXIT_S)
        while time.monotonic() < until and any(p.poll() is None for p in self._processes):
            time.sleep(0.02)
        self.kill()


CHILDREN: Final = Children()


def _loss(rank: int, pid: int, code: int) -> ProcessLost:
    """What the main process reports of another one, and the exit code with which it ends.

    Args:
        rank: Which process of this host.
        pid: Its number in the system.
        code: Its exit code as ``subprocess`` has it: negative where a signal killed it.

    >>> print(_loss(1, 4711, -9))
    process 1 (4711) was killed by SIGKILL, as happens when memory runs out: the run has stopped;
    run the same command with resume: auto to continue
    >>> _loss(1, 4711, 143).exit_code, _loss(1, 4711, 2).is_told
    (143, True)
    """
    number = -code if code < 0 else code - 128  # a handler adds 128, as a shell does
    how, exit_code = f"ended with code {code} before the run was over", code or 1
    if number in NOTED:
        how, exit_code = f"was ended by {signal.Signals(number).name}", 128 + number
    elif number in set(signal.Signals):
        hint = ", as happens when memory runs out" if number == signal.SIGKILL else ""
        how, exit_code = f"was killed by {signal.Signals(number).name}{hint}", 1
    message = f"process {rank} ({pid}) {how}: the run has stopped; {RESUME}"
    return ProcessLost(message, exit_code=exit_code, is_told=code in _TOLD)


def is_started() -> bool:
    """Whether the main process of this host has started this one."""
    return _STARTED_BY in os.environ and local_rank() > 0


def watch_parent() -> None:
    """End this process when the one that has started it is gone; call it as early as possible."""
    # on Windows a process keeps the number of its parent for ever
    is_watched = any(thread.name == "parent" for thread in threading.enumerate())
    if is_started() and os.name == "posix" and not is_watched:
        parent = int(os.environ[_STARTED_BY])
        threading.Thread(target=_watch, args=(parent,), daemon=True, name="parent").start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    # a main process that ends in order waits for those it has started, or kills them
    if local_rank() == 1:
        tell(f"the main process ({parent}) was killed: the run has stopped; {RESUME}")
    end_now(1)
