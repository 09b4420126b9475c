"""Variables of the environment: ``LIS2_EPOCHS``, ``LIS2_FIT__EPOCHS``, ``LIS2_OPTIMIZER__LR``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from lis2_lightning.config.loading import ALIASES, load_config, merge
from lis2_lightning.config.names import KINDS
from lis2_lightning.config.plain_yaml import parse_yaml
from lis2_lightning.errors import close_to

PREFIX: Final = "LIS2_"
_CONFIG: Final = "config"
_log = logging.getLogger("lis2_lightning")


def from_environment(
    environ: Mapping[str, str], keys: Sequence[str], *, command: str
) -> dict[str, Any]:
    """The configuration that the environment sets; files and flags override it.

    Two underscores stand for a dot. A command's own variable, such as ``LIS2_FIT__EPOCHS``,
    overrides ``LIS2_EPOCHS``. ``LIS2_CONFIG`` names a file, which the other variables override.

    Args:
        environ: The environment.
        keys: The keys that may be set.
        command: The command.

    Raises:
        ConfigError: A value is not valid YAML, or the file cannot be read.

    >>> from_environment({"LIS2_FIT__OPTIMIZER": "{type: SGD}"}, ["optimizer"], command="fit")
    {'optimizer': {'type': 'SGD'}}
    """
    variables = _variables(environ, [*keys, *ALIASES, _CONFIG], command)
    config = load_config(environ[variables.pop(_CONFIG)]) if _CONFIG in variables else {}
    # shorter keys first: a component before what lies inside it
    for key in sorted(variables, key=len):
        text = environ[variables[key]]
        is_component = key.partition(".")[0] in KINDS or key == "lightning"
        value = parse_yaml(text, variables[key]) if is_component else text
        config = merge(config, {key: value})
    return config


def _variables(environ: Mapping[str, str], keys: Sequence[str], command: str) -> dict[str, str]:
    """The variable that sets each key; the command's own come last, and win."""
    own = f"{command.replace('-', '_').upper()}__"
    variables: dict[str, str] = {}
    names = [name for name in environ if name.startswith(PREFIX)]
    for name in sorted(names, key=lambda name: name.startswith(PREFIX + own)):
        first, *rest = name.removeprefix(PREFIX).removeprefix(own).split("__")
        # capitals are the shell's custom; toEncode keeps its own where it is written so
        inside = [part.lower() if part.isupper() else part for part in rest]
        if first.lower() in keys:
            variables[".".join([first.lower(), *inside])] = name
        elif nearest := close_to(first.lower(), [key for key in keys if key not in ALIASES]):
            near = f"{PREFIX}{nearest[0].upper()}"
            _log.warning("%s in the environment sets no key: did you mean %s?", name, near)
    return variables
