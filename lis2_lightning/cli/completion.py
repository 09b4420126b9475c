"""What a shell completes: commands, keys, and the names of components.

jsonargparse can write such scripts too; it looks through every class that a network may be, which
takes minutes, and knows no short name.
"""

from __future__ import annotations

from argparse import ArgumentParser
from importlib import import_module
from typing import Any, Final

from lis2_lightning.cli import manual
from lis2_lightning.cli.dispatch import OWN_KEYS, OWN_SWITCHES, TRAINER_COMMANDS, summaries
from lis2_lightning.config.common_data import DATA
from lis2_lightning.config.names import KINDS, names
from lis2_lightning.errors import ConfigError

_FILES: Final = frozenset(
    {"config", "ckpt_path", "lightning_yaml", "weights", "image", "output", "space"}
)


def script(shell: str) -> str:
    """The completion script of a shell: ``bash``, ``zsh`` or ``tcsh``.

    Raises:
        ConfigError: shtab is not installed.
    """
    try:
        shtab: Any = import_module("shtab")
    except ImportError as error:
        raise ConfigError(
            'completion needs shtab: pip install "lis2-lightning[completion]"'
        ) from error
    parser = ArgumentParser("lis2")
    commands = parser.add_subparsers()
    for name, text in summaries().items():
        command = commands.add_parser(name, help=text)
        if name not in TRAINER_COMMANDS:
            command.add_argument("files", nargs="*").complete = shtab.FILE  # type: ignore[attr-defined]  # what shtab looks for
            continue
        for key in ["config", *OWN_KEYS[name], *manual.keys(), DATA]:
            choices = sorted(names(KINDS[key])) if key in KINDS else None
            action = command.add_argument(f"--{key}", choices=choices)
            if key in _FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]  # as above
        for key in manual.lightning_keys():
            command.add_argument(f"--lightning.{key}")
        for flag in ("print_config", "json", *OWN_SWITCHES.get(name, ())):
            command.add_argument(f"--{flag}", action="store_true")
    return str(shtab.complete(parser, shell))
