"""What a command answers: text for people, or one line of JSON for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What a command prints on the standard output, and its exit code.

    Args:
        text: For people; nothing is printed where it is empty.
        data: The same for programs, as plain values.
        code: 0, or 1 where a difference was found.
    """

    text: str
    data: Any = field(default_factory=dict)
    code: int = 0


def print_answer(answer: Answer, *, as_json: bool) -> int:
    """Print an answer.

    Args:
        answer: The result of a command.
        as_json: Whether to print one line of JSON in place of the text.

    Returns:
        The exit code.
    """
    text = json.dumps(plain(answer.data)) if as_json else answer.text
    if text:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    return answer.code


def plain(value: Any) -> Any:
    """A value as JSON can write it: what is not finite becomes null, other objects text.

    >>> plain({"loss": float("nan"), 3: (1, True), "type": int})
    {'loss': None, '3': [1, True], 'type': "<class 'int'>"}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
