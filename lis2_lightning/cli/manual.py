"""The help of the commands that take a configuration.

Keys are read from the source of ``Trainer.__init__`` and its docstring: importing it takes seconds.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill
from typing import Final

from docstring_parser import parse

from lis2_lightning.config.common_data import DATA
from lis2_lightning.config.names import KINDS, LIBRARIES, TABLES, names
from lis2_lightning.errors import ConfigError, did_you_mean

_TYPES: Final = {"int": "INT", "float": "FLOAT", "bool": "true|false", "Any": "VALUE"}
_INDENT: Final = " " * 26
# values of keys whose type says too little
_VALUES: Final = {
    **dict.fromkeys(("output_dir", "weights"), "PATH"),
    **dict.fromkeys(KINDS, "NAME"),
    "early_stopper": "true|NAME",
    "resume": "auto|PATH",
    "lightning": "{...}",
}
_SWITCHES: Final = {
    "-c FILE, --config FILE": "Configuration, or the folder of a run; may be repeated.",
    "--print_config": "Print the complete configuration and exit.",
    "--json": "Print the result as one line of JSON.",
    "-h, --help [KEY]": "This help, or that of one key: --help model, --help lightning.",
}
_COMMON: Final = (
    f"A key of all data sets, as in --{DATA}.size 64; in a file, {DATA} can replace the three."
)


@dataclass(frozen=True)
class Key:
    """An argument of a documented class."""

    type: str  # as its source spells it
    default: str | None  # as it is written in YAML; null where it is needed, or no plain value
    meaning: str

    @property
    def value(self) -> str:
        """What stands for the value in help: INT, min|max, TEXT."""
        parts = [part.strip() for part in self.type.split("|") if part.strip() != "None"]
        if parts == ["int", "Literal['auto']"]:
            return "INT|auto"
        if parts[0].startswith("Literal"):
            return "|".join(ast.literal_eval(parts[0].removeprefix("Literal").strip("[]") + ","))
        return _TYPES.get(parts[0], "TEXT")

    def help(self, *, whole: bool = False) -> str:
        """The meaning, or its first sentence, and the default where that is a plain value."""
        first, stop, _ = self.meaning.partition(". ")
        text = self.meaning if whole else f"{first}{stop.strip()}"
        return text if self.default in {None, "null"} else f"{text} (default: {self.default})"


@cache
def keys() -> Mapping[str, Key]:
    """The documented keys, in the order of the documentation."""
    return _arguments(Path(__file__).parents[1] / "trainer.py")


@cache
def lightning_keys() -> Mapping[str, Key]:
    """The arguments of the Lightning trainer."""
    spec = find_spec("lightning")
    folders = spec.submodule_search_locations if spec else None
    return _arguments(Path((folders or ["."])[0], "pytorch", "trainer", "trainer.py"))


def _arguments(path: Path) -> Mapping[str, Key]:
    """The arguments of the class ``Trainer`` in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    [owner] = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Trainer"]
    [init] = [n for n in owner.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
    text = "\n\n".join(filter(None, (ast.get_docstring(owner), ast.get_docstring(init))))
    described = {item.arg_name: item.description or "" for item in parse(text).params}
    listed = init.args
    positional = listed.args[1:]
    defaults = [None] * (len(positional) - len(listed.defaults)) + list(listed.defaults)
    pairs = [*zip(positional, defaults, strict=True)]
    pairs += zip(listed.kwonlyargs, listed.kw_defaults, strict=True)
    return {
        argument.arg: Key(
            ast.unparse(argument.annotation) if argument.annotation else "Any",
            _plain(default),
            " ".join(described.get(argument.arg, "").replace("``", "").split()),
        )
        for argument, default in pairs
    }


def _plain(default: ast.expr | None) -> str | None:
    """A default as YAML has it; null where there is none, or a function or another name."""
    if default is None:
        return None
    try:
        value = ast.literal_eval(default)
    except ValueError:
        return None
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def command_help(
    command: str, about: str, own_keys: Mapping[str, str], own_switches: Mapping[str, str]
) -> str:
    """The help of a command: its own flags, the keys, and the names of components."""
    rows = [_row(f"--{key}", text) for key, text in {**own_keys, **own_switches}.items()]
    rows += [_row(flag, text) for flag, text in _SWITCHES.items()]
    rows += ["", "keys, in the file and as flags; dots reach inside: --optimizer.lr 0.01"]
    for key, item in keys().items():
        rows.append(_row(f"--{key} {_VALUES.get(key, item.value)}", item.help()))
        if key == "test_dataset":
            rows.append(_row(f"--{DATA}.KEY VALUE", _COMMON))
    rows += ["", "names of components, alone or as 'type'; --model.help unet shows arguments"]
    rows += [_row(kind.replace("_", " "), _listed(kind)) for kind in TABLES]
    usage = f"usage: lis2 {command} --config FILE [--KEY VALUE ...]"
    return "\n".join([usage, "", fill(about, 80), "", *rows, ""])


def _row(head: str, text: str) -> str:
    wrapped = fill(text, 80, initial_indent=_INDENT, subsequent_indent=_INDENT)
    is_short = len(head) < len(_INDENT) - 3
    return f"  {head:<{len(_INDENT) - 2}}{wrapped.lstrip()}" if is_short else f"  {head}\n{wrapped}"


def _listed(kind: str) -> str:
    """A name of each class of ours, and where the others are."""
    first: dict[str, str] = {}
    for name, path in TABLES[kind].items():
        first.setdefault(path, name)
    theirs = [f"every {kind} of {LIBRARIES[kind][2]}"] if kind in LIBRARIES else []
    return ", ".join([*first.values(), *theirs])


def key_help(key: str) -> str:
    """The help of one key: its meaning and default, and what may stand there.

    Raises:
        ConfigError: There is no such key.
    """
    if key == DATA:
        return f"{DATA}: {_COMMON}\n\n{_table('dataset')}"
    if key not in keys():
        near = did_you_mean(key, [*keys(), DATA])
        hint = near if near.endswith("?") else "--help alone lists the keys"
        raise ConfigError(f"there is no help of {key!r}: {hint}")
    text = f"{key}: {keys()[key].help(whole=True)}\n"
    if key == "lightning":
        theirs = lightning_keys().items()
        rows = (_row(f"--{key}.{name}", item.help()) for name, item in theirs)
        return "\n".join([text, *rows, ""])
    return f"{text}\n{_table(KINDS[key])}" if key in KINDS else text


def _table(kind: str) -> str:
    rows = [_row(name, path) for name, path in sorted(names(kind).items())]
    return "\n".join(["names:", *rows, "Any other class is named by its import path.", ""])
