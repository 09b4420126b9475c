"""A delivery beside a training, in a process of its own; both ends of it.

A process, and not a thread: importing and talking take Python's lock, for which every step would
wait, and a call that hangs can be ended together with its process.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from lis2_lightning.base.signals import NOTED
from lis2_lightning.trackers.delivery import LINGER_S, Delivery
from lis2_lightning.trackers.journal import Journal

# they may outlive their loggers, and this process, on purpose, of which Python would warn
_processes: list[subprocess.Popen[bytes]] = []


@atexit.register
def _leave_running() -> None:
    for process in _processes:
        process.returncode = process.poll() or 0


class DeliveryProcess:
    """A delivery in a process of its own."""

    def __init__(self, journal: Journal, environment: Mapping[str, str]) -> None:
        # -P: a file in the working folder must not stand in for a module
        command = [sys.executable, "-P", "-m", "lis2_lightning.trackers.delivery_process"]
        with (journal.state_dir / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [*command, str(journal.path)],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,  # Ctrl-C is for the training
            )
        _processes[:] = [process for process in _processes if process.poll() is None]
        _processes.append(self._process)

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def end(self) -> None:
        """Stop once everything now in the journal is delivered."""
        if self._process.stdin is not None:
            with suppress(OSError):  # it has given up, and is gone
                self._process.stdin.write(b"\n")  # forked workers may keep the pipe open
                self._process.stdin.close()


def main(path: str) -> None:
    """Deliver a journal until standard input ends, and what is left then."""
    for number in NOTED:  # the training reports its end itself
        signal.signal(number, signal.SIG_IGN)
    if os.name == "posix":
        os.nice(10)
    delivery = Delivery(Journal(Path(path)))
    threading.Thread(target=_await_end, args=(delivery,), daemon=True).start()
    delivery.deliver()
    sys.stdout.flush()
    os._exit(0)  # a library's exit handlers may hang


def _await_end(delivery: Delivery) -> None:
    sys.stdin.read(1)  # a character: the run has ended; nothing: its process has
    delivery.end()
    time.sleep(LINGER_S)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
