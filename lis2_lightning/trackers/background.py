"""Where a delivery runs beside a training: in a process, or in a thread for logger objects."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from lis2_lightning.errors import ConfigError
from lis2_lightning.trackers.adapter import Adapter
from lis2_lightning.trackers.delivery import Delivery
from lis2_lightning.trackers.journal import Journal

_PACKAGE: Final = Path(__file__).resolve().parents[2]
# they may outlive their loggers on purpose, of which Python would warn
_processes: list[subprocess.Popen[bytes]] = []


class Background(Protocol):
    """A delivery that has been started."""

    def is_alive(self) -> bool:
        """Whether it still delivers."""

    def end(self) -> None:
        """Stop it once everything now in the journal is delivered."""


class DeliveryProcess:
    """A delivery in a process of its own.

    Args:
        journal: The journal.

    Raises:
        OSError: The process cannot be started.
    """

    def __init__(self, journal: Journal) -> None:
        # -P: a file in the working folder must not stand in for a module
        command = [sys.executable, "-P", "-m", "lis2_lightning.trackers.delivery"]
        paths = [str(_PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])]
        with (journal.state_dir / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [*command, str(journal.path)],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
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


class DeliveryThread(threading.Thread):
    """A delivery to an object of this process; a call that hangs leaves the thread behind.

    Args:
        journal: The journal.
        adapter: Talks to the object.
    """

    def __init__(self, journal: Journal, adapter: Adapter) -> None:
        super().__init__(name=journal.name, daemon=True)
        self._delivery = Delivery(journal, lambda _: adapter)
        self.start()

    def run(self) -> None:
        """Deliver."""
        with suppress(ConfigError, OSError):  # held by another process, or no room on the disk
            self._delivery.run()

    def is_alive(self) -> bool:
        """Whether the thread delivers, and does not hang in a call."""
        return super().is_alive() and not self._delivery.is_late

    def end(self) -> None:
        """Stop once everything now in the journal is delivered."""
        self._delivery.end()
