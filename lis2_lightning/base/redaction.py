"""Keeps passwords out of what is written: configurations, command lines, messages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

# RFC 3986: what stands before the last @ of an address, if there is a password in it
_LOGIN: Final = re.compile(r"(?<=://)[^/\s]*:[^/\s]*@")
_NAME: Final = r"(?:pass(?:word|wd)|secret|token|api_?key)"
_SECRET: Final = re.compile(rf"{_NAME}$", re.IGNORECASE)
_SECRET_VALUE: Final = re.compile(rf"({_NAME}['\"]?\s*[:=]\s*)[^\s,}}\]]+", re.IGNORECASE)


def without_login(text: str) -> str:
    """A text without the user name and the password of the addresses in it.

    >>> without_login("http://me:pw@host:5000/x is not reachable")
    'http://host:5000/x is not reachable'
    """
    return _LOGIN.sub("", text)


def without_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without logins in addresses, and with null for the secrets of trackers.

    >>> without_secrets({"weights": "http://me:pw@host/x", "trackers": [{"api_key": "0123"}]})
    {'weights': 'http://host/x', 'trackers': [{'api_key': None}]}
    """
    return {key: _plain(value, is_tracker=key == "trackers") for key, value in config.items()}


def _plain(value: Any, *, is_tracker: bool) -> Any:
    if isinstance(value, str):
        return without_login(value)
    if isinstance(value, Mapping):
        return {
            key: None
            if is_tracker and isinstance(item, str) and _SECRET.search(str(key))
            else _plain(item, is_tracker=is_tracker)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(item, is_tracker=is_tracker) for item in value]
    return value


def without_secret_words(words: Sequence[str]) -> list[str]:
    """A command line likewise; a secret becomes three stars.

    >>> without_secret_words(["fit", "--x.api_key", "0123", "--x.token=abc", "{password: pw}"])
    ['fit', '--x.api_key', '***', '--x.token=***', '{password: ***}']
    """
    shown = [_SECRET_VALUE.sub(r"\1***", without_login(word)) for word in words]
    follows = [word.startswith("--") and _SECRET.search(word) is not None for word in words]
    return [
        "***" if is_secret else word
        for is_secret, word in zip([False, *follows], shown, strict=False)
    ]
