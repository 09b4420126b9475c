"""jsonargparse's messages, which name types and parsers, as one sentence which names the key."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Sequence
from typing import Final

from lis2_lightning.errors import did_you_mean

_KEY: Final = re.compile(r'Parser key "([^"]+)"')
_OPTION: Final = re.compile(r"Option '([^']+)' is not accepted")
_REQUIRED: Final = re.compile(r"arguments are required: ([\w., ]+)|Key \"([^\"]+)\" is required")
_UNRECOGNISED: Final = re.compile(r"Unrecognized arguments?: (.+)", re.IGNORECASE)
_NOT_THERE: Final = re.compile(r"class_path '([^']+)':\s+((?:No module|module '|cannot import).+)")
_OTHER_KIND: Final = re.compile(r"Import path (\S+) does not correspond to a subclass of (\w+)")
_NO_COMPONENT: Final = re.compile(
    r"Not a valid subclass of (\w+)\.?\s+Got value: (.+?)\s*(?:Subclass types|$)", re.DOTALL
)
_EXPECTED: Final = re.compile(r"Expected (?:an? )?(?:<class '([\w.]+)'>|typing\.Literal\[(.+)\])")
_CLASS: Final = re.compile(r"class_path[ =]'([\w.]+)'")
_VALUE: Final = re.compile(r"(?:Given value|Got value): (.+?)(?:\.? Got value|\n|$)")
_FIRST_OF_SEVERAL: Final = re.compile(r"Errors:\s+- (.+)")
_SUBCOMMAND: Final = re.compile(r"^(?:fit|validate|test|predict)\.")


def sentence(message: str, flags: Sequence[str] = (), *, within: str = "") -> str:
    r"""Say in one sentence what a parser's message says in several lines.

    Args:
        message: The text of a parser's error.
        flags: A command's flags, to choose the nearest from where one is unknown.
        within: The key of the component that the message is about.

    >>> sentence('Parser key "epochs":\n  Expected a <class \'int\'>. Got value: x')
    'epochs must be int, got x'
    >>> sentence('Parser key "mode":\n  Expected a typing.Literal[\'min\', \'max\']. Got value: x')
    "mode must be 'min' or 'max', got x"
    >>> sentence('the following arguments are required: model')
    'model is missing: give it a value'
    >>> sentence("Unrecognized arguments: --epochz", ("--epochs", "--model"))
    "unknown key '--epochz': did you mean '--epochs'?"
    """
    path = ".".join(dict.fromkeys([*([within] if within else []), *_KEY.findall(message)]))
    if found := _UNRECOGNISED.search(message):
        unknown = [word.partition("=")[0] for word in found[1].split() if word.startswith("-")]
        hints = [f"unknown key {flag!r}: {did_you_mean(flag, flags)}" for flag in unknown]
        return "; ".join(hints) or f"nothing is known of {found[1].strip()!r}: see --help"
    told = _missing(message, path) or _unknown(message, path) or _wrong_class(message, path)
    return told or _wrong_value(message, path) or _first_of_several(message)


def _within(path: str, key: str) -> str:
    return f"{path}.{key}" if path else _SUBCOMMAND.sub("", key)


def _missing(message: str, path: str) -> str | None:
    found = _REQUIRED.search(message)
    if found is None:
        return None
    keys = [_within(path, key.strip()) for key in (found[1] or found[2]).split(",")]
    return f"{' and '.join(keys)} {'is' if len(keys) == 1 else 'are'} missing: give it a value"


def _unknown(message: str, path: str) -> str | None:
    option = _OPTION.search(message)
    if option is None:
        return None
    name = _within(path, option[1])
    valid = [_within(path, parameter) for parameter in _parameters(message)]
    return f"unknown key {name!r}: {did_you_mean(name, valid)}"


def _wrong_class(message: str, path: str) -> str | None:
    if found := _NOT_THERE.search(message):
        return f"{path}: there is no class {found[1]} ({found[2].strip()}): check its path"
    if found := _OTHER_KIND.search(message):
        return f"{path} must be a {found[2]}, got {found[1]}"
    if found := _NO_COMPONENT.search(message):
        return f"{path} must name a {found[1]}, by its 'type' or 'class_path', got {found[2]}"
    return None


def is_of_another_kind(message: str, class_path: str | None) -> bool:
    """Whether a message is about a class that is there, and of another kind than is needed.

    Args:
        message: The text of a parser's error.
        class_path: The class.
    """
    found = _OTHER_KIND.search(message)
    return found is not None and found[1] == class_path


def _wrong_value(message: str, path: str) -> str | None:
    allowed: list[str] = []
    for name, literal in _EXPECTED.findall(message):
        allowed += literal.split(", ") if literal else [name.rpartition(".")[2]]
    allowed = ["null" if name == "NoneType" else name for name in dict.fromkeys(allowed)]
    value = _VALUE.search(message)
    if not (path and allowed and value) or "Namespace(" in value[1]:
        return None
    *most, last = allowed
    choice = f"{', '.join(most)} or {last}" if most else last
    return f"{path} must be {choice}, got {value[1].strip()}"


def _first_of_several(message: str) -> str:
    """What a component says of its arguments, where other types were tried in vain after it."""
    found = _FIRST_OF_SEVERAL.search(message)
    return found[1].strip() if found else " ".join(message.split())


def _parameters(message: str) -> list[str]:
    """What the class takes that a message is about, its bases' parameters included."""
    named = _CLASS.findall(message)
    if not named:
        return []
    module, _, name = named[-1].rpartition(".")
    bases = inspect.getmro(getattr(importlib.import_module(module), name))[:-1]
    signatures = [inspect.signature(vars(b)["__init__"]) for b in bases if "__init__" in vars(b)]
    skipped = {"self", "args", "kwargs", "params", "optimizer"}
    return [name for each in signatures for name in each.parameters if name not in skipped]
