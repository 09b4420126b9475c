"""The words of a command line as one configuration: environment, then files, then flags.

``--optimizer AdamW`` starts from the defaults of AdamW, not from those of the former optimizer.
``--metrics+=iou`` adds to a list, and ``--metrics.threshold 0.3`` after it applies to the addition.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from lis2_lightning.config.common_data import DATA, separate
from lis2_lightning.config.loading import ALIASES, load_config, merge, parse_yaml
from lis2_lightning.config.names import KINDS, LIGHTNING_KINDS
from lis2_lightning.errors import ConfigError, close_to

_CONFIG: Final = frozenset({"--config", "-c"})
_HELP: Final = frozenset({"-h", "--help"})
_SWITCHES: Final = _HELP | {"--print_config", "--json"}
# with those that a text processor makes of one or two
_DASHES: Final = ("-", "\u2010", "\u2011", "\u2013", "\u2014", "\u2212")
# where a key is that is often typed without its component
_INSIDE: Final = {
    **{key: f"data.{key}" for key in ("image", "target", "size", "stride", "num_folds")},
    **{key: f"lightning.{key}" for key in ("precision", "accelerator", "devices", "callbacks")},
    "lr": "optimizer.lr",
    "max_epochs": "epochs",
    "patience": "early_stopper.patience",
    "features": "model.features",
}
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
    environ: Mapping[str, str] = os.environ,
    is_for_all: bool = False,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Read the words after a command, as a configuration and the switches that they hold.

    Values that are not components stay text. ``own_switches`` are those of the command, without
    dashes; ``is_for_all`` is as for :func:`load_config`.

    Raises:
        ConfigError: An argument is unknown or lacks its value, or a file cannot be read.
    """
    own = frozenset(f"--{name}" for name in own_switches)
    flags = list(_flags(words, own))
    _check([flag for flag in flags if flag[0] not in own], keys, command)
    switches = {flag: value or "" for flag, value in flags if _is_switch(flag) or flag in own}
    if with_value := [flag for flag in own if switches.get(flag)]:
        raise ConfigError(f"{with_value[0]} takes no value: leave it out to do without it")
    if any(flag in _HELP or flag.endswith(HELP) for flag in switches):
        return {}, switches  # whatever the configuration is
    config = from_environment(environ, keys, command=command, is_for_all=is_for_all)
    for flag, value in flags:
        if flag in _CONFIG:
            config = merge(config, load_config(value or "", is_for_all=is_for_all))
    for flag, value in flags:
        if flag not in _CONFIG and flag not in switches:
            key = flag.removeprefix("--")
            config = merge(config, {key: _value(key, value or "", flag)})
    return separate(config), switches


def _check(flags: Iterable[tuple[str, str | None]], keys: Sequence[str], command: str) -> None:
    wrong: list[str] = []
    is_stray = False  # the value of a wrong word is no second mistake
    for flag, value in flags:
        is_word = not flag.startswith(_DASHES)
        if not (is_word and is_stray) and (mistake := _mistake(flag, value, keys)):
            wrong.append(mistake)
        is_stray = is_word
    if wrong:
        raise ConfigError(f"{'; '.join(wrong)} (lis2 {command} --help describes all)")


def _mistake(flag: str, value: str | None, keys: Sequence[str]) -> str:
    """What is wrong with a flag, or nothing."""
    if flag in _CONFIG:
        return "" if value else f"{flag} needs a file"
    if _is_switch(flag):
        return f"{flag} takes no value" if value and flag in _SWITCHES - _HELP else ""
    if not flag.startswith("--") or _top(flag) not in {*keys, *ALIASES}:
        return f"unrecognised argument {flag!r}{_hint(flag, keys)}"
    return f"{flag} needs a value" if value is None else ""


def _hint(flag: str, keys: Sequence[str]) -> str:
    """What may have been meant by a wrong word."""
    if flag.endswith((".yaml", ".yml")):
        return f": did you mean '--config {flag}'?"
    name = _top(flag).lstrip("".join(_DASHES)).partition("=")[0]
    near = [_INSIDE[name]] if name in _INSIDE else close_to(name, keys)
    if near:
        return f": did you mean {' or '.join(repr(f'--{key}') for key in near)}?"
    if flag.startswith(_DASHES):
        return ""
    return ": a flag takes one value, and a list is one in quotes, as in '[dice, iou]'"


def _is_switch(flag: str) -> bool:
    return flag in _SWITCHES or flag.endswith(HELP)


def _top(flag: str) -> str:
    return flag.removeprefix("--").removesuffix("+").partition(".")[0]


def _flags(words: Sequence[str], own_switches: Collection[str]) -> Iterator[tuple[str, str | None]]:
    """Each flag with its value; a switch, and a word that is not a flag, has none."""
    rest = deque(words)
    while rest:
        name, equals, value = rest.popleft().partition("=")
        if not name.startswith(_DASHES):
            yield f"{name}{equals}{value}", None
        elif equals and (value or not name.endswith("+")):
            yield name, value
        else:
            is_switch = name in _SWITCHES - _HELP or name in own_switches
            another = "-" if name in _HELP else "--"  # elsewhere -1 may be a value
            takes_next = bool(rest) and not rest[0].startswith(another) and not is_switch
            yield name, rest.popleft() if takes_next else None


def _value(key: str, text: str, source: str) -> Any:
    """A text as YAML; or as it is where jsonargparse knows whether a number or text is meant."""
    is_component = not {*KINDS, *LIGHTNING_KINDS, DATA}.isdisjoint(key.rstrip("+").split(".")[:2])
    is_yaml = is_component or key == "lightning" or key.endswith("+")
    return parse_yaml(text, source) if is_yaml else text


def from_environment(
    environ: Mapping[str, str], keys: Sequence[str], *, command: str, is_for_all: bool = False
) -> dict[str, Any]:
    """The configuration that the environment sets; files and flags override it.

    Two underscores stand for a dot. A command's own variable, such as ``LIS2_FIT__EPOCHS``,
    overrides ``LIS2_EPOCHS``. ``LIS2_CONFIG`` names a file, which the other variables override.

    Raises:
        ConfigError: A value is not valid YAML, or the file cannot be read.
    """
    variables = _variables(environ, [*keys, *ALIASES, _FILE], command)
    file = environ[variables.pop(_FILE)] if _FILE in variables else None
    config = {} if file is None else load_config(file, is_for_all=is_for_all)
    # shorter keys first: a component before what lies inside it
    for key in sorted(variables, key=len):
        text = environ[variables[key]]
        config = merge(config, {key: _value(key, text, variables[key])})
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
