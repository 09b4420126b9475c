"""What a process of a run may write to the screen, and the end of a process at once."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import warnings
from contextlib import suppress
from typing import Final, NoReturn

from lis2_lightning.parallel.processes import is_main

RESUME: Final = "run the same command with resume: auto to continue"
_LOGGERS: Final = ("lis2_lightning", "lightning", "lightning.pytorch", "lightning.fabric")


def only_main_speaks() -> None:
    """Silence every process but the main one, which has the same to say, up to its errors.

    For good: what a user's data set warns of comes before and after the loops, too.
    """
    if is_main():
        return
    warnings.simplefilter("ignore")
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)


def tell(sentence: str) -> None:
    """Write a sentence to the standard error, as the command line reports an error."""
    with suppress(OSError, ValueError):  # nobody may be there to read it any more
        sys.stderr.write(f"lis2: {sentence}\n")
        sys.stderr.flush()


def end_now(code: int) -> NoReturn:
    """End this process and the workers of its data loaders, whatever its main thread is doing.

    A thread that waits for another process cannot be interrupted otherwise. Nothing is lost:
    files are written whole or not at all, and a lock goes with its process.
    """
    for worker in multiprocessing.active_children():
        worker.kill()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(code)
