"""What the configuration inside a snapshot may import.

A configuration that somebody writes is code and may name any class; one that comes with a snapshot
may name components only. jsonargparse also imports what a text names where a function is accepted:
while it parses, no module that the configuration mentions can be imported, and its result is
judged before anything is called.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Final

from jsonargparse import Namespace

from lis2_lightning.config.components import IMPORT_FIRST, PATH, objection
from lis2_lightning.config.loading import load_config, long_names, parse_yaml
from lis2_lightning.config.names import KINDS, LIGHTNING_KINDS
from lis2_lightning.errors import ConfigError

_MAX_DEPTH: Final = 50
_FILES: Final = (".yaml", ".yml")
_CLASS: Final = frozenset({"class_path", "type"})


@contextmanager
def trusted(
    config: Mapping[str, Any], *, source: str, overrides: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Limit what is imported while components are built from a snapshot's configuration.

    Errors name the ``source``; the caller's own ``overrides`` may name anything.

    Raises:
        ConfigError: The configuration names something other than a component.
    """
    guard = _Guard(source, config, overrides or {})
    guard.check(config)
    token = _GUARD.set(guard)
    try:
        yield
    finally:
        _GUARD.reset(token)


@contextmanager
def judging() -> Iterator[Callable[[Namespace], None]]:
    """Apply the limits of :func:`trusted` to parsing, and yield a judge of its result."""
    guard = _GUARD.get()
    if guard is None:
        yield lambda *_: None
        return
    sys.meta_path.insert(0, guard)
    try:
        yield guard.judge
    except ConfigError as error:
        guard.explain(error)
        raise
    finally:
        sys.meta_path.remove(guard)


class _Guard:
    """Judges what a snapshot's configuration names."""

    def __init__(
        self, source: str, config: Mapping[str, Any], overrides: Mapping[str, Any]
    ) -> None:
        self._source = source
        self._replaced = set(_replaced(long_names(overrides)))
        self._allowed = set(_paths(overrides))
        self._named = set(_paths(config))
        self._mentioned = set(_modules(self._named)) - set(_modules(self._allowed))

    def find_spec(self, name: str, *_: Any) -> None:
        """Keep Python from importing a module that the configuration mentions."""
        if name in self._mentioned:
            raise ModuleNotFoundError(f"{name} is not imported for {self._source}", name=name)

    def check(self, config: Mapping[str, Any]) -> None:
        """Refuse, before it is parsed, a configuration that names what it may not."""
        for key, value in long_names(config).items():
            if key not in self._replaced:
                self._check(value, [key])

    def explain(self, error: ConfigError) -> None:
        """Raise the reason why a path could not be imported, if the error is about that."""
        for path in self._named:
            if path in str(error):
                self._refuse(path, objection(path, is_class=False), [])

    def judge(self, parsed: Any, keys: Sequence[str] = ()) -> None:
        """Refuse what jsonargparse has imported, for these keys, that is not a component."""
        if isinstance(parsed, list | tuple):
            for item in parsed:
                self.judge(item, keys)
        elif isinstance(parsed, Namespace | Mapping):
            items = vars(parsed) if isinstance(parsed, Namespace) else parsed
            for key, value in items.items():
                if key == "class_path" and isinstance(value, str):
                    self._judge(_resolved(value), value, keys)
                self.judge(value, [*keys, str(key)])
        elif callable(parsed):
            for path in (path for path in self._named if _is_named(parsed, path)):
                self._judge(parsed, path, keys)

    def _judge(self, named: Any, path: str, keys: Sequence[str]) -> None:
        if not any(_is_named(named, allowed) for allowed in self._allowed):
            self._refuse(path, objection(path, is_class=False), keys)

    def _check(self, value: Any, keys: list[str]) -> None:
        if len(keys) > _MAX_DEPTH:
            raise ConfigError(f"{self._source} has a configuration that is nested too deep")
        if isinstance(value, list | tuple):
            for item in value:
                self._check(item, keys)
        elif isinstance(value, Mapping):
            for key, item in value.items():
                self._check_item(key, item, keys)
        elif isinstance(value, str):
            self._check_text(value, keys)

    def _check_item(self, key: Any, item: Any, keys: list[str]) -> None:
        if not isinstance(key, str):
            raise ConfigError(f"{self._source} has the key {key!r} under {keys[-1]}, not a text")
        is_path = isinstance(item, str) and PATH.fullmatch(item) is not None
        if key == "class_path" or (key == "type" and is_path):
            self._check_class(item, keys)
        else:
            self._check(item, [*keys, key])

    def _check_text(self, text: str, keys: list[str]) -> None:
        if keys[-1] in KINDS or (keys[0] == "lightning" and keys[-1] in LIGHTNING_KINDS):
            if text.endswith(_FILES):
                self._check(load_config(text), keys)  # LIS2 keeps some components in own files
            elif "." in text:
                self._check_class(text, keys)
        elif "\\" in text:
            # YAML inside a text could name what the text itself does not show
            with suppress(ConfigError):
                if parse_yaml(text, self._source) == text:
                    return
            raise ConfigError(f"{self._source} has a text with escapes under {'.'.join(keys)[:80]}")

    def _check_class(self, path: Any, keys: list[str]) -> None:
        if not isinstance(path, str):
            self._refuse(path, "is no text", keys)
        elif not path.isidentifier():  # or it is a short name, of a class of our tables
            self._refuse(path, objection(path, is_class=True), keys)

    def _refuse(self, path: Any, reason: str | None, keys: Sequence[str]) -> None:
        if reason is None:
            return
        place = f" under {'.'.join(keys)[:80]}" if keys else ""
        choice = ", or" if reason.endswith(IMPORT_FIRST) else ": if you trust it,"
        raise ConfigError(
            f"{self._source} names {str(path)[:80]!r}{place}, which {reason}{choice} pass the "
            f"object instead, as in from_snapshot(..., {keys[0] if keys else 'model'}=...)"
        )


def _replaced(overrides: Mapping[str, Any]) -> Iterator[str]:
    """The keys whose components the caller replaces as a whole."""
    for dotted, value in overrides.items():
        key, _, inside = dotted.partition(".")
        adds = isinstance(value, Mapping) and not _CLASS & set(value)
        if inside in _CLASS or (not inside and not adds):
            yield key


def _paths(value: Any) -> Iterator[str]:
    """Every import path in the texts of a configuration."""
    if isinstance(value, str):
        yield from (match[0] for match in PATH.finditer(value))
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _paths(item)


def _modules(paths: Iterable[str]) -> Iterator[str]:
    """The modules and packages that would be imported for some paths."""
    for path in paths:
        parts = path.split(".")
        yield from (".".join(parts[:i]) for i in range(1, len(parts)))


def _resolved(path: str) -> Any:
    """What a path names, as far as it is imported; null where that is nothing."""
    parts = path.split(".")
    for i in range(len(parts) - 1, 0, -1):
        named: Any = sys.modules.get(".".join(parts[:i]))
        if named:
            for name in parts[i:]:
                named = getattr(named, name, None)
            return named
    return None


def _is_named(value: Any, path: str) -> bool:
    named = _resolved(path)
    # a method is another object each time
    return named is not None and (named is value or (inspect.isroutine(value) and named == value))


_GUARD: ContextVar[_Guard | None] = ContextVar("guard", default=None)
