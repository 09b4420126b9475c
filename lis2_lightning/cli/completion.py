"""What a shell completes: commands, keys, and the names of components.

jsonargparse can write such scripts too; it looks through every class that a network may be, which
takes minutes, and knows no short name.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from lis2_lightning.cli.commands import RUNS
from lis2_lightning.config import Schema
from lis2_lightning.config.names import KINDS, names
from lis2_lightning.errors import ConfigError
from lis2_lightning.trainer import Trainer

_FILES: Final = frozenset({"config", "ckpt_path", "lightning_yaml"})
_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "mode": ("min", "max"),
    "scheduler_interval": ("epoch", "step"),
    "resume": ("auto",),
    **dict.fromkeys(("save_last", "compile"), ("true", "false")),
}


def script(shell: str, tools: Mapping[str, str]) -> str:
    """The completion script of a shell.

    Args:
        shell: ``bash``, ``zsh`` or ``tcsh``.
        tools: The commands that take no configuration, each with what it does.

    Raises:
        ConfigError: shtab is not installed.
    """
    try:
        shtab: Any = import_module("shtab")
    except ImportError as error:
        told = 'completion needs shtab: pip install "lis2-lightning[completion]"'
        raise ConfigError(told) from error
    schema = Schema(Trainer)
    parser = ArgumentParser("lis2")
    commands = parser.add_subparsers()
    for name, told in tools.items():
        commands.add_parser(name, help=told.partition("\n")[0]).add_argument(
            "files", nargs="*"
        ).complete = shtab.FILE  # type: ignore[attr-defined]  # what shtab looks for
    for name, told in RUNS.items():
        one = commands.add_parser(name, help=told)
        for key in [*schema.keys, *_FILES]:
            _add(one, key, shtab.FILE)
        for key in schema.lightning_defaults:
            one.add_argument(f"--lightning.{key}")
        for flag in ("--print_config", "--json"):
            one.add_argument(flag, action="store_true")
    return str(shtab.complete(parser, shell))


def _add(parser: ArgumentParser, key: str, file: Any) -> None:
    if key == "lightning":
        return  # its arguments have flags of their own
    choices = sorted(names(KINDS[key])) if key in KINDS else _WORDS.get(key)
    action = parser.add_argument(f"--{key}", choices=choices)
    if key in _FILES:
        action.complete = file  # type: ignore[attr-defined]  # what shtab looks for
