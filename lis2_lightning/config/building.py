"""Components are built once; what cannot be built is reported with its key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lis2_lightning.config.mistakes import imported
from lis2_lightning.errors import ConfigError, DataError, Lis2Error, one_line


@dataclass(frozen=True)
class Builder:
    """Builds a component for jsonargparse, now or (optimizers, schedulers) later.

    Args:
        config: The resolved configuration, in which the component's key is looked up.
        errors: The errors it has raised.
    """

    config: Mapping[str, Any]
    errors: list[Lis2Error] = field(default_factory=list)

    def __call__(self, component: type, /, *args: Any, **arguments: Any) -> Any:
        """Build a component; what its code raises becomes a DataError or ConfigError."""
        try:
            return component(*args, **arguments)
        except Exception as error:
            kind = DataError if isinstance(error, DataError) else ConfigError
            message = _blame(self._key(component, arguments), error, arguments)
            self.errors.append(kind(message))  # jsonargparse tries other types after an error
            raise self.errors[-1] from error

    def _key(self, component: type, arguments: Mapping[str, Any]) -> str:
        candidates = [
            (path, written)
            for path, named, written in _components("", self.config)
            if named is component
        ]
        # several data sets may be of one class
        exact = [path for path, written in candidates if _agree(written, arguments)]
        return [*exact, *(path for path, _ in candidates), component.__name__][0]


def _components(path: str, value: Any) -> Iterator[tuple[str, type, Mapping[str, Any]]]:
    """Key, class and arguments of every component."""
    inner = value
    if isinstance(value, list):
        inner = {f"[{i}]": item for i, item in enumerate(value)}
    elif isinstance(value, Mapping) and (component := imported(value)):
        inner = value.get("init_args") or {}
        yield path, component, inner
    if isinstance(inner, Mapping):
        for key, item in inner.items():
            joined = f"{path}{key}" if str(key).startswith("[") else f"{path}.{key}".lstrip(".")
            yield from _components(joined, item)


def _agree(written: Mapping[str, Any], arguments: Mapping[str, Any]) -> bool:
    plain = {key: value for key, value in written.items() if not isinstance(value, list | Mapping)}
    return all(str(arguments.get(key)) == str(value) for key, value in plain.items())


def _blame(path: str, error: BaseException, arguments: Mapping[str, Any]) -> str:
    """Name the argument at fault: the one whose name, or else whose value, the error mentions.

    >>> _blame("data", ValueError("size must be at least 1, not 0"), {"size": 0, "stride": 2})
    'data.size must be at least 1, not 0'
    >>> _blame("optimizer", ValueError("Invalid learning rate: -1.0"), {"lr": -1.0})
    'optimizer.lr must not be -1.0: Invalid learning rate: -1.0'
    """
    text = one_line(error)
    for name in sorted(arguments, key=len, reverse=True):
        if match := re.search(rf"(?<![\w.'\"/]){re.escape(name)}(?![\w.'\"/])", text):
            return f"{text[: match.start()]}{path}.{text[match.start() :]}"
    for name, value in arguments.items():
        numbers = value if isinstance(value, list | tuple) else [value]
        for number in (n for n in numbers if isinstance(n, int | float) and n is not True):
            if re.search(rf"(?<![\w.-]){re.escape(repr(number))}(?![\w.])", text):
                return f"{path}.{name} must not be {value!r}: {text}"
    return f"{path} cannot be built: {text}"
