"""The ``lis2`` command: one sentence and an exit code for what goes wrong."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from types import FrameType
from typing import NoReturn

from lis2_lightning.base.signals import NOTED, requeue
from lis2_lightning.errors import Lis2Error
from lis2_lightning.parallel import is_main, local_rank
from lis2_lightning.parallel.children import (
    CHILDREN,
    RESUME,
    end_now,
    is_started,
    tell,
    watch_parent,
)
from lis2_lightning.parallel.processes import are_joined


def main(args: list[str] | None = None) -> int:
    """Run the command line, by default that of the process, and return its exit code.

    That is 0, 2 for what the user can correct, 1 for a failed run or a difference that was
    found, and 128 plus the signal's number where a signal ended the run.
    """
    _open_streams()
    watch_parent()
    # where a signal is ignored or handled already, that is left
    replaced = (signal.SIG_DFL, signal.default_int_handler)
    former = {n: handler for n in NOTED if (handler := signal.getsignal(n)) in replaced}
    if threading.current_thread() is not threading.main_thread():
        former = {}  # Python allows no handlers there
    for number in former:
        signal.signal(number, _end_outside_loops)
    try:
        code = _exit_code(sys.argv[1:] if args is None else args)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    if code and is_started():
        end_now(code)  # the main process waits for it, and the interpreter's own end takes long
    return code


def _open_streams() -> None:
    """Open closed streams on the null device: the next file would get their number, and output."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def _end_outside_loops(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - Python's signature
    """End at once: an exception could be swallowed, or break numpy and torch in their import."""
    CHILDREN.end()
    if is_main():
        name = signal.Signals(number).name
        tell(f"{name} outside the loops: what is written is whole; {RESUME}")
        requeue(number)
    end_now(128 + number)


def _exit_code(words: list[str]) -> int:
    try:
        return _run(words)
    except KeyboardInterrupt:  # a loop has ended in order, and reported it
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # or Python complains at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Lis2Error as error:
        if os.environ.get("LIS2_DEBUG"):
            raise
        CHILDREN.end()
        # before the processes are joined, each of those from outside finds the same for itself
        if is_started() or are_joined() or local_rank() == 0:
            tell(str(error))
        return error.exit_code
    except Exception as error:
        if not (CHILDREN or is_started() or are_joined()):
            raise
        CHILDREN.end()
        traceback.print_exc()
        tell(
            f"process {local_rank()} ({os.getpid()}) failed with {type(error).__name__} (see "
            f"above): the run has stopped; {RESUME}"
        )
        return 1


def _run(words: list[str]) -> int:
    from lis2_lightning.cli.dispatch import run  # noqa: PLC0415 - after the signals are seen to

    return run(words)


if __name__ == "__main__":
    sys.exit(main())
