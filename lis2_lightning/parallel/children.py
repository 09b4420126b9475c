"""The processes that the main one has started on this host: when one of them dies, all end."""

from __future__ import annotations

import atexit
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from signal import Signals
from typing import Final

from lis2_lightning.base.signals import NOTED
from lis2_lightning.parallel.ending import GO_ON, end_now, tell_once
from lis2_lightning.parallel.parent import told_code

_POLL_S: Final = 0.2
_GRACE_S: Final = 3.0  # in which the main thread, too, may notice, and end the run in order
_LAST_S: Final = 6.0  # in which it must have ended then
_USUAL_S: Final = 10.0  # after a run that is over, the others have no more than their exit to do


@dataclass(frozen=True)
class Loss:
    """A process that has ended before its run.

    Args:
        local_rank: Which one, from 1.
        pid: Its number.
        returncode: As ``subprocess`` has it: negative where a signal killed it.
    """

    local_rank: int
    pid: int
    returncode: int

    @property
    def is_told(self) -> bool:
        """Whether the process itself has told why."""
        return told_code(self.returncode) is not None

    @property
    def exit_code(self) -> int:
        """With which the main process ends."""
        if (told := told_code(self.returncode)) is not None:
            return told
        if (signal := self._signal) is not None:
            return 128 + signal if signal in NOTED else 1
        return self.returncode or 1

    @property
    def _signal(self) -> Signals | None:
        # a handler that ends a process adds 128, as a shell does
        number = -self.returncode if self.returncode < 0 else self.returncode - 128
        return Signals(number) if number in set(Signals) else None

    def __str__(self) -> str:
        """The sentence.

        >>> print(Loss(1, 4711, -9))
        process 1 (4711) was killed by SIGKILL, as where memory runs out: all processes of this run
        have ended, and the same command with resume: auto goes on
        >>> print(Loss(2, 4711, 143))
        process 2 (4711) was ended by SIGTERM: all processes of this run have ended, and the same
        command with resume: auto goes on
        """
        return (
            f"process {self.local_rank} ({self.pid}) {self._how()}: all processes of this run have "
            f"ended, and {GO_ON}"
        )

    def _how(self) -> str:
        signal = self._signal
        if signal is None:
            return f"ended with code {self.returncode} before the run was over"
        if signal in NOTED:
            return f"was ended by {signal.name}"
        hint = ", as where memory runs out" if signal.name == "SIGKILL" else ""
        return f"was killed by {signal.name}{hint}"


class Children:
    """The processes that this one has started; there is one object, for there is one such group.

    Lightning has an observer of its own: it looks every five seconds, and kills the main process
    without a word.
    """

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self._is_ending = threading.Event()

    def __bool__(self) -> bool:
        """Whether any were started."""
        return bool(self._processes)

    def watch(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        """Watch over processes from now on.

        Args:
            processes: Those of local rank 1, 2, ….
        """
        self._processes = list(processes)
        self._is_ending.clear()
        atexit.register(self._end_at_exit)
        threading.Thread(target=self._watch, daemon=True, name="children").start()

    def let_end(self) -> None:
        """Take the end of a process for no loss any more."""
        self._is_ending.set()

    def end(self, patience_s: float = 0) -> None:
        """Kill the processes, after which they tell nothing any more.

        Args:
            patience_s: How long to wait before, for those that end by themselves.
        """
        self.let_end()
        until = time.monotonic() + patience_s
        while time.monotonic() < until and any(p.poll() is None for p in self._processes):
            time.sleep(0.02)
        for process in self._processes:
            process.kill()  # nothing happens where it has ended

    def loss(self, within_s: float = 0) -> Loss | None:
        """Find the process whose end ended the run.

        Args:
            within_s: How long to wait for one. The connections of a process close before it ends.

        Returns:
            The one that has told its reason, else one with an exit code, else one that ended
            early; null where none has ended.
        """
        until = time.monotonic() + within_s
        while not (found := self._ended()) and time.monotonic() < until:
            time.sleep(0.02)
        return min(found, key=lambda one: (not one.is_told, one.returncode == 0), default=None)

    def end_with(self, loss: Loss) -> None:
        """End the others for a loss, and see that this process ends soon, too.

        What is left to do, such as closing trackers or leaving a group of processes, may hang.

        Args:
            loss: What was found.
        """
        self.end()
        timer = threading.Timer(_LAST_S, self._end_all, (loss,))
        timer.daemon = True
        timer.start()

    def _ended(self) -> list[Loss]:
        codes = [(rank, one.pid, one.poll()) for rank, one in enumerate(self._processes, start=1)]
        return [Loss(rank, pid, code) for rank, pid, code in codes if code is not None]

    def _watch(self) -> None:
        while not self._is_ending.wait(_POLL_S):
            loss = self.loss()
            if loss is None or loss.returncode == 0:
                continue  # one that is over may end a moment before the main process
            if not self._is_ending.wait(_GRACE_S):
                self._end_all(loss)
            return

    def _end_all(self, loss: Loss) -> None:
        if not loss.is_told:
            tell_once(str(loss))
        self.end()
        end_now(loss.exit_code)

    def _end_at_exit(self) -> None:
        # set where an exception that nobody has caught ends the interpreter
        failed = getattr(sys, "last_value", None) is not None
        self.end(patience_s=0 if failed else _USUAL_S)


CHILDREN: Final = Children()
