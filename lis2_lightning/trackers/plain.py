"""Nested values made flat, and names and texts within a service's limits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """One level of names, joined with dots; lists count as levels.

    >>> flat({"optimizer": {"lr": 0.1}, "folds": [0, {"a": 2}]})
    {'optimizer.lr': 0.1, 'folds.0': 0, 'folds.1.a': 2}
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, list | tuple):
            value = {str(place): item for place, item in enumerate(value)}  # noqa: PLW2901
        if isinstance(value, Mapping) and value:
            found |= flat(value, path)
        else:
            found[path] = value
    return found


def is_local_uri(uri: str | None) -> bool:
    """Whether an MLflow URI is a file of this machine, as it is where there is none.

    >>> is_local_uri(None), is_local_uri("sqlite:///runs.db"), is_local_uri("http://127.0.0.1:5000")
    (True, True, False)
    """
    return uri is None or uri.startswith(("sqlite:", "file:", "/", "."))


def shortened(text: str, length: int) -> str:
    """A text of at most so many characters, which says where it was cut.

    >>> shortened("abcdefghijkl", 8), shortened("abc", 8)
    ('abcde...', 'abc')
    """
    return text if len(text) <= length else f"{text[: length - 3]}..."


def clean_name(name: str, *, length: int = 250) -> str:
    """A name that MLflow takes: letters, digits, ``_-.: /``, and the shape of a path.

    >>> clean_name("val dice/2 (%)"), clean_name("../a//b"), clean_name("größe")
    ('val dice/2 ___', 'a/b', 'größe')
    """
    allowed = re.sub(r"[^\w\-. :/]", "_", name)
    parts = [part for part in allowed.split("/") if part not in {"", ".", ".."}]
    return shortened("/".join(parts) or "_", length)
