"""Configuration files: read, merged, and refused with one sentence."""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

from lis2_lightning.config.plain_yaml import BadYamlError, parse_yaml
from lis2_lightning.errors import ConfigError

ALIASES: Final = {"epoch": "epochs"}  # LIS2's name of a key, and ours
CHECKPOINT: Final = "ckpt_path"  # an argument of Lightning's methods
# arguments of commands: --print_config shows them, so a configuration may hold them
COMMAND_KEYS: Final = frozenset({CHECKPOINT, "batches", "lightning_yaml"})


def parse_typed(name: str, text: str) -> Any:
    """Parse the value of a flag or of a variable.

    Args:
        name: The flag or the variable, to name in an error.
        text: Its value.

    Raises:
        ConfigError: The value is no valid YAML.
    """
    try:
        return parse_yaml(text)
    except BadYamlError as error:
        raise ConfigError(f"{name} is no valid YAML: {error}") from error


def load_config(source: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Read a configuration: a YAML or JSON file, or a mapping, of which a copy is returned.

    Raises:
        ConfigError: The file is missing, is no text, has a syntax error or holds no mapping.
    """
    if isinstance(source, Mapping):
        return dict(source)
    path = Path(source)
    try:
        loaded = parse_yaml(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError(f"there is no configuration file {path}: check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text in UTF-8: is it a configuration file?") from error
    except BadYamlError as error:
        raise ConfigError(f"{path} is no valid YAML: {error}") from error
    except (OSError, ValueError) as error:  # no permission, or a name that no file can have
        raise ConfigError(f"{str(path)!r} cannot be read: {error}") from error
    if not isinstance(loaded, Mapping):
        kind = {list: "a list", type(None): "nothing"}.get(type(loaded), repr(loaded))
        raise ConfigError(
            f"{path} must hold keys and values at its top, got {kind}: lis2 init writes one to "
            "start from"
        )
    return {str(key): value for key, value in loaded.items()}


def merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Lay overrides over a configuration; dots reach inside, mappings are merged key by key.

    A mapping which names a class (``type`` or ``class_path``) replaces the former component.

    >>> merge({"optimizer": {"type": "Adam", "lr": 0.1}}, {"optimizer.lr": 0.2, "epochs": 3})
    {'optimizer': {'type': 'Adam', 'lr': 0.2}, 'epochs': 3}
    >>> merge({"optimizer": {"type": "Adam", "eps": 0.1}}, {"optimizer": {"type": "SGD"}})
    {'optimizer': {'type': 'SGD'}}
    """
    merged = {
        key: deepcopy(value) if _plain(value) else value for key, value in long_names(base).items()
    }
    for dotted, value in long_names(overrides).items():
        _set(merged, dotted.split("."), value)
    return merged


def long_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the short names of its keys written out.

    Raises:
        ConfigError: A key stands there under both its names.

    >>> long_names({"epoch": 3})
    {'epochs': 3}
    """
    both = [name for name in ALIASES if name in config and ALIASES[name] in config]
    if both:
        raise ConfigError(f"{both[0]!r} and {ALIASES[both[0]]!r} are one key: keep one of them")
    return {ALIASES.get(key, key): value for key, value in config.items()}


def _plain(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple | str | int | float | type(None))


def _set(target: dict[str, Any], path: list[str], value: Any) -> None:
    key, *rest = path
    here = target.get(key)
    if rest in (["class_path"], ["type"]):
        here = None  # another component: it begins without the arguments of the former
    if isinstance(here, list) and here and rest:
        here = here[-1]  # as after --metrics+=dice
        inner = {"": here}
        _set(inner, ["", *rest], value)
        target[key] = [*target[key][:-1], inner[""]]
        return
    if isinstance(here, str) and rest:
        here = {"type": here}
    if isinstance(here, Mapping) and "class_path" in here and rest and rest[0] != "init_args":
        rest = ["init_args", *rest]
    if rest:
        inner = dict(here) if isinstance(here, Mapping) else {}
        _set(inner, rest, value)
        target[key] = inner
    elif isinstance(here, Mapping) and isinstance(value, Mapping) and not _names_class(value):
        target[key] = merge(here, value)
    else:
        target[key] = value


def _names_class(value: Mapping[str, Any]) -> bool:
    return "type" in value or "class_path" in value
