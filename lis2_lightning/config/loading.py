"""Configuration files: YAML with plain values and every key once, read and merged."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from lis2_lightning.config.names import KINDS, USUAL_METRICS
from lis2_lightning.config.pipeline_files import from_pipeline
from lis2_lightning.errors import ConfigError, one_line

ALIASES: Final = {"epoch": "epochs"}  # LIS2's name of a key, and ours
_OF_RUN: Final = "config.yaml"  # in the folder of a run
CHECKPOINT: Final = "ckpt_path"  # an argument of Lightning's methods
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


def load_config(
    source: str | os.PathLike[str] | Mapping[str, Any], *, is_for_all: bool = False
) -> dict[str, Any]:
    """Read a configuration: a YAML or JSON file, or a mapping, of which a copy is returned.

    Of a folder, such as that of a run, ``config.yaml`` is read. Sections of LIS2's pipeline are put
    into our keys; ``is_for_all`` as for :func:`from_pipeline`.

    Raises:
        ConfigError: The file is missing, is not UTF-8 text or YAML, or holds no mapping.
    """
    if isinstance(source, Mapping):
        return from_pipeline(dict(source), is_for_all=is_for_all)
    path = Path(source)
    if path.is_dir():
        path /= _OF_RUN
        if not path.is_file():
            raise ConfigError(
                f"the folder {path.parent} holds no {_OF_RUN}: name a configuration file, or the "
                "folder of a run"
            )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"there is no configuration file {path}: check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: is it a configuration file?") from error
    except (OSError, ValueError) as error:  # no permission, or a name that no file can have
        raise ConfigError(f"{str(path)!r} cannot be read: {one_line(error)}") from error
    loaded = parse_yaml(text, str(path))
    if not isinstance(loaded, Mapping):
        kind = {list: "a list", type(None): "nothing"}.get(type(loaded), repr(loaded))
        raise ConfigError(
            f"{path} must hold keys and values at the top level, got {kind}: lis2 init writes a "
            "configuration to start from"
        )
    named = {str(key): value for key, value in loaded.items()}
    return from_pipeline(named, is_for_all=is_for_all)


def merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Lay overrides over a configuration; dots reach inside, mappings are merged key by key.

    A mapping which names a class (``type`` or ``class_path``) replaces the former component. A
    number reaches an item of a list, counted from 0; a plus sign after a key adds to its list.

    Raises:
        ConfigError: Both names of a key are used, or a list has no item of that number.

    >>> merge({"optimizer": {"type": "Adam", "lr": 0.1}}, {"optimizer.lr": 0.2, "epochs": 3})
    {'optimizer': {'type': 'Adam', 'lr': 0.2}, 'epochs': 3}
    >>> merge({"optimizer": {"type": "Adam", "eps": 0.1}}, {"optimizer": {"type": "SGD"}})
    {'optimizer': {'type': 'SGD'}}
    >>> merge({"metrics": ["dice"]}, {"metrics+": "iou", "metrics.0.threshold": 0.4})
    {'metrics': [{'type': 'dice', 'threshold': 0.4}, 'iou']}
    """
    merged = long_names(base)
    for dotted, value in long_names(overrides).items():
        if dotted.startswith(("metrics+", "metrics.")) and merged.get("metrics") is None:
            merged["metrics"] = list(USUAL_METRICS)
        _set(merged, dotted.split("."), value)
    return merged


def long_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with LIS2's names of keys replaced by ours.

    Raises:
        ConfigError: Both names of a key are used.
    """
    both = [name for name in ALIASES if name in config and ALIASES[name] in config]
    if both:
        raise ConfigError(
            f"{both[0]!r} and {ALIASES[both[0]]!r} are the same key: keep one of them"
        )
    return {ALIASES.get(key, key): value for key, value in config.items()}


def as_list(value: Any) -> list[Any]:
    """A list or tuple as a list, one value as a list of it, null as an empty one."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _set(target: dict[str, Any], path: list[str], value: Any) -> None:
    key, *rest = path
    here = target.get(key)
    if not rest and key.endswith("+"):
        key = key.removesuffix("+")
        target[key] = [*as_list(target.get(key)), *as_list(value)]
        return
    if rest and (rest[0].isdigit() or (isinstance(here, list) and here)):
        _set_item(target, path, value)
        return
    if rest in (["class_path"], ["type"]):
        here = None  # another component starts from its own defaults
    if isinstance(here, str) and rest:
        # only documented components have LIS2's spelling
        here = {"type" if key in KINDS else "class_path": here}
    if isinstance(here, Mapping) and "class_path" in here and rest and rest[0] != "init_args":
        rest = ["init_args", *rest]
    if rest:
        inner = dict(here) if isinstance(here, Mapping) else {}
        _set(inner, rest, value)
        target[key] = inner
    elif isinstance(here, Mapping) and isinstance(value, Mapping) and not _names_class(value):
        is_inside = "class_path" not in here or bool({"init_args", "dict_kwargs"} & set(value))
        target[key] = merge(here, value if is_inside else {"init_args": value})
    else:
        target[key] = value


def _set_item(target: dict[str, Any], path: list[str], value: Any) -> None:
    """Set something in an item of a list: the numbered one, or the last after --metrics+=dice."""
    key, *rest = path
    items = as_list(target.get(key))
    number = int(rest.pop(0)) if rest[0].isdigit() else len(items) - 1
    if number >= len(items):
        raise ConfigError(
            f"{key}.{number} is not there: {key} has {len(items) or 'no'} items, counted from 0, "
            f"and {key}+ adds one"
        )
    inner = {key: items[number]}
    _set(inner, [key, *rest], value)
    target[key] = [*items[:number], inner[key], *items[number + 1 :]]


def _names_class(value: Mapping[str, Any]) -> bool:
    return "type" in value or "class_path" in value
