"""The last words of a process, and its end at once."""

from __future__ import annotations

import multiprocessing
import os
import sys
from contextlib import suppress
from typing import Final, NoReturn

GO_ON: Final = "the same command with resume: auto goes on"
_said: set[str] = set()


def tell(sentence: str) -> None:
    """Write a sentence to the standard error, as the command line tells an error."""
    with suppress(OSError, ValueError):  # nobody may be there to read it any more
        sys.stderr.write(f"lis2: {sentence}\n")
        sys.stderr.flush()


def tell_once(sentence: str) -> None:
    """Tell a sentence that several threads of this process may come to."""
    if sentence not in _said:
        _said.add(sentence)
        tell(sentence)


def end_now(code: int) -> NoReturn:
    """End this process and the workers of its data loaders, whatever its main thread is doing.

    A thread that waits for another process cannot be interrupted otherwise. Nothing is lost:
    files are written whole or not at all, and a lock goes with its process.

    Args:
        code: The exit code.
    """
    for worker in multiprocessing.active_children():
        worker.kill()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(code)
