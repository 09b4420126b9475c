"""Where a courier runs beside a training: in a process, or in a thread for an object's sake."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from lis2_lightning.errors import ConfigError
from lis2_lightning.trackers.courier import Courier
from lis2_lightning.trackers.journal import Journal, Mark
from lis2_lightning.trackers.limits import Limits
from lis2_lightning.trackers.service import Service
from lis2_lightning.trackers.worker import held

_PACKAGE: Final = Path(__file__).resolve().parents[2]


class Host(ABC):
    """Runs the courier of a journal.

    Args:
        journal: What it delivers.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._token = secrets.token_hex(4)

    @property
    def mark(self) -> Mark:
        """How far this courier has come; nothing where it has not begun."""
        mark = self._journal.mark()
        return mark if mark.courier == self._token else Mark()

    @abstractmethod
    def is_alive(self) -> bool:
        """Whether the courier still delivers."""


class ProcessHost(Host):
    """A courier in a process of its own.

    Args:
        journal: What it delivers.
        limits: How long it tries.

    Raises:
        OSError: The process cannot be started.
    """

    def __init__(self, journal: Journal, limits: Limits) -> None:
        super().__init__(journal)
        journal.state_dir.mkdir(parents=True, exist_ok=True)
        # not the working folder: a file of a user's there must not stand in for a module
        module = [sys.executable, "-P", "-m", "lis2_lightning.trackers.worker"]
        arguments = [json.dumps(asdict(limits)), self._token, str(os.getpid())]
        paths = [str(_PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])]
        with (journal.state_dir / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [*module, str(journal.path), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,  # Ctrl-C is for the training
            )

    def is_alive(self) -> bool:
        """Whether the process runs."""
        alive = self._process.poll() is None
        if alive:
            # it may outlive this object on purpose, of which Python would warn
            _left_behind.add(self._process)
        else:
            _left_behind.discard(self._process)
        return alive


class DistantHost(Host):
    """A courier that another process has and looks after."""

    @property
    def mark(self) -> Mark:
        """Nothing: that process says what becomes of it."""
        return Mark()

    def is_alive(self) -> bool:
        """Whatever becomes of it, records are for the journal."""
        return True


_left_behind: set[subprocess.Popen[bytes]] = set()


class ThreadHost(Host):
    """A courier in a thread, for a logger that is an object of this process.

    A call that hangs cannot be ended: the thread is left to itself.

    Args:
        journal: What it delivers.
        limits: How long it tries.
        make: Makes the service.
    """

    def __init__(
        self, journal: Journal, limits: Limits, make: Callable[[Mapping[str, Any]], Service]
    ) -> None:
        super().__init__(journal)
        self._courier = Courier(journal, make, limits, lambda: False, self._token)
        self._limits = limits
        self._thread = threading.Thread(target=self._run, name=journal.name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with held(self._courier.journal, self._limits.linger_s):
                self._courier.run()
        except (ConfigError, OSError) as error:
            mark = self._journal.mark()
            mark.phase, mark.error, mark.courier = "off", str(error), self._token
            self._journal.set_mark(mark)

    def is_alive(self) -> bool:
        """Whether the thread delivers, and is not stuck in a call."""
        return self._thread.is_alive() and not self._courier.is_late
