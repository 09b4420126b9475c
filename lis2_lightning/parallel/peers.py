"""How a process ends whose run fails, or which can no longer reach another process."""

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
from lis2_lightning.parallel.children import CHILDREN, RESUME, is_started
from lis2_lightning.parallel.processes import local_rank

_REPORTED_S: Final = 8.0  # in which the death behind a broken connection is found and reported
_SAME_S: Final = 1.0  # in which the main process has met the same error, and reports it for all
_LOST: Final = (
    f"another process of this run can no longer be reached: the run has stopped; {RESUME}"
)
# What the backends say of a connection; a bug, such as tensors of different sizes, has other words.
_BROKEN: Final = re.compile(
    r"connect|closed|reset|broken pipe|remote|socket|(read|write) error|timed? ?out|abort",
    re.IGNORECASE,
)


@contextmanager
def ending_together(launcher: Any) -> Iterator[None]:
    """Surround what several processes do together: where one fails, all end and one reports it.

    The main process ends those it has started before it raises its own error. One that was started
    waits a moment for the main process to report the same. Where another process is gone, a
    ``ProcessLost`` replaces whatever was raised because of it.
    """
    CHILDREN.watch(launcher)
    try:
        yield
    except Interrupted:
        raise  # all of them have agreed to end here
    except Exception as error:
        if any(map(is_loss, _chain(error))):
            if CHILDREN or is_started():
                _wait_to_be_ended(_REPORTED_S)
            CHILDREN.end()
            raise ProcessLost(_LOST) from error
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
    if isinstance(error, distributed.DistNetworkError | distributed.DistStoreError):
        return True
    is_backend = isinstance(error, distributed.DistBackendError) or "gloo" in str(error).lower()
    is_torch = isinstance(error, RuntimeError) and is_backend
    return is_torch and _BROKEN.search(str(error)) is not None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised from: cleaning up may hide the first one."""
    at: BaseException | None = error
    while at is not None:
        yield at
        at = at.__cause__ or at.__context__


def _wait_to_be_ended(seconds: float) -> None:
    """Wait to be ended, by the main process, by what watches in it, or by what has started all."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the handler would only note it
    time.sleep(seconds)
