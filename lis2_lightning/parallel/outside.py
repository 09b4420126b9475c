"""Before, between and after Lightning's loops: signals, and whether the processes are joined."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from signal import SIGINT
from types import FrameType
from typing import NoReturn

from lis2_lightning.base.signals import NOTED, requeue
from lis2_lightning.parallel.children import CHILDREN
from lis2_lightning.parallel.ending import GO_ON, end_now, tell
from lis2_lightning.parallel.processes import is_main


@contextmanager
def signals_outside_loops() -> Iterator[None]:
    """End the process with a sentence and the signal's code, where no loop notes the signals.

    Ctrl-C stays Python's exception; where a signal is ignored or handled already, that is left.
    """
    with _ending_on(n for n in NOTED if signal.getsignal(n) == signal.SIG_DFL):
        yield


@contextmanager
def while_importing() -> Iterator[None]:
    """End the process on Ctrl-C, too: numpy and torch do not survive an exception in their import.

    An import of numpy that was interrupted calls itself until Python's stack is full.
    """
    with _ending_on([SIGINT] if signal.getsignal(SIGINT) is signal.default_int_handler else []):
        yield


@contextmanager
def _ending_on(numbers: Iterable[int]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, _end) for number in list(numbers)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - Python's signature
    """End at once: an exception could be swallowed, or break torch halfway through its import."""
    CHILDREN.end()
    if is_main():
        name = signal.Signals(number).name
        tell(f"{name} outside the loops: what is written is whole, and {GO_ON}")
        requeue(number)
    end_now(128 + number)


def are_joined() -> bool:
    """Whether this process can talk to the others by now; torch is not imported to find out."""
    distributed = sys.modules.get("torch.distributed")
    # a module that is being imported has not all of its names
    is_initialized = getattr(distributed, "is_initialized", None)
    return is_initialized is not None and bool(is_initialized())
