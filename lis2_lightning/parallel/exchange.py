"""What the processes exchange in each step: one small sum, sent while they compute."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

Value = TypeVar("Value")


def num_processes() -> int:
    """How many processes train together; 1 before they are joined.

    >>> num_processes()
    1
    """
    joined = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if joined else 1


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, each of which waits for it; the values are not changed."""
    if num_processes() == 1:
        return values
    total = values.detach().clone()
    distributed.all_reduce(total)
    return total


def of_all_processes(value: Value) -> list[Value]:
    """The values of all processes, in the order of their ranks; each waits for the others."""
    if num_processes() == 1:
        return [value]
    values: list[Any] = [None] * num_processes()
    distributed.all_gather_object(values, value)
    return values


class _Latest:
    """The last request of this process to the others, to which they may not have come yet."""

    work: distributed.Work | None = None


@atexit.register
def _leave_group() -> None:
    """Dissolve the group: gloo's threads may abort a process that ends in it (pytorch #190489).

    Not where it would wait for others that are gone.
    """
    has_failed = getattr(sys, "last_value", None) is not None
    is_idle = _Latest.work is None or _Latest.work.is_completed()
    if num_processes() > 1 and is_idle and not has_failed:
        distributed.destroy_process_group()


class Exchange:
    """Adds up a count and a few requests over all processes, without stalling any of them.

    :meth:`start` sends off a scalar count with what ``asked`` returns: what this process is asked
    for (a signal, a snapshot that is due), always equally many whole numbers. Every process must
    start equally often, and in the same order among its other collectives.
    """

    def __init__(self) -> None:
        self.asked: Callable[[], Sequence[int]] = tuple
        self._sums = torch.zeros(0, dtype=torch.float64)
        self._work: distributed.Work | None = None
        self._on_host: tuple[Tensor, torch.cuda.Event] | None = None

    def start(self, count: Tensor) -> None:
        """Send off a count, a scalar on this process's device, with the requests."""
        self._on_host = None
        self._sums = count.reshape(1).double()  # weights are no whole numbers
        if num_processes() > 1:
            asked = torch.tensor(self.asked(), dtype=torch.float64, device=count.device)
            self._sums = torch.cat([self._sums, asked])
            self._work = _Latest.work = distributed.all_reduce(self._sums, async_op=True)

    def count(self) -> Tensor:
        """The sum of the counts, a scalar on the device."""
        return self._arrived()[0]

    def requests(self) -> list[int]:
        """How many processes were asked for each thing; empty before anything was sent off."""
        if num_processes() == 1:
            return list(self.asked())
        sums = self._arrived()
        if self._on_host is not None:
            sums, event = self._on_host
            event.synchronize()  # which waits for the forward pass, not for all that is queued
        return [int(num) for num in sums[1:].tolist()]

    def requests_now(self, device: torch.device) -> list[int]:
        """How many processes are asked for each thing now; all of them wait for it."""
        self.start(torch.zeros((), dtype=torch.int64, device=device))
        return self.requests()

    def _arrived(self) -> Tensor:
        if self._work is not None:
            self._work.wait()
            self._work = None
            if self._sums.is_cuda:
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's
                self._on_host = self._sums.to("cpu", non_blocking=True), event
                event.record()
        return self._sums
