"""The exceptions of this package, each with a message of one sentence, and helpers for it."""

from __future__ import annotations

import difflib
import os
import signal
from collections.abc import Callable, Iterable


class OneSentence(BaseException):
    """What IPython shows without the traceback, unless ``LIS2_DEBUG`` is set."""

    @property
    def _render_traceback_(self) -> Callable[[], list[str]]:
        if os.environ.get("LIS2_DEBUG"):
            raise AttributeError  # IPython then shows all of it
        return lambda: [f"{type(self).__name__}: {self}".removesuffix(": ")]


class Lis2Error(OneSentence, Exception):
    """Base of all errors raised on purpose; the message is one sentence for the user."""

    exit_code = 2


class TrainingStopped(OneSentence, KeyboardInterrupt):
    """Ctrl-C, or the interrupt of a notebook's kernel, has ended a loop where nothing is lost."""


class ConfigError(Lis2Error):
    """A key, a value or a name of the configuration is wrong."""


class DataError(Lis2Error):
    """An image, a label map, a fold or a batch cannot be used."""


class SnapshotError(Lis2Error):
    """A snapshot is missing, damaged or does not fit."""


class TrainingError(Lis2Error):
    """A run that has started cannot continue."""

    exit_code = 1


class ProcessLost(TrainingError):  # noqa: N818 - names what happened
    """Another process of the run died, so the run cannot continue."""


class Interrupted(Lis2Error):  # noqa: N818 - a user asked for it
    """A signal stopped a run, which can be resumed; the exit code is 128 plus it, as in a shell."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = signal.Signals(number)
        self.exit_code = 128 + number


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Suggest the closest valid names, or list all of them.

    >>> did_you_mean("dcie", ["dice", "roc_auc"])
    "did you mean 'dice'?"
    >>> did_you_mean("xyz", ["dice", "roc_auc"])
    "valid are 'dice', 'roc_auc'"
    """
    names = sorted(set(valid))
    if not names:
        return "there are none here"
    if close := close_to(name, names):
        return f"did you mean {' or '.join(map(repr, close))}?"
    return f"valid are {', '.join(map(repr, names))}"


def close_to(name: str, valid: Iterable[str]) -> list[str]:
    """Up to two valid names that begin with a wrong one, else resemble it, ignoring case.

    >>> close_to("Dcie", ["dice", "roc_auc"]), close_to("epoc", ["epochs", "report"])
    (['dice'], ['epochs'])
    """
    folded = {candidate.lower(): candidate for candidate in valid}
    begun = [
        candidate for candidate in folded if len(name) > 1 and candidate.startswith(name.lower())
    ]
    begun.sort(key=len)  # the nearest first
    close = begun or difflib.get_close_matches(name.lower(), folded, n=2, cutoff=0.6)
    return [folded[match] for match in close[:2]]


def one_line(error: BaseException) -> str:
    """An exception's text as one line, after its name where the text alone says little.

    >>> one_line(ValueError("no  good")), one_line(KeyError("x"))
    ('no good', "KeyError: 'x'")
    """
    text = " ".join(str(error).split())
    if text and not isinstance(error, LookupError):
        return text
    return f"{type(error).__name__}: {text}".removesuffix(": ")
