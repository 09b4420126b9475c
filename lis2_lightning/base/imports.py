"""Importing what is large: without cyclic garbage collection, which would take a fifth of it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collecting_later() -> Iterator[None]:
    """Put off garbage collection in the block: modules stay, so that it finds little."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def bringing_torch() -> Iterator[None]:
    """For a command: also leave out what it has imported from later collections.

    The last one, when the process ends, would take a second. Where torch is there already, a
    program has called the command, and its objects are collected as ever.
    """
    is_first = "torch" not in sys.modules
    with collecting_later():
        yield
        if is_first:
            gc.freeze()
