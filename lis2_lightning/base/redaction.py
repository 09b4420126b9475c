"""Keeps passwords out of what is written: configurations, command lines, messages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

# RFC 3986: what stands before the @ of an address, with a password
_LOGIN: Final = re.compile(r"(?<=://)[^/\s@'\"]*:[^/\s@'\"]*@")
_SECRET: Final = re.compile(r"pass(word|wd)|secret|token$|api_?key", re.IGNORECASE)


def without_login(text: str) -> str:
    """A text without the user name and the password of the addresses in it.

    >>> without_login("http://me:pw@host:5000/x is not reachable")
    'http://host:5000/x is not reachable'
    """
    return _LOGIN.sub("", text)


def without_secrets(value: Any) -> Any:
    """Plain values without logins in addresses, and with null for passwords, tokens and API keys.

    >>> without_secrets({"uri": "http://me:pw@host", "api_key": "0123", "num_tokens": 3})
    {'uri': 'http://host', 'api_key': None, 'num_tokens': 3}
    """
    if isinstance(value, str):
        return without_login(value)
    if isinstance(value, Mapping):
        return {
            key: None if isinstance(item, str) and _is_secret(key) else without_secrets(item)
            for key, item in value.items()
        }
    return [without_secrets(item) for item in value] if isinstance(value, list | tuple) else value


def without_secret_words(words: Sequence[str]) -> list[str]:
    """A command line likewise; a secret becomes three stars.

    >>> without_secret_words(["fit", "--x.api_key", "0123", "--x.token=abc"])
    ['fit', '--x.api_key', '***', '--x.token=***']
    """
    shown: list[str] = []
    for i, word in enumerate(words):
        flag, equals, _ = word.partition("=")
        if equals and flag.startswith("--") and _is_secret(flag):
            shown.append(f"{flag}=***")
        elif i and words[i - 1].startswith("--") and "=" not in words[i - 1]:
            shown.append("***" if _is_secret(words[i - 1]) else without_login(word))
        else:
            shown.append(without_login(word))
    return shown


def _is_secret(key: Any) -> bool:
    return isinstance(key, str) and _SECRET.search(key) is not None
