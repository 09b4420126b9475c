"""The command line's words: components and files merged into one configuration, the rest kept.

``--optimizer AdamW --optimizer.lr 0.01`` means what the same keys mean in a file or in Python: a
component that is named anew starts from its own defaults, not from those of the one before.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from lis2_lightning.config.files import ALIASES, load_config, merge, parse_yaml
from lis2_lightning.config.names import KINDS
from lis2_lightning.config.spelling import to_class_paths

_CONFIG: Final = frozenset({"--config", "-c"})


def spell_arguments(
    words: Sequence[str], expand: Callable[[dict[str, Any]], dict[str, Any]]
) -> list[str]:
    """Translate a command's words for jsonargparse.

    Args:
        words: What was typed.
        expand: Checks a configuration and writes out what it leaves to its components' defaults.

    Returns:
        The words, with one ``--config`` that holds all files and components.

    Raises:
        ConfigError: A name is unknown, or a file cannot be read.

    >>> spell_arguments(["fit", "--optimizer", "sgd", "--epoch=3"], dict)
    ['fit', '--config', '{"optimizer": {"class_path": "torch.optim.SGD"}}', '--epochs=3']
    """
    kept: list[str] = []
    config: dict[str, Any] = {}
    components: list[tuple[str, str]] = []
    for name, value in _flags(words):
        key = name.removeprefix("--")
        if name in _CONFIG:
            config = merge(config, _read(value or ""))
        elif _is_component(key) and value is not None:
            components.append((key, value))
        else:
            flag = f"--{ALIASES[key]}" if key in ALIASES else name
            kept.append(flag if value is None else f"{flag}={value}")
    for key, value in components:
        component, _, inside = key.partition(".")
        if inside and component not in config:
            kept.append(f"--{key}={value}")  # jsonargparse applies it to the default component
        else:
            config = merge(config, {key: parse_yaml(value)})
    if not config:
        return kept
    # before all flags, which win over it, and after the subcommand
    place = int(bool(kept) and not kept[0].startswith("-"))
    return [*kept[:place], "--config", json.dumps(expand(to_class_paths(config))), *kept[place:]]


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
            takes_next = bool(rest) and not rest[0].startswith("--")
            yield name, rest.popleft() if takes_next else None


def _is_component(key: str) -> bool:
    return key.partition(".")[0] in KINDS and not key.endswith((".help", "+"))


def _read(value: str) -> Mapping[str, Any]:
    if value.startswith("{"):
        # a subcommand's parser gets what the main parser has put together
        inline: dict[str, Any] = json.loads(value)
        return inline
    return load_config(value)
