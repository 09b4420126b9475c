"""What happens to a process whose run fails, or another of whose processes is gone."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from torch import distributed

from lis2_lightning.errors import Interrupted, ProcessLost
from lis2_lightning.parallel.children import CHILDREN
from lis2_lightning.parallel.ending import GO_ON
from lis2_lightning.parallel.parent import is_started
from lis2_lightning.parallel.processes import local_rank

_TO_CLOSE_S: Final = 3.0  # from a connection's end to that of its process
_FOR_MAIN_S: Final = 8.0  # in which the main process ends the others, or is itself found dead
# in which the main process has met the same error, and tells it for all
_SAME_S: Final = 1.0
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
def ending_together() -> Iterator[None]:
    """Surround what several processes do together: where one of them fails, one tells it.

    The main process ends those it has started before it tells its own failure. One that was
    started leaves the word to the main process for a moment, which may have met the same.

    Raises:
        ProcessLost: Another process is gone.
    """
    try:
        yield
    except Interrupted:
        CHILDREN.let_end()  # all of them have agreed to end here
        raise
    except Exception as error:
        if is_loss(error):
            raise _lost(error) from error
        if CHILDREN and isinstance(error, RuntimeError) and CHILDREN.loss():
            raise _lost(error) from error
        if local_rank() > 0:
            _leave_the_word(_SAME_S)
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
    if not isinstance(error, RuntimeError) or isinstance(error, ProcessLost):
        return False
    if isinstance(error, distributed.DistBackendError):  # also raised for a wrong device
        return _NCCL.search(str(error)) is not None
    return isinstance(error, distributed.DistError) or _GLOO.search(str(error)) is not None


@contextmanager
def loss_told() -> Iterator[None]:
    """Raise the loss of a process also where it was met elsewhere, or hidden by what followed it.

    Raises:
        ProcessLost: As said.
    """
    try:
        yield
    except ProcessLost:
        raise
    except Exception as error:
        at: BaseException | None = error
        while at is not None and not isinstance(at, ProcessLost):
            at = at.__cause__ or at.__context__
        if at is None and is_loss(error):
            at = _lost(error)
        if at is not None:
            raise at from error
        raise


def _lost(error: BaseException) -> ProcessLost:
    elsewhere = ProcessLost(
        f"another process of this run cannot be reached any more ({_short(error)}): this one ends, "
        f"and {GO_ON}"
    )
    if CHILDREN:
        loss = CHILDREN.loss(within_s=_TO_CLOSE_S)
        if loss is None:
            CHILDREN.end()
            return elsewhere
        CHILDREN.end_with(loss)
        return ProcessLost(str(loss), exit_code=loss.exit_code, is_told=loss.is_told)
    if is_started():
        _leave_the_word(_FOR_MAIN_S)
    return elsewhere


def _short(error: BaseException) -> str:
    """The first sentence of what torch says, without the file of its own that it names.

    >>> _short(RuntimeError("[/gloo/pair.cc:537] Read error [::1]:47: reset. This is caused by"))
    'Read error [::1]:47: reset'
    """
    text = " ".join(str(error).split())
    return re.sub(r"^\[[^\]]*\] ", "", text).partition(". ")[0]


def _leave_the_word(seconds: float) -> None:
    """Wait to be ended by the main process, or by whoever has started all of them."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the handler would only note it
    time.sleep(seconds)
