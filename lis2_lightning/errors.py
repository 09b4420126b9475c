"""The exceptions of this package: one small tree.

Each carries one sentence that says what is wrong, what was given, what is allowed and what to do;
the command line prints that sentence and ends with :attr:`Lis2Error.exit_code`.
"""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable


class Lis2Error(Exception):
    """Anything this package refuses on purpose; its text is one sentence for the user."""

    exit_code = 2


class ConfigError(Lis2Error):
    """A key, a value or a name of the configuration is wrong."""


class DataError(Lis2Error):
    """An image, a label map, a fold or a batch cannot be used."""


class SnapshotError(Lis2Error):
    """A snapshot is missing, damaged or does not fit."""


class TrainingError(Lis2Error):
    """A run that had begun cannot continue."""

    exit_code = 1


class ProcessLost(TrainingError):  # noqa: N818 - it says what has happened
    """Another process of a run is gone, and so the run cannot continue.

    Args:
        message: The sentence.
        exit_code: With which this process ends.
        is_told: Whether the process that is gone has told why.
    """

    def __init__(self, message: str, *, exit_code: int = 1, is_told: bool = False) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.is_told = is_told


class Interrupted(Lis2Error):  # noqa: N818 - a user asked for it
    """A signal ended a run, at a place from which it can be resumed.

    Args:
        message: The sentence.
        number: The signal; the exit code is 128 more, as a shell counts.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = signal.Signals(number)
        self.exit_code = 128 + number


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Say which valid names come nearest to a wrong one, or list them all where none does.

    >>> did_you_mean("dcie", ["dice", "roc_auc"])
    "did you mean 'dice'?"
    >>> did_you_mean("xyz", ["dice", "roc_auc"])
    "valid are 'dice', 'roc_auc'"
    """
    names = sorted(set(valid))
    if close := close_to(name, names):
        return f"did you mean {' or '.join(map(repr, close))}?"
    return f"valid are {', '.join(map(repr, names))}"


def close_to(name: str, valid: Iterable[str]) -> list[str]:
    """The one or two valid names that come nearest to a wrong one, in any case; or none.

    >>> close_to("Dcie", ["dice", "roc_auc"])
    ['dice']
    """
    folded = {candidate.lower(): candidate for candidate in valid}
    close = difflib.get_close_matches(name.lower(), folded, n=2, cutoff=0.6)
    return [folded[match] for match in close]


def one_line(error: BaseException) -> str:
    """An exception's text as one line, after its name where the text alone says little.

    >>> one_line(ValueError("no  good")), one_line(KeyError("x"))
    ('no good', "KeyError: 'x'")
    """
    text = " ".join(str(error).split())
    if text and not isinstance(error, LookupError):
        return text
    return f"{type(error).__name__}: {text}".removesuffix(": ")
