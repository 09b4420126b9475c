"""The words of a command line as one configuration: environment, then files, then flags.

``--optimizer AdamW`` starts from the defaults of AdamW, not from those of the former optimizer.
``--metrics+=iou`` adds to a list, and ``--metrics.threshold 0.3`` after it applies to the addition.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from lis2_lightning.config.loading import ALIASES, as_list, load_config, merge, parse_yaml
from lis2_lightning.config.names import KINDS
from lis2_lightning.errors import ConfigError, close_to, did_you_mean

_CONFIG: Final = frozenset({"--config", "-c"})
_SWITCHES: Final = frozenset({"-h", "--help", "--print_config", "--json"})
_PREFIX: Final = "LIS2_"
_FILE: Final = "config"
HELP: Final = ".help"
_log = logging.getLogger("lis2_lightning")


def read_arguments(
    words: Sequence[str],
    *,
    command: str,
    keys: Sequence[str],
    own_switches: Iterable[str] = (),
    default: Callable[[str], Any] = lambda _: None,
    environ: Mapping[str, str] = os.environ,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Read the words after a command, as a configuration and the switches that they hold.

    Values that are not components stay text. ``own_switches`` are those of the command, without
    dashes. ``default`` gives the value of a key that nothing
    sets, for flags that reach inside or add to it.

    Raises:
        ConfigError: An argument is unknown or lacks its value, or a file cannot be read.
    """
    own = frozenset(f"--{name}" for name in own_switches)
    flags = list(_flags(words, own))
    _check([flag for flag in flags if flag[0] not in own], keys)
    switches = {flag: value or "" for flag, value in flags if _is_switch(flag) or flag in own}
    if with_value := [flag for flag in own if switches.get(flag)]:
        raise ConfigError(f"{with_value[0]} takes no value: leave it out to do without it")
    config = from_environment(environ, keys, command=command)
    for flag, value in flags:
        if flag in _CONFIG:
            config = merge(config, load_config(value or ""))
    for flag, value in flags:
        if flag not in _CONFIG and flag not in switches:
            config = _set(config, flag.removeprefix("--"), value or "", default)
    return config, switches


def _check(flags: Iterable[tuple[str, str | None]], keys: Sequence[str]) -> None:
    wrong = []
    for flag, value in flags:
        if flag in _CONFIG or _is_switch(flag):
            if flag in _CONFIG and not value:
                wrong.append(f"{flag} needs a file")
        elif not flag.startswith("--") or _top(flag) not in {*keys, *ALIASES}:
            hint = did_you_mean(flag.partition(".")[0], [f"--{key}" for key in keys])
            wrong.append(f"unrecognised argument {flag!r}: {hint}")
        elif value is None:
            wrong.append(f"{flag} needs a value")
    if wrong:
        raise ConfigError("; ".join(wrong))


def _is_switch(flag: str) -> bool:
    return flag in _SWITCHES or flag.endswith(HELP)


def _top(flag: str) -> str:
    return flag.removeprefix("--").removesuffix("+").partition(".")[0]


def _flags(words: Sequence[str], own_switches: Collection[str]) -> Iterator[tuple[str, str | None]]:
    """Each flag with its value; a switch, and a word that is not a flag, has none."""
    rest = deque(words)
    while rest:
        name, equals, value = rest.popleft().partition("=")
        if not name.startswith("-"):
            yield f"{name}{equals}{value}", None
        elif equals:
            yield name, value
        else:
            is_switch = name in _SWITCHES or name in own_switches
            takes_next = bool(rest) and not rest[0].startswith("--") and not is_switch
            yield name, rest.popleft() if takes_next else None


def _set(
    config: Mapping[str, Any], key: str, text: str, default: Callable[[str], Any]
) -> dict[str, Any]:
    name = key.removesuffix("+")
    value = parse_yaml(text, f"--{key}") if _is_nested(name) or name != key else text
    top = _top(name)
    if top not in config and (name != key or top != name):
        config = {**config, top: default(top)}
    if name == key:
        return merge(config, {name: value})
    present = _inside(config, name.split("."))
    return merge(config, {name: [*as_list(present), *as_list(value)]})


def _is_nested(key: str) -> bool:
    """Whether a value is YAML; of others, jsonargparse knows whether they are numbers or text."""
    return _top(key) in KINDS or key == "lightning"


def _inside(config: Any, path: Sequence[str]) -> Any:
    for key in path:
        if not isinstance(config, Mapping):
            return None
        arguments = config.get("init_args")
        config = arguments[key] if arguments and key in arguments else config.get(key)
    return config


def from_environment(
    environ: Mapping[str, str], keys: Sequence[str], *, command: str
) -> dict[str, Any]:
    """The configuration that the environment sets; files and flags override it.

    Two underscores stand for a dot. A command's own variable, such as ``LIS2_FIT__EPOCHS``,
    overrides ``LIS2_EPOCHS``. ``LIS2_CONFIG`` names a file, which the other variables override.

    Raises:
        ConfigError: A value is not valid YAML, or the file cannot be read.
    """
    variables = _variables(environ, [*keys, *ALIASES, _FILE], command)
    config = load_config(environ[variables.pop(_FILE)]) if _FILE in variables else {}
    # shorter keys first: a component before what lies inside it
    for key in sorted(variables, key=len):
        text = environ[variables[key]]
        value = parse_yaml(text, variables[key]) if _is_nested(key) else text
        config = merge(config, {key: value})
    return config


def _variables(environ: Mapping[str, str], keys: Sequence[str], command: str) -> dict[str, str]:
    """The variable that sets each key; the command's own come last, and win."""
    own = f"{command.replace('-', '_').upper()}__"
    variables: dict[str, str] = {}
    names = [name for name in environ if name.startswith(_PREFIX)]
    for name in sorted(names, key=lambda name: name.startswith(_PREFIX + own)):
        first, *rest = name.removeprefix(_PREFIX).removeprefix(own).split("__")
        # capitals are the shell's custom; toEncode keeps its own where it is written so
        inside = [part.lower() if part.isupper() else part for part in rest]
        if first.lower() in keys:
            variables[".".join([first.lower(), *inside])] = name
        elif nearest := close_to(first.lower(), [key for key in keys if key not in ALIASES]):
            near = f"{_PREFIX}{nearest[0].upper()}"
            _log.warning("%s in the environment sets no key: did you mean %s?", name, near)
    return variables
