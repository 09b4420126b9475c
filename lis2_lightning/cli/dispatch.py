"""The commands that need no configuration, and the help of all of them.

Importing torch and Lightning takes seconds: ``--help``, ``--version``, a misspelt command and the
help of the tools answer without them.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser as PlainParser
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import Any, Final

from jsonargparse import ArgumentError, ArgumentParser

from lis2_lightning._version import __version__
from lis2_lightning.base.private_names import option_strings
from lis2_lightning.cli.answer import tell
from lis2_lightning.cli.commands import RUNS
from lis2_lightning.cli.tools import TOOLS
from lis2_lightning.config.messages import sentence
from lis2_lightning.errors import ConfigError, did_you_mean

_ABOUT: Final = "Train segmentation networks on one large, partly labelled image."
_EPILOG: Final = (
    "lis2 COMMAND --help tells of a command's keys and flags.\n"
    "Exit codes: 0; 1 a run failed, or a difference was found; 2 something you can mend;\n"
    "130, 138 or 143 a signal ended the run, which can go on."
)


def run(words: Sequence[str]) -> int | None:
    """Run a command that needs no configuration.

    Args:
        words: The words of the command line after the program's name.

    Returns:
        The exit code; null where the command is one of :data:`RUNS`.

    Raises:
        ConfigError: The command or one of its arguments is wrong.
        SystemExit: Help or the version was asked for.
    """
    first = words[0] if words else ""
    if first in TOOLS:
        return _run_tool(first, list(words[1:]))
    if first in {"-h", "--help", "--version"}:
        _overview().parse_args([first])
    if not set(words) & set(RUNS):
        raise _unknown(first)
    return None


def _unknown(first: str) -> ConfigError:
    names = [*RUNS, *TOOLS]
    if not first or first.startswith("-"):
        return ConfigError(f"a command is missing: one of {', '.join(names)}; see lis2 --help")
    return ConfigError(f"unknown command {first!r}: {did_you_mean(first, names)}")


def _overview() -> PlainParser:
    parser = PlainParser(
        "lis2", description=_ABOUT, epilog=_EPILOG, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"lis2 {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, told in {**RUNS, **{name: summary(name) for name in TOOLS}}.items():
        commands.add_parser(name, help=told)
    return parser


def summary(name: str) -> str:
    """What a tool does, in one line.

    Args:
        name: One of the tools.
    """
    return str(TOOLS[name].__doc__).partition("\n")[0]


def tool_parser(name: str) -> ArgumentParser:
    """The parser of a tool, made of its function's signature and docstring.

    Args:
        name: One of the tools.
    """
    parser = ArgumentParser(prog=f"lis2 {name}", description=summary(name), exit_on_error=False)
    parser.add_function_arguments(TOOLS[name], as_positional=True)
    parser.add_argument("--json", action="store_true", help="Print the result as one line of JSON.")
    return parser


def _run_tool(name: str, words: list[str]) -> int:
    parser = tool_parser(name)
    try:
        given: dict[str, Any] = vars(parser.parse_args(words))
    except ArgumentError as error:
        flags = [key for key in option_strings(parser) if key.startswith("--")]
        raise ConfigError(f"{name}: {sentence(str(error), flags)}") from error
    as_json = given.pop("json")
    answer = TOOLS[name](**given)
    sys.stderr.flush()
    return tell(answer, as_json=as_json)
