"""What happens to a process whose run fails, or another of whose processes is gone."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from torch import distributed

from lis2_lightning.errors import Interrupted, ProcessLost
from lis2_lightning.parallel.children import CHILDREN, is_started
from lis2_lightning.parallel.output import RESUME
from lis2_lightning.parallel.processes import local_rank

_TO_CLOSE_S: Final = 3.0  # from the end of a connection to that of its process
_FOR_MAIN_S: Final = 8.0  # in which the main process ends the others, or is itself found dead
_SAME_S: Final = 1.0  # in which the main process has met the same error, and reports it for all
# Gloo names its own files in what it says. A bug, such as tensors of different sizes, names none
# of these words.
_GLOO: Final = re.compile(
    r"gloo.*(connect|closed|reset|broken pipe|read error|write error|timed out|timeout)",
    re.IGNORECASE | re.DOTALL,
)
_NCCL: Final = re.compile(
    r"remote ?(process|error)|connect|closed|socket|timed? ?out|abort", re.IGNORECASE
)


@contextmanager
def ending_together(launcher: Any) -> Iterator[None]:
    """Surround what several processes do together: where one fails, all end and one reports it.

    The main process ends those it has started before it raises its own error. One that was started
    leaves the report to the main process for a moment, which may have met the same.

    Args:
        launcher: That of Lightning's strategy.

    Raises:
        ProcessLost: Another process is gone, whatever was raised because of it.
    """
    CHILDREN.watch(launcher)
    try:
        yield
    except Interrupted:
        CHILDREN.let_end()  # all of them have agreed to end here
        raise
    except Exception as error:
        if any(map(is_loss, _chain(error))) or (
            isinstance(error, RuntimeError) and CHILDREN.loss()
        ):
            raise _lost(error) from error
        if local_rank() > 0:
            _wait_to_be_ended(_SAME_S)
        CHILDREN.end()
        raise
    except BaseException:
        CHILDREN.end()
        raise


def is_loss(error: BaseException) -> bool:
    """Whether an error says that another process cannot be reached any more.

    >>> is_loss(RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer"))
    True
    >>> is_loss(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    False
    """
    if not isinstance(error, RuntimeError):
        return False
    if isinstance(error, distributed.DistBackendError):  # also raised for a wrong device
        return _NCCL.search(str(error)) is not None
    return isinstance(error, distributed.DistError) or _GLOO.search(str(error)) is not None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised from: cleaning up may hide the first one."""
    at: BaseException | None = error
    while at is not None:
        yield at
        at = at.__cause__ or at.__context__


def _lost(error: BaseException) -> ProcessLost:
    if is_started():
        _wait_to_be_ended(_FOR_MAIN_S)
    if CHILDREN and (loss := CHILDREN.loss(within_s=_TO_CLOSE_S)):
        CHILDREN.kill()  # closing trackers, or leaving the group of processes, may hang
        return loss
    CHILDREN.end()
    return ProcessLost(
        f"another process of this run cannot be reached any more ({_summary(error)}): the run has "
        f"stopped; {RESUME}"
    )


def _summary(error: BaseException) -> str:
    """The first sentence of what torch says, without the file of its own that it names.

    >>> _summary(RuntimeError("[/gloo/pair.cc:537] Read error [::1]:47: reset. This is caused by"))
    'Read error [::1]:47: reset'
    """
    text = " ".join(str(error).split())
    return re.sub(r"^\[[^\]]*\] ", "", text).partition(". ")[0]


def _wait_to_be_ended(seconds: float) -> None:
    """Wait to be ended by the main process, or by whoever has started all of them."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the handler would only note it
    time.sleep(seconds)
