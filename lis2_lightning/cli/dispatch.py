"""From words to a command, whose help and refusals import no torch."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser as PlainParser
from argparse import RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jsonargparse import ArgumentError, ArgumentParser

from lis2_lightning._version import __version__
from lis2_lightning.base.imports import bringing_torch
from lis2_lightning.cli import manual
from lis2_lightning.cli.tools import SEVERAL, TOOLS, print_answer
from lis2_lightning.config import read_arguments
from lis2_lightning.config.arguments import HELP
from lis2_lightning.config.common_data import DATA
from lis2_lightning.errors import ConfigError, did_you_mean, one_line

_ABOUT: Final = "Train segmentation networks on one large, partly labelled image."
_EPILOG: Final = (
    "lis2 COMMAND --help describes a command's keys and flags.\n"
    "Exit codes: 0; 1 a run failed, or a difference was found; 2 something you can fix;\n"
    "130, 138 or 143 a signal ended the run, which can be resumed."
)
# how jsonargparse says that a word is none of a few
_CHOICE: Final = re.compile(
    r'Parser key "(\w+)": Expected a typing\.Literal\[(.+)\]\. Got value: (.+)'
)
TRAINER_COMMANDS: Final = {
    "fit": "Train, score the best snapshot on the test set, and leave every file.",
    "validate": "Measure a snapshot on the validation set.",
    "test": "Measure a snapshot on the test set.",
    "predict": "Map the whole image with a snapshot.",
    "plan": "Show what each key becomes, and write the equivalent configuration for Lightning.",
    "cross-validate": "Train a network for each fold, and score every labelled pixel once.",
    "tune": "Train with values of some keys that Optuna chooses, and find the best.",
    "find-lr": "Try learning rates over some steps, and suggest one.",
    "baseline": "Score filters that need no training on the test pixels, beside the network.",
    "speed": "Train for seconds with each setting that may be faster, and say which is.",
    "verify-resume": "Check that a run of this configuration resumes exactly when interrupted.",
}
_CKPT_PATH: Final = {
    "ckpt_path": "best, last, a snapshot or a run's folder; best by default. Without a "
    "configuration, that of the snapshot is used."
}
# the keys that a command has besides the documented ones
OWN_KEYS: Final[Mapping[str, Mapping[str, str]]] = {
    "fit": {"ckpt_path": "Snapshot to resume from; the same as resume."},
    "validate": _CKPT_PATH,
    "test": _CKPT_PATH,
    "predict": {
        "ckpt_path": "best, last, a snapshot, a run's folder, or a pattern of several, whose mean "
        "is the map; best by default. Without a configuration, that of the snapshot is used.",
        "image": "Another image to map, in place of the configured one; it needs output.",
        "output": "File of the map; by default in the run's folder.",
        "mask": "File of the mask: 1 from the threshold on.",
        "spread": "File of the standard deviation of several.",
        "threshold": "In [0, 1]; auto: the best on validation pixels.",
        "stride": "Pixels from one tile to the next.",
        "dtype": "float32, or uint8: 0 to 254, 255 without data.",
    },
    "plan": {"lightning_yaml": "File to write: the equivalent configuration for LightningCLI."},
    "cross-validate": {
        "folds": "Number of folds; by default that of the configuration, or 5.",
        "seeds": "Runs of each fold, with successive seeds; 1 by default.",
        "jobs": "Folds to train side by side, each in a process of its own.",
        "fold": "Train this fold alone, from 0: one task of a SLURM array.",
    },
    "tune": {
        "space": "What varies: a file of dotted keys, each with a list or a range of values.",
        "trials": "Number of trials of the study; 30 by default, of a grid all.",
        "folds": "Train each trial on so many folds, and compare the means.",
        "jobs": "Trials to train side by side, each in a process of its own.",
        "trial": "Train this trial alone, from 0, as --jobs does it.",
    },
    "find-lr": {"output": "File of the picture; by default learning_rate.png in output_dir."},
    "baseline": {"folds": "Score on every fold; by default on the test areas configured."},
    "speed": {
        "seconds": "Seconds to train with each setting; 6 by default.",
        "limit": "Most seconds that a setting may take to start; 120 by default.",
    },
    "verify-resume": {"batches": "Batches in an epoch; 4 by default."},
}
# the commands that no snapshot gives a configuration to
_NEED_KEYS: Final = frozenset(
    {"fit", "plan", "verify-resume", "cross-validate", "tune", "find-lr", "baseline", "speed"}
)
# the commands that make all runs of a file of LIS2's pipeline
_FOR_ALL: Final = frozenset({"cross-validate", "tune"})
# the switches that a command has besides --json and --print_config
OWN_SWITCHES: Final[Mapping[str, Mapping[str, str]]] = {
    "predict": {"overwrite": "Replace a map that exists."},
    "cross-validate": {"collect": "Train nothing: gather what the folds have left."},
    "tune": {
        "grid": "Try each combination of the lists in turn.",
        "no_pruning": "Train every trial to its end.",
    },
    "speed": {"try_compile": "Try compile: true, too, whose first batch takes minutes."},
}


def run(words: Sequence[str]) -> int:
    """Run a command, and return its exit code.

    Raises:
        Lis2Error: The command or one of its arguments is wrong, or as the command does.
        SystemExit: Help, the version or the configuration was asked for.
    """
    first = words[0] if words else ""
    if first in TOOLS:
        return _run_tool(first, list(words[1:]))
    if first in {"-h", "--help", "--version"}:
        _overview().parse_args([first])
    if first in TRAINER_COMMANDS:
        return _run_configured(first, words[1:])
    names = [*TRAINER_COMMANDS, *TOOLS]
    if not first or first.startswith("-"):
        raise ConfigError(
            f"the first argument must be a command: {', '.join(names)}; see lis2 --help"
        )
    raise ConfigError(f"unknown command {first!r}: {did_you_mean(first, names)}")


def _overview() -> PlainParser:
    parser = PlainParser(
        "lis2", description=_ABOUT, epilog=_EPILOG, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"lis2 {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, text in summaries().items():
        commands.add_parser(name, help=text)
    return parser


def summaries() -> dict[str, str]:
    """What each command does, in one line."""
    tools = {name: str(tool.__doc__).partition("\n")[0] for name, tool in TOOLS.items()}
    return {**TRAINER_COMMANDS, **tools}


def _run_configured(name: str, words: Sequence[str]) -> int:
    """Read the words, of which wrong ones need no torch to be refused, and run a command."""
    own_keys, own_switches = OWN_KEYS[name], OWN_SWITCHES.get(name, {})
    config, switches = read_arguments(
        words,
        command=name,
        keys=[*manual.keys(), DATA, *own_keys],
        own_switches=own_switches,
        is_for_all=name in _FOR_ALL,
    )
    if (text := _help(name, switches)) is not None:
        sys.stdout.write(text)
        raise SystemExit(0)
    is_shown = any(switch == "--print_config" or switch.endswith(HELP) for switch in switches)
    is_read = any(word.partition("=")[0] in {"-c", "--config"} for word in words)
    missing = [key for key in ("model", "train_dataset") if key not in config]
    if missing and name in _NEED_KEYS and not is_read and not is_shown:
        raise ConfigError(
            f"{' and '.join(missing)} must be set: name a file with --config; lis2 init writes one"
        )
    with bringing_torch():
        from lis2_lightning.cli import trainer_cli  # noqa: PLC0415 - slow to import

    return trainer_cli.run(name, config, switches)


def _help(name: str, switches: Mapping[str, str]) -> str | None:
    """The help that was asked for, of the command or of a key; null for that of a class."""
    for switch, value in switches.items():
        if switch in {"-h", "--help"}:
            own = (OWN_KEYS[name], OWN_SWITCHES.get(name, {}))
            about = TRAINER_COMMANDS[name]
            return manual.key_help(value) if value else manual.command_help(name, about, *own)
        if switch.endswith(HELP) and not value:
            return manual.key_help(switch.removeprefix("--").removesuffix(HELP))
    return None


def _run_tool(name: str, words: list[str]) -> int:
    """Run a tool, whose flags are its function's signature and docstring."""
    description = summaries()[name]
    parser = ArgumentParser(
        prog=f"lis2 {name}", description=description, exit_on_error=False, allow_abbrev=False
    )
    several = SEVERAL.get(name, {})
    parser.add_function_arguments(TOOLS[name], as_positional=True, skip=set(several))
    for key, text in several.items():
        parser.add_argument(key, type=Path, nargs="+", metavar=key.upper(), help=text)
    parser.add_argument("--json", action="store_true", help="Print the result as one line of JSON.")
    try:
        arguments: dict[str, Any] = vars(parser.parse_args(words))
    except ArgumentError as error:
        text = _CHOICE.sub(r"\1 must be one of \2, got \3", one_line(error))
        raise ConfigError(f"{name}: {text}; see lis2 {name} --help") from error
    as_json = arguments.pop("json")
    answer = TOOLS[name](**arguments)
    sys.stderr.flush()
    return print_answer(answer, as_json=as_json)
