"""How long the end of a run waits for a tracker."""

from __future__ import annotations

import time
from typing import Any

from lis2_lightning.trackers.journal import Mark
from lis2_lightning.trackers.limits import Limits


class Closing:
    """How long the end of a run waits for one tracker.

    One that has never answered gets no longer for being busy: it goes on by itself afterwards.

    Args:
        began: When the run ended, on the monotonic clock.
        limits: The times.
        is_local: Whether all that is waited for is work of this machine.
    """

    def __init__(self, began: float, limits: Limits, *, is_local: bool) -> None:
        self._limits = limits
        self._until = began + limits.close_s
        self._is_local = is_local
        self._last: tuple[Any, ...] = ()
        self._since = began

    def goes_on(self, mark: Mark) -> bool:
        """Whether to wait longer.

        Args:
            mark: How far the courier has come.
        """
        if mark.phase in {"off", "done"}:
            return False
        now = time.monotonic()
        if self._is_local:
            return now < self._until
        seen = (mark.sent, mark.allow_s)
        if self._last and seen != self._last and mark.is_open:
            self._since = now
        self._last = seen
        allowed = max(self._limits.stall_s, mark.allow_s if mark.is_open else 0.0)
        return now < min(self._until, self._since + allowed)
