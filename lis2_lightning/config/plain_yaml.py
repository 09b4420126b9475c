"""YAML as configurations need it: plain values only, and every key once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from lis2_lightning.errors import ConfigError, one_line

_PREFIX: Final = "tag:yaml.org,2002:"
_PLAIN: Final = frozenset({"str", "int", "float", "bool", "null", "seq", "map"})
_Fastest = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


class _Loader(_Fastest):  # type: ignore[misc, valid-type]  # whichever of the two is there
    """Reads ``1e-3`` as a number, as people mean it, and a date as text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != f"{_PREFIX}timestamp"]
    for first, known in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    f"{_PREFIX}float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)
# null stands for tags without a constructor, which it refuses
_Loader.yaml_constructors = {
    tag: construct
    for tag, construct in _Loader.yaml_constructors.items()
    if tag is None or tag.removeprefix(_PREFIX) in _PLAIN
}


def parse_yaml(text: str, source: str) -> Any:
    """Parse YAML; errors name its source: a file, a flag or a variable.

    Raises:
        ConfigError: The text has a syntax error, a duplicate key, or a value that is not plain.

    >>> parse_yaml("{lr: 1e-3, run_name: 2026-11-24}", "a.yaml")
    {'lr': 0.001, 'run_name': '2026-11-24'}
    >>> parse_yaml("{lr: 1, lr: 2}", "a.yaml")
    Traceback (most recent call last):
    lis2_lightning.errors.ConfigError: a.yaml is not valid YAML: duplicate key 'lr' (line 1)
    """
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        _check_keys(node)
        return None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source} is not valid YAML: {_reason(error)}") from error
    finally:
        if loader is not None:
            loader.dispose()


def _check_keys(node: Any) -> None:
    if duplicates := list(_duplicates(node, set())):
        raise ValueError("; ".join(duplicates))


def _duplicates(node: Any, visited: set[int]) -> Iterator[str]:
    if id(node) in visited:
        return  # an anchor, which may stand for many uses
    visited.add(id(node))
    names: set[tuple[str, str]] = set()
    for part in node.value if isinstance(node, yaml.CollectionNode) else ():
        if not isinstance(part, tuple):
            yield from _duplicates(part, visited)
            continue
        key, value = part
        if isinstance(key, yaml.ScalarNode) and key.tag != f"{_PREFIX}merge":
            if (key.tag, key.value) in names:
                yield f"duplicate key {key.value!r} (line {key.start_mark.line + 1})"
            names.add((key.tag, key.value))
        yield from _duplicates(value, visited)


def _reason(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{error.problem} in line {mark.line + 1}, column {mark.column + 1}"
    return one_line(error)
