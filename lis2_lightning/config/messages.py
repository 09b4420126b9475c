"""jsonargparse's messages, which name types and parsers, as one sentence which names the key."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Sequence
from typing import Final

from lis2_lightning.errors import did_you_mean

_KEY: Final = re.compile(r"(?:Parser key|Key|argument) [\"']?([\w.\-/]+)[\"']?", re.IGNORECASE)
_OPTION: Final = re.compile(r"Option '([^']+)' is not accepted")
_REQUIRED: Final = re.compile(r'Key "([^"]+)" is required')
_TYPES: Final = re.compile(r"Expected (?:an? )?(?:type )?<class '([\w.]+)'>")
_UNRECOGNISED: Final = re.compile(r"Unrecognized arguments?: (\S+)", re.IGNORECASE)
_CLASS: Final = re.compile(r"class_path[ =]'([\w.]+)'")
_VALUE: Final = re.compile(r"(?:Given value|Got value): (.+?)(?:\.? Got value|\n|$)")


def sentence(message: str, flags: Sequence[str] = ()) -> str:
    r"""Say in one sentence what a parser's message says in several lines.

    Args:
        message: The text of a parser's error.
        flags: A command's flags, to choose the nearest from where one is unknown.

    >>> sentence('Parser key "epochs":\n  Expected a <class \'int\'>. Got value: x')
    'epochs must be int, got x'
    >>> sentence('Key "model" is required but not included in config object')
    'model is missing: give it a value'
    >>> sentence("Unrecognized arguments: --epochz", ("--epochs", "--model"))
    "unknown key '--epochz': did you mean '--epochs'?"
    """
    if required := _REQUIRED.search(message):
        return f"{required[1]} is missing: give it a value"
    path = ".".join(dict.fromkeys(_KEY.findall(message)))
    if flag := _UNRECOGNISED.search(message):
        return f"unknown key {flag[1]!r}: {did_you_mean(flag[1], flags)}"
    if option := _OPTION.search(message):
        valid = [f"{path}.{name}" if path else name for name in _parameters(message)]
        name = f"{path}.{option[1]}" if path else option[1]
        return f"unknown key {name!r}: {did_you_mean(name, valid)}"
    types = " or ".join(dict.fromkeys(name.split(".")[-1] for name in _TYPES.findall(message)))
    value = _VALUE.search(message)
    if path and types and value:
        return f"{path} must be {types}, got {value[1].rstrip('.')}"
    return " ".join(message.split())


def _parameters(message: str) -> list[str]:
    """What the class takes that a message is about, its bases' parameters included."""
    named = _CLASS.findall(message)
    if not named:
        return []
    module, _, name = named[-1].rpartition(".")
    found = getattr(importlib.import_module(module), name)
    bases = inspect.getmro(found)[:-1]
    signatures = [inspect.signature(vars(b)["__init__"]) for b in bases if "__init__" in vars(b)]
    skipped = {"self", "args", "kwargs", "params", "optimizer"}
    return [name for each in signatures for name in each.parameters if name not in skipped]
