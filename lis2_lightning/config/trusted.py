"""What the configuration inside a snapshot may import.

A configuration that somebody writes or chooses is code: it may name any class. The one that comes
with a snapshot is not chosen, so it may name components only. They are looked for wherever a class
can be named; and jsonargparse, which imports what a configuration names, is made to ask before it
imports anything.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from lis2_lightning.base.private_names import jsonargparse_common
from lis2_lightning.config.components import IMPORT_FIRST, PATH, objection
from lis2_lightning.config.loading import load_config, long_names
from lis2_lightning.config.names import KINDS
from lis2_lightning.errors import ConfigError

_MAX_DEPTH: Final = 50
_FILES: Final = (".yaml", ".yml")
_CLASS: Final = frozenset({"class_path", "type"})
_UNKNOWN: Final = (
    "this version of jsonargparse cannot be told what a snapshot may import: install jsonargparse "
    "4.53, or build the trainer from its configuration file"
)
_SETTINGS: Final = ("import_path_verdicts", "import_paths_enforced")


@contextmanager
def trusted(
    config: Mapping[str, Any], *, source: str, overrides: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Build from a snapshot's configuration, importing only what such a one may name.

    Args:
        config: The snapshot's configuration, in either spelling.
        source: The snapshot, to name in an error.
        overrides: What the caller gives besides; it is his own code, and may name anything.

    Yields:
        Nothing; components are built inside.

    Raises:
        ConfigError: The configuration names something else.

    >>> with trusted({"model": {"type": "os.system"}}, source="last.pt"):
    ...     pass
    Traceback (most recent call last):
    lis2_lightning.errors.ConfigError: last.pt names 'os.system' under model, which is of Python's
    standard library: if you trust it, pass the object instead, as in
    from_snapshot(..., model=...)
    """
    guard = _Guard(source, overrides or {})
    guard.check(config)
    with _asked_by_jsonargparse(guard.allows):
        try:
            yield
        except ConfigError as error:
            told = next((guard.refused[path] for path in guard.refused if path in str(error)), None)
            if told is None:
                raise
            raise ConfigError(told) from error


class _Guard:
    """Judges what a configuration names.

    Args:
        source: The snapshot, to name in an error.
        overrides: What the caller gives besides.
    """

    def __init__(self, source: str, overrides: Mapping[str, Any]) -> None:
        self._source = source
        self._replaced = set(_replaced(long_names(overrides)))
        self._given = {text for text in _texts(overrides) if PATH.fullmatch(text)}
        self.refused: dict[str, str] = {}

    def check(self, config: Mapping[str, Any]) -> None:
        """Refuse a configuration that names what it may not.

        Raises:
            ConfigError: As said.
        """
        for key, value in long_names(config).items():
            if key not in self._replaced:
                self._check(value, [key])

    def allows(self, path: str) -> bool:
        """Whether something may be imported, which stands anywhere in the configuration."""
        if path in self._given or path in {_made_as(given) for given in self._given}:
            return True
        wrong = objection(path, is_class=False)
        if wrong:
            self.refused[path] = self._sentence(path, wrong, [])
        return not wrong

    def _check(self, value: Any, keys: list[str]) -> None:
        if len(keys) > _MAX_DEPTH:
            raise ConfigError(f"{self._source} has a configuration that is nested too deep")
        if isinstance(value, list | tuple):
            for item in value:
                self._check(item, keys)
        elif isinstance(value, Mapping):
            for key, item in value.items():
                self._check_item(key, item, keys)
        elif isinstance(value, str) and keys[-1] in KINDS:
            self._check_component(value, keys)

    def _check_item(self, key: Any, item: Any, keys: list[str]) -> None:
        if not isinstance(key, str):
            raise ConfigError(f"{self._source} has the key {key!r} under {keys[-1]}, not a text")
        is_path = isinstance(item, str) and PATH.fullmatch(item) is not None
        if key == "class_path" or (key == "type" and is_path):
            self._check_class(item, keys)
        else:
            self._check(item, [*keys, key])

    def _check_component(self, value: str, keys: list[str]) -> None:
        if value.endswith(_FILES):
            self._check(load_config(value), keys)  # LIS2 keeps some components in their own files
        elif "." in value:
            self._check_class(value, keys)

    def _check_class(self, path: Any, keys: list[str]) -> None:
        if isinstance(path, str) and path.isidentifier():
            return  # a short name: a class of our tables, or one that is imported already
        wrong = objection(path, is_class=True) if isinstance(path, str) else "is no text"
        if wrong:
            raise ConfigError(self._sentence(path, wrong, keys))

    def _sentence(self, path: Any, wrong: str, keys: list[str]) -> str:
        place = f" under {'.'.join(keys)[:80]}" if keys else ""
        choice = ", or" if wrong.endswith(IMPORT_FIRST) else ": if you trust it,"
        return (
            f"{self._source} names {str(path)[:80]!r}{place}, which {wrong}{choice} pass the "
            f"object instead, as in from_snapshot(..., {keys[0] if keys else 'model'}=...)"
        )


def _replaced(overrides: Mapping[str, Any]) -> Iterator[str]:
    """The keys of which the caller leaves nothing."""
    for dotted, value in overrides.items():
        key, _, inside = dotted.partition(".")
        adds = isinstance(value, Mapping) and not _CLASS & set(value)
        if inside in _CLASS or (not inside and not adds):
            yield key


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _made_as(path: str) -> str | None:
    """The path under which something was made, where what the caller names is imported by now."""
    module, _, name = path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    if not (inspect.isclass(found) or inspect.isroutine(found)):
        return None
    return f"{found.__module__}.{found.__qualname__}"


class _Verdicts(dict[str, bool]):
    """jsonargparse's table of what may be imported: it has an answer for every path."""

    def __init__(self, allows: Callable[[str], bool]) -> None:
        super().__init__()
        self._allows = allows

    def __contains__(self, path: object) -> bool:
        return True

    def __getitem__(self, path: str) -> bool:
        return self._allows(path)


@contextmanager
def _asked_by_jsonargparse(allows: Callable[[str], bool]) -> Iterator[None]:
    """Have jsonargparse ask before it imports what a value names.

    Its public function for this only adds to its table, and what is added stays.
    """
    try:
        common = jsonargparse_common()
        settings, ask = common.parsing_settings, common.check_import_path
        before = {name: settings[name] for name in _SETTINGS}
    except (ImportError, AttributeError, KeyError) as error:
        raise ConfigError(_UNKNOWN) from error
    settings.update(zip(_SETTINGS, (_Verdicts(allows), True), strict=True))
    try:
        _check_that_it_asks(ask)
        yield
    finally:
        settings.update(before)


def _check_that_it_asks(ask: Callable[[str], None]) -> None:
    try:
        ask("os.system")
    except ImportError:
        return
    raise ConfigError(_UNKNOWN)
