"""What the processes tell each other in each step: one small sum, on its way while they compute."""

from __future__ import annotations

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
    """The sum over all processes, for which each of them waits; the values stay as they are."""
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


class Exchange:
    """Adds up a count and a few requests over all processes, without stalling any of them.

    :meth:`start` sends this process's numbers off; whoever asks for a result later waits for no
    more than what is missing. Every process must start equally often, and in the same order among
    its other collectives.

    Attributes:
        asked: Tells what this process is asked for at the moment (a signal, a snapshot that is
            due): whole numbers, equally many each time.
    """

    def __init__(self) -> None:
        self.asked: Callable[[], Sequence[int]] = tuple
        self._sums = torch.zeros(0, dtype=torch.int64)
        self._work: distributed.Work | None = None
        self._on_host: tuple[Tensor, torch.cuda.Event] | None = None

    def start(self, count: Tensor) -> None:
        """Send off a count, with what this process is asked for now.

        Args:
            count: A whole number as a scalar on this process's device.
        """
        self._on_host = None
        self._sums = count.reshape(1)
        if num_processes() > 1:
            asked = torch.tensor(self.asked(), dtype=torch.int64, device=count.device)
            self._sums = torch.cat([self._sums, asked])
            self._work = distributed.all_reduce(self._sums, async_op=True)

    def count(self) -> Tensor:
        """The sum of the counts, a scalar on the device.

        Raises:
            RuntimeError: A process is gone.
        """
        return self._arrived()[0]

    def requests(self) -> list[int]:
        """How many processes were asked for each thing when the sums were sent off.

        With one process it is what it is asked for now. Empty before anything was sent off.

        Raises:
            RuntimeError: A process is gone.
        """
        if num_processes() == 1:
            return list(self.asked())
        sums = self._arrived()
        if self._on_host is not None:
            sums, event = self._on_host
            event.synchronize()  # which waits for the forward pass, not for all that is queued
        return [int(each) for each in sums[1:].tolist()]

    def requests_now(self, device: torch.device) -> list[int]:
        """How many processes are asked for each thing now, for which each of them waits."""
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
