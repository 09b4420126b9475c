"""Forked processes that work at one thing: what they tell, and how they end."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, Final, cast

from lis2_lightning.base.signals import NOTED, Signals
from lis2_lightning.errors import Interrupted
from lis2_lightning.parallel.failures import death, described, rebuilt

Tell = Callable[[str, Any], None]
Work = Callable[[int, Tell], None]
GRACE_S: Final = 5.0  # after one has failed: time for the others to notice
_LINGER_S: Final = 60.0  # after the notebook's process is gone: time to write what is to be kept
_POLL_S: Final = 0.1
_FAILED: Final = "failed"


class Workers:
    """Forks processes that do one piece of work, and waits for all of them.

    Args:
        num: How many.
        work: What each does; it gets its number, and what tells this process something.
    """

    def __init__(self, num: int, work: Work) -> None:
        context = multiprocessing.get_context("fork")
        self.processes: list[BaseProcess] = []
        self._pipes: dict[Connection, int] = {}
        self._failures: list[tuple[int, dict[str, Any]]] = []
        self._killed: set[int] = set()
        self._asked = 0
        for rank in range(num):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_do, args=(work, rank, theirs), name=f"lis2-{rank}")
            process.start()
            theirs.close()
            self.processes.append(process)
            self._pipes[ours] = rank

    def join(self, signals: Signals, told: Tell) -> None:
        """Wait until all have ended; none outlives this.

        Args:
            signals: One that is noted here is passed on: Jupyter may interrupt the kernel alone.
            told: Gets what the workers tell.

        Raises:
            Interrupted: They were asked to end, or a second Ctrl-C ended them.
            Lis2Error: One of them has failed: its own sentence.
            Exception: What else one of them has raised, where Python knows its class.
        """
        try:
            self._wait(signals, told)
        except KeyboardInterrupt:
            raise Interrupted(
                "SIGINT a second time: the processes were ended at once; what is written is whole",
                signal.SIGINT,
            ) from None
        finally:
            self._end()
        if self._has_failed():
            raise self._error()

    def _wait(self, signals: Signals, told: Tell) -> None:
        until = math.inf
        while any(map(_lives, self.processes)) and time.monotonic() < until:
            self._listen(told)
            if signals.received and not self._asked:
                self._asked = signals.received
                self.kill(self._asked)
            if until == math.inf and self._has_failed():
                until = time.monotonic() + GRACE_S
        self._listen(told)

    def _has_failed(self) -> bool:
        return bool(self._failures) or any(process.exitcode for process in self.processes)

    def _listen(self, told: Tell) -> None:
        """Take in what has been told; a worker that is killed says nothing, so none is awaited."""
        if not self._pipes:
            time.sleep(_POLL_S)
        for pipe in wait(list(self._pipes), timeout=_POLL_S):
            self._take_in(cast("Connection", pipe), told)

    def _take_in(self, pipe: Connection, told: Tell) -> None:
        try:
            while pipe.poll():
                kind, value = pipe.recv()
                if kind == _FAILED:
                    self._failures.append((self._pipes[pipe], value))
                else:
                    told(kind, value)
        except (EOFError, ConnectionError):
            del self._pipes[pipe]
            pipe.close()

    def kill(self, number: int) -> None:
        """Send a signal to those that live."""
        for process in filter(_lives, self.processes):
            with suppress(ProcessLookupError):
                os.kill(cast("int", process.pid), number)

    def _end(self) -> None:
        self._killed = {rank for rank, each in enumerate(self.processes) if _lives(each)}
        self.kill(signal.SIGKILL)
        for process in self.processes:
            process.join()
        for pipe in self._pipes:
            pipe.close()

    def _error(self) -> Exception:
        """The cause: a sentence of ours, a death, or what was said first.

        The others fail, too, because a process is gone that they wait for.
        """
        num = len(self.processes)
        ours = [failure for failure in self._failures if failure[1]["own"]]
        silent = self._killed | {rank for rank, _ in self._failures}
        died = [r for r, each in enumerate(self.processes) if each.exitcode and r not in silent]
        if died and not ours:
            return death(died[0], self.processes[died[0]].exitcode or 0, num)
        rank, told = [*ours, *self._failures][0]
        return rebuilt(told, rank, num)


def _lives(process: BaseProcess) -> bool:
    return process.is_alive()


def _do(work: Work, rank: int, pipe: Connection) -> None:
    """The life of a worker."""

    def tell(kind: str, value: Any) -> None:
        with suppress(OSError):  # where the kernel is gone there is nobody to tell
            pipe.send((kind, value))

    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        work(rank, tell)
    except BaseException as error:
        tell(_FAILED, described(error))
        raise SystemExit(1) from error


def _end_with(parent: int) -> None:
    """Ask this process to end, as Ctrl-C does, where the notebook's one is gone."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_LINGER_S)
    os._exit(1)  # it is stuck


def note_each_once(signals: Signals) -> None:
    """Note signals in a worker, however often they come.

    Ctrl-C reaches all processes of a group in some places, and the notebook's process passes it on
    in any case: twice is no wish to end at once. That wish ends the workers from there.
    """

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - Python's signature
        signals.received = signals.received or number

    for number in NOTED:
        signal.signal(number, note)
