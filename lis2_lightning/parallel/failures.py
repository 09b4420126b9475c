"""What went wrong in a forked process, as the notebook's process says it."""

from __future__ import annotations

import builtins
import signal
import traceback
from typing import Any, Final

from lis2_lightning import errors
from lis2_lightning.errors import ConfigError, Interrupted, Lis2Error, ProcessLost, TrainingError

# torch's words where a process has inherited what only its parent may use
_INHERITED: Final = ("Autograd-and-Fork", "Cannot re-initialize CUDA in forked subprocess")
RESTART: Final = (
    "restart the kernel and train before anything else uses a GPU, or write the notebook's code "
    "to a script, or use lis2 fit"
)


class WorkerTraceback(Exception):  # noqa: N818 - the cause of an error, never raised itself
    """Where a forked process failed, as text."""

    def __str__(self) -> str:
        """The traceback, below the line that names this class."""
        return f"\n{self.args[0]}"


def described(error: BaseException) -> dict[str, Any]:
    """An error as plain values, for another process.

    Returns:
        ``own`` and ``python``, the nearest class of ours and the class where Python itself has it
        (empty where not), and what is to be said.
    """
    kinds = type(error).__mro__
    own = next((kind.__name__ for kind in kinds if kind.__module__ == errors.__name__), "")
    is_pythons = type(error).__module__ == "builtins" and isinstance(error, Exception)
    return {
        "own": own,
        "python": type(error).__name__ if is_pythons else "",
        "name": type(error).__name__,
        "text": str(error),
        "signal": int(error.signal) if isinstance(error, Interrupted) else 0,
        "traceback": "".join(traceback.format_exception(error)),
    }


def rebuilt(told: dict[str, Any], rank: int, num: int) -> Exception:
    """The error that another process has described.

    Args:
        told: What :func:`described` gave there.
        rank: Which process it was.
        num: How many there were.

    Returns:
        An error of ours as the same class with the same sentence; one of Python's as its class,
        with the worker's traceback as its cause; any other as a ``TrainingError``.
    """
    text = told["text"]
    if told["own"]:
        return _own(told)
    if any(words in text for words in _INHERITED):
        return ConfigError(
            f"forked processes cannot use what this kernel has begun on a GPU: {RESTART}"
        )
    error: Exception
    try:
        error = getattr(builtins, told["python"])(text)
    except (AttributeError, TypeError):  # none of Python's, or one that takes more than a text
        said = " ".join(text.split())
        error = TrainingError(f"process {rank} of {num} failed: {told['name']}: {said}")
    error.__cause__ = WorkerTraceback(told["traceback"])
    return error


def _own(told: dict[str, Any]) -> Lis2Error:
    if told["own"] == Interrupted.__name__:
        return Interrupted(told["text"], told["signal"])
    kind: type[Lis2Error] = getattr(errors, told["own"])
    return kind(told["text"])


def death(rank: int, exit_code: int, num: int) -> ProcessLost:
    """What is said of a process that said nothing."""
    how = f"exit code {exit_code}"
    if exit_code < 0:
        how = signal.Signals(-exit_code).name
    return ProcessLost(
        f"process {rank} of {num} has died ({how}; SIGKILL is also what a machine without free "
        "memory sends): what is written is whole, and resume: auto goes on from there"
    )
