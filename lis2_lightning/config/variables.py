"""Variables of the environment: ``LIS2_EPOCHS``, ``LIS2_FIT__EPOCHS``, ``LIS2_OPTIMIZER__LR``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from lis2_lightning.config.loading import ALIASES, load_config, merge, parse_typed
from lis2_lightning.config.names import KINDS
from lis2_lightning.errors import close_to

PREFIX: Final = "LIS2_"
_CONFIG: Final = "config"
_NESTED: Final = frozenset({*KINDS, "lightning"})
_log = logging.getLogger("lis2_lightning")


def from_environment(
    environ: Mapping[str, str], keys: Sequence[str], *, command: str
) -> tuple[list[str], dict[str, Any]]:
    """What the environment sets: the weakest of all, beaten by files and by flags.

    Two underscores stand for a dot. A command's own variable, such as ``LIS2_FIT__EPOCHS``, beats
    ``LIS2_EPOCHS``. ``LIS2_CONFIG`` names a file, which is beaten by the other variables.

    Args:
        environ: The environment.
        keys: The documented keys.
        command: The command that was typed.

    Returns:
        Flags for single values, and a configuration for components and for Lightning's keys.

    Raises:
        ConfigError: A value is no valid YAML, or the file cannot be read.

    >>> from_environment({"LIS2_EPOCHS": "3"}, ["epochs"], command="fit")
    (['--epochs=3'], {})
    >>> from_environment({"LIS2_FIT__OPTIMIZER": "SGD"}, ["optimizer"], command="fit")
    ([], {'optimizer': 'SGD'})
    """
    found = _keys(environ, [*keys, *ALIASES, _CONFIG], command)
    config = load_config(environ[found.pop(_CONFIG)]) if _CONFIG in found else {}
    # in the order of their length: a component before what lies inside it
    nested = sorted((key for key in found if key.partition(".")[0] in _NESTED), key=len)
    for key in nested:
        config = merge(config, {key: parse_typed(found[key], environ[found[key]])})
    plain = {ALIASES.get(key, key): name for key, name in found.items() if key not in nested}
    config = {key: value for key, value in config.items() if key not in plain}
    return [f"--{key}={environ[name]}" for key, name in sorted(plain.items())], config


def _keys(environ: Mapping[str, str], keys: Sequence[str], command: str) -> dict[str, str]:
    """The name of the variable that sets each key; the command's own come last, and win."""
    own = f"{command.replace('-', '_').upper()}__"
    found: dict[str, str] = {}
    names = [name for name in environ if name.startswith(PREFIX)]
    for name in sorted(names, key=lambda name: name.startswith(PREFIX + own)):
        first, *rest = name.removeprefix(PREFIX).removeprefix(own).split("__")
        # capitals are the shell's custom; toEncode keeps its own where it is written so
        inside = [part.lower() if part.isupper() else part for part in rest]
        if first.lower() in keys:
            found[".".join([first.lower(), *inside])] = name
        elif nearest := close_to(first.lower(), [key for key in keys if key not in ALIASES]):
            near = f"{PREFIX}{nearest[0].upper()}"
            _log.warning("%s in the environment sets no key: did you mean %s?", name, near)
    return found
