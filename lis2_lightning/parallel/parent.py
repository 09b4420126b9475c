"""A process that the main one has started ends with it, also where that one had no time to ask."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from lis2_lightning.parallel.ending import GO_ON, end_now, tell
from lis2_lightning.parallel.processes import local_rank

# Not LIS2_…: those are keys of the configuration.
_STARTED_BY: Final = "_LIS2_STARTED_BY"
_POLL_S: Final = 0.3
# Added to the exit code of a started process that has told its reason, so that the main process
# need not tell one. Only the main process sees it.
_TOLD: Final = 64
_watching = threading.Lock()


@contextmanager
def named() -> Iterator[None]:
    """Let the processes that are started meanwhile know by whom."""
    os.environ[_STARTED_BY] = str(os.getpid())
    try:
        yield
    finally:
        del os.environ[_STARTED_BY]


def is_started() -> bool:
    """Whether the main process of this host has started this one."""
    return _STARTED_BY in os.environ and local_rank() > 0


def watch_parent() -> None:
    """End this process when the one that has started it is gone; call it as early as possible."""
    # on Windows a process keeps the number of its parent for ever
    if is_started() and os.name == "posix" and _watching.acquire(blocking=False):
        parent = int(os.environ[_STARTED_BY])
        threading.Thread(target=_watch, args=(parent,), daemon=True, name="parent").start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    # one that ends in order waits for the processes it has started, and kills them before it fails
    if local_rank() == 1:
        tell(
            f"the main process ({parent}) was killed: all processes of this run have ended, and "
            f"{GO_ON}"
        )
    end_now(1)


def having_told(code: int) -> int:
    """The exit code with which a process ends that has told why.

    Args:
        code: As it is documented.
    """
    return code + _TOLD if is_started() else code


def told_code(code: int) -> int | None:
    """The documented exit code of a started process that has told why it ended; else null.

    Args:
        code: With which it ended.

    >>> told_code(66), told_code(2), told_code(-9)
    (2, None, None)
    """
    return code - _TOLD if _TOLD < code <= _TOLD + 2 else None
