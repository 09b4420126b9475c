"""The command line's words: components and files merged into one configuration, the rest kept.

``--optimizer AdamW --optimizer.lr 0.01`` means what the same keys mean in a file or in Python: a
component that is named anew starts from its own defaults, not from those of the one before.
``--metrics+=iou`` adds to a list, and ``--metrics.threshold 0.3`` after it is about what was added.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from lis2_lightning.config.loading import ALIASES, load_config, merge, parse_typed
from lis2_lightning.config.names import KINDS, class_path
from lis2_lightning.config.variables import from_environment

_CONFIG: Final = frozenset({"--config", "-c"})
_ALONE: Final = frozenset({"-h", "--help", "--print_config", "--json", "--version"})
_HELP: Final = ".help"


def spell_arguments(
    words: Sequence[str],
    expand: Callable[[dict[str, Any]], dict[str, Any]],
    *,
    keys: Sequence[str] = (),
    usual: Callable[[str], list[Any]] = lambda _: [],
    environ: Mapping[str, str] = os.environ,
) -> list[str]:
    """Translate a command's words for jsonargparse.

    Args:
        words: What was typed.
        expand: Checks a configuration and writes out what it leaves to its components' defaults.
        keys: The documented keys, which variables of the environment may set.
        usual: What a list holds that no file sets, for ``+=``.
        environ: The environment; what it sets is beaten by files and by flags.

    Returns:
        The words, with one ``--config`` that holds all files and components.

    Raises:
        ConfigError: A name is unknown, or a file cannot be read.

    >>> spell_arguments(["fit", "--optimizer", "sgd", "--epoch=3"], dict, environ={})
    ['fit', '--config', '{"optimizer": "sgd"}', '--epochs=3']
    """
    if any(name in _CONFIG and (value or "").startswith("{") for name, value in _flags(words)):
        return list(words)  # a subcommand's parser gets what the main parser has put together
    early, config = from_environment(environ, keys, command=words[0] if words else "")
    kept: list[str] = []
    components: list[tuple[str, str]] = []
    for name, value in _flags(words):
        key = name.removeprefix("--")
        if name in _CONFIG:
            config = merge(config, load_config(value or ""))
        elif _is_component(key) and value is not None:
            components.append((key, value))
        else:
            kept.append(_spelled(name, key, value))
    for key, value in components:
        if "." in key and key.partition(".")[0] not in config:
            kept.append(f"--{key}={value}")  # jsonargparse applies it to the default component
        else:
            config = _merged(config, key, value, usual)
    # before all flags, which win over it, and after the subcommand
    place = int(bool(kept) and not kept[0].startswith("-"))
    told = ["--config", json.dumps(expand(config))] if config else []
    return [*kept[:place], *early, *told, *kept[place:]]


def _merged(
    config: Mapping[str, Any], key: str, value: str, usual: Callable[[str], list[Any]]
) -> dict[str, Any]:
    if not key.endswith("+"):
        return merge(config, {key: parse_typed(f"--{key}", value)})
    name = key.removesuffix("+")
    added = parse_typed(f"--{key}", value)
    present = _inside(config, name.split("."))
    before = usual(name) if present is None else present
    before = before if isinstance(before, list) else [before]
    return merge(config, {name: [*before, *(added if isinstance(added, list) else [added])]})


def _inside(config: Any, path: Sequence[str]) -> Any:
    for key in path:
        if not isinstance(config, Mapping):
            return None
        arguments = config.get("init_args")
        config = arguments[key] if arguments and key in arguments else config.get(key)
    return config


def _flags(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Each flag with its value; what has none, or is no flag, comes alone."""
    rest = deque(words)
    while rest:
        name, equals, value = rest.popleft().partition("=")
        if not name.startswith("-"):
            yield f"{name}{equals}{value}", None
        elif equals:
            yield name, value
        else:
            takes_next = bool(rest) and not rest[0].startswith("--") and name not in _ALONE
            yield name, rest.popleft() if takes_next else None


def _spelled(name: str, key: str, value: str | None) -> str:
    kind = KINDS.get(key.removesuffix(_HELP).rpartition(".")[2])
    if key.endswith(_HELP) and kind and value:
        value = class_path(kind, value, key=name)
    flag = f"--{ALIASES[key]}" if key in ALIASES else name
    return flag if value is None else f"{flag}={value}"


def _is_component(key: str) -> bool:
    return key.rstrip("+").partition(".")[0] in KINDS and not key.endswith(_HELP)
