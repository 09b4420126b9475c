"""YAML as configurations need it: plain values only, every key once, and no bombs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import yaml

_PREFIX: Final = "tag:yaml.org,2002:"
_PLAIN: Final = frozenset({"str", "int", "float", "bool", "null", "seq", "map", "merge", "value"})
_NUMBERS: Final = frozenset({f"{_PREFIX}int", f"{_PREFIX}float"})
_MAX_DEPTH: Final = 100
_MAX_REPEATED: Final = 1_000_000
_Scalars = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


class BadYamlError(ValueError):
    """What is wrong with a text, in words that follow "is no valid YAML"."""


class _Loader(_Scalars):  # type: ignore[misc, valid-type]  # the faster of two, where it is there
    """Reads ``1e-3`` as a number, as people mean it, and a date as the text that it is."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != f"{_PREFIX}timestamp"]
    for first, known in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    f"{_PREFIX}float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_yaml(text: str) -> Any:
    """Parse YAML.

    Raises:
        BadYamlError: The text has a syntax error, a key twice, or what is no plain value.

    >>> parse_yaml("{lr: 1e-3, run_name: 2026-11-24}")
    {'lr': 0.001, 'run_name': '2026-11-24'}
    >>> parse_yaml("{lr: 1, lr: 2}")
    Traceback (most recent call last):
    lis2_lightning.config.plain_yaml.BadYamlError: 'lr' stands there twice, in line 1 and line 1
    """
    try:
        return _parse(text)
    except yaml.YAMLError as error:
        raise BadYamlError(_where(error)) from error
    except RecursionError as error:
        raise BadYamlError("it is nested too deeply") from error
    except ValueError as error:  # a number that Python cannot hold, or half a character
        raise BadYamlError(" ".join(str(error).split())) from error


def _parse(text: str) -> Any:
    _check_depth(text)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node, {})
        told = list(_complaints(node, (), []))
        if told:
            raise BadYamlError("; ".join(dict.fromkeys(told)))
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _check_depth(text: str) -> None:
    """Refuse what the parser written in C would follow until its stack ends."""
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth += 1 if bracket in "[{" else -1
        if depth > _MAX_DEPTH:
            raise BadYamlError("it is nested too deeply")


def _complaints(node: Any, path: tuple[str, ...], above: list[Any]) -> Iterator[str]:
    if len(above) > _MAX_DEPTH:
        raise BadYamlError("it is nested too deeply")
    if any(node is other for other in above):
        yield f"{'.'.join(path)} contains itself"
        return
    if node.tag.removeprefix(_PREFIX) not in _PLAIN:
        tag = node.tag.replace(_PREFIX, "!!")
        yield f"{'.'.join(path) or 'it'} has the tag {tag}, and only plain values may stand there"
        return
    if isinstance(node, yaml.MappingNode):
        yield from _twice(node, path)
    for name, part in _parts(node):
        yield from _complaints(part, (*path, name), [*above, node])


def _parts(node: Any) -> list[tuple[str, Any]]:
    if isinstance(node, yaml.MappingNode):
        return [(str(key.value), value) for key, value in node.value]
    if isinstance(node, yaml.SequenceNode):
        # long lists of numbers are common, and this is the quick way through them
        return [(str(i), item) for i, item in enumerate(node.value) if item.tag not in _NUMBERS]
    return []


def _twice(node: yaml.MappingNode, path: Sequence[str]) -> Iterator[str]:
    lines: dict[tuple[str, str], list[int]] = {}
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != f"{_PREFIX}merge":
            lines.setdefault((key.tag, key.value), []).append(key.start_mark.line + 1)
    for (_, name), found in lines.items():
        if len(found) > 1:
            where = " and ".join(f"line {line}" for line in found)
            yield f"{'.'.join([*path, name])!r} stands there twice, in {where}"


def _check_size(node: Any, known: dict[int, int]) -> int:
    """How many values a text stands for, where each use of an anchor counts."""
    if id(node) not in known:
        known[id(node)] = 1  # for what contains itself
        parts: list[Any] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        known[id(node)] = 1 + sum(_check_size(part, known) for part in parts)
        if known[id(node)] > len(known) + _MAX_REPEATED:
            raise BadYamlError("its anchors stand for too many values")
    return known[id(node)]


def _where(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{error.problem} in line {mark.line + 1}, column {mark.column + 1}"
    return " ".join(str(error).split())
