"""The process beside a training that talks to one service: ``python -m`` this module, a journal.

A process, and not a thread: importing and talking take Python's lock, for which every step would
wait, and a call that hangs can be ended together with its process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from lis2_lightning.base.lock import lock
from lis2_lightning.errors import ConfigError
from lis2_lightning.trackers.courier import Courier
from lis2_lightning.trackers.journal import Journal
from lis2_lightning.trackers.limits import Limits
from lis2_lightning.trackers.service import make_service

_NICE = 10


def main(path: str, limits_json: str, token: str, writer: str) -> None:
    """Deliver a journal while the process that writes it lives, and what is left afterwards.

    Args:
        path: The journal.
        limits_json: :class:`Limits` as JSON.
        token: Tells this courier's marks from those of an earlier one.
        writer: The number of the process that writes it, which may be gone already.
    """
    _stand_back()
    journal, limits = Journal(Path(path)), Limits(**json.loads(limits_json))
    parent = int(writer)
    with held(journal, limits.linger_s):
        courier = Courier(
            journal,
            partial(make_service, journal.run_dir),
            limits,
            is_over=lambda: os.getppid() != parent,
            token=token,
        )
        threading.Thread(target=_watch, args=(courier, limits, parent), daemon=True).start()
        courier.run()
    sys.stdout.flush()
    os._exit(0)  # what a library has left to do at its exit may hang


def _stand_back() -> None:
    """Leave signals to the training, which says itself when it ends, and the cores, too."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP"):
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)
    if os.name == "posix":
        os.nice(_NICE)


@contextmanager
def held(journal: Journal, patience_s: float) -> Iterator[None]:
    """Hold a journal, of which one process at a time may deliver.

    Args:
        journal: The journal.
        patience_s: How long to wait for another process.

    Raises:
        ConfigError: Another one holds it still.
    """
    journal.state_dir.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + patience_s
    while True:
        try:
            with lock(journal.state_dir):
                yield
                return
        except ConfigError:
            if time.monotonic() > until:
                raise
        time.sleep(0.1)


def _watch(courier: Courier, limits: Limits, parent: int) -> None:
    """End the process where a call does not return, or where it outlives its run for too long."""
    ending_since: float | None = None
    while True:
        time.sleep(0.2)
        is_ending = os.getppid() != parent or courier.journal.is_closing()
        ending_since = (ending_since or time.monotonic()) if is_ending else None
        lingers = ending_since is not None and time.monotonic() - ending_since > limits.linger_s
        if courier.is_late or lingers:
            mark = courier.journal.mark()
            mark.phase, mark.error = "off", mark.error or "a call did not return in time"
            courier.journal.set_mark(mark)
            os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
