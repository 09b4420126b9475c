"""The commands that take a configuration: Lightning's command line over the facade's keys."""

from __future__ import annotations

import logging
import sys
from argparse import SUPPRESS, Action
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl
from jsonargparse import ArgumentError, Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lis2_lightning import __version__
from lis2_lightning.assembly.lightning_config import lightning_yaml
from lis2_lightning.base.files import atomic
from lis2_lightning.cli.answer import Answer, tell
from lis2_lightning.cli.commands import RUNS
from lis2_lightning.config import CHECKPOINT, Schema, describe, spell_arguments
from lis2_lightning.config.messages import sentence
from lis2_lightning.errors import ConfigError
from lis2_lightning.evaluation.verify_resume import verify_resume
from lis2_lightning.metrics import default_metrics
from lis2_lightning.parallel import is_main
from lis2_lightning.parallel.output import only_main_speaks
from lis2_lightning.snapshots.compare import Difference, render_differences
from lis2_lightning.trainer import Trainer

_JSON: Final = "--json"
_log = logging.getLogger("lis2_lightning")
_SCHEMA = Schema(Trainer)


def _usual(key: str) -> list[Any]:
    """What a list holds where no file sets it, so that ``+=`` adds to it."""
    return [{"class_path": describe(m)["object"]} for m in default_metrics()] * (key == "metrics")


class Parser(LightningArgumentParser):
    """Lightning's parser, which also reads LIS2's spelling of components."""

    def parse_args(self, args: Any = None, *rest: Any, **options: Any) -> Any:
        """Parse a command line.

        Raises:
            ConfigError: A key, a name or a value is wrong.
        """
        words = spell_arguments(
            sys.argv[1:] if args is None else args,
            _SCHEMA.expanded,
            keys=_SCHEMA.keys,
            usual=_usual,
        )
        try:
            return super().parse_args(words, *rest, **options)
        except ArgumentError as error:
            flags = [key for key in self._option_string_actions if key.startswith("--")]
            raise ConfigError(sentence(str(error), flags)) from error


class _Flag(Action):
    """A flag that is read elsewhere; it is here for the help and for completion."""

    def __init__(self, option_strings: Sequence[str], **options: Any) -> None:
        options.update(dest=SUPPRESS, default=SUPPRESS, nargs=0)
        super().__init__(option_strings, **options)

    def __call__(self, *_: Any, **__: Any) -> None:
        """Do nothing."""


class Lis2CLI(LightningCLI):
    """Lightning's command line, which builds the facade and runs it.

    The documented keys stand at the root, every argument of the Lightning trainer under
    ``lightning``. Only the parser of the command that was typed is built, for each takes time.

    Args:
        args: The words of the command line; those of the process by default.
    """

    def __init__(self, args: list[str] | None = None) -> None:
        only_main_speaks()  # parsing imports a user's modules
        words = sys.argv[1:] if args is None else args
        self.exit_code = 0
        self.as_json = _JSON in words
        self._wanted = [name for name in RUNS if name in words]
        options = {"exit_on_error": False}
        super().__init__(
            pl.LightningModule,
            save_config_callback=None,
            seed_everything_default=False,
            parser_class=Parser,
            parser_kwargs={
                **options,
                "prog": "lis2",
                "description": "Train segmentation networks on one large, partly labelled image",
                "version": __version__,
            },
            args=[word for word in words if word != _JSON],
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def _add_subcommands(self, parser: LightningArgumentParser, **_: Any) -> None:
        self._subcommand_parsers: dict[str, LightningArgumentParser] = {}
        commands = parser.add_subcommands()
        for name in self._wanted or RUNS:
            one = self._command_parser(name)
            self._subcommand_parsers[name] = one
            commands.add_subcommand(name, one, help=RUNS[name])

    def _command_parser(self, name: str) -> LightningArgumentParser:
        options: dict[str, Any] = {"exit_on_error": False, "description": RUNS[name]}
        if name in self.subcommands():
            parser = self._prepare_subcommand_parser(pl.Trainer, name, **options)
        else:
            parser = self.init_parser(**options)
            self._add_arguments(parser)
        if name == "plan":
            parser.add_argument(
                "--lightning_yaml",
                type=Path | None,
                default=None,
                help="File to write: the equal configuration for a bare LightningCLI.",
            )
        if name == "verify-resume":
            parser.add_argument("--batches", type=int, default=4, help="Batches of an epoch.")
        parser.add_argument(
            _JSON, action=_Flag, help="Print the result as one line of JSON on the standard output."
        )
        return parser

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's subcommands, and which arguments of its methods have no flag here."""
        skipped = {"weights_only", "verbose", "return_predictions"}
        return {name: skip | skipped for name, skip in LightningCLI.subcommands().items()}

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add nothing: ``seed`` is a documented key."""

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the documented keys, and Lightning's under ``lightning``."""
        _SCHEMA.add_arguments(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the words; Lightning would warn that they are given and typed, too."""
        self.config = parser.parse_args(args)

    def _set_seed(self) -> None:
        """Leave seeding to the facade."""

    def _parse_ckpt_path(self) -> None:
        """Read no hyperparameters from a snapshot: what is typed beats what a file says."""

    def instantiate_classes(self) -> None:
        """Build the facade from the parsed keys."""
        command = str(self.subcommand)
        parsed: Namespace = self.config[command]
        self.given = _SCHEMA.resolved(self._parser(command), parsed)
        if command == "fit":
            self.given[CHECKPOINT] = parsed.get(CHECKPOINT)
        if command != "verify-resume":
            self.facade = Trainer.from_config(self.given)

    def _run_subcommand(self, subcommand: str) -> None:
        answer = getattr(self, subcommand.replace("-", "_"))()
        # every process has come to the same answer
        self.exit_code = tell(answer, as_json=self.as_json) if is_main() else answer.code

    def _typed(self, key: str) -> Any:
        return self.config[str(self.subcommand)].get(key)

    @property
    def _ckpt_path(self) -> str:
        return self._typed(CHECKPOINT) or "best"

    def fit(self) -> Answer:
        """Train, score the best snapshot and leave every file."""
        return Answer("", self.facade.train())

    def validate(self) -> Answer:
        """Measure on the validation set."""
        return _table(self.facade.validate(self._ckpt_path))

    def test(self) -> Answer:
        """Measure on the test set."""
        return _table(self.facade.test(self._ckpt_path))

    def predict(self) -> Answer:
        """Map the whole image."""
        maps = self.facade.predict(self._ckpt_path)
        shapes = [list(each.shape) for each in maps]
        return Answer("", {"output_dir": self.given["output_dir"], "shapes": shapes})

    def plan(self) -> Answer:
        """Tell what each key becomes, and write the equal configuration where one is asked for."""
        told = self.facade.planned()
        _ = self.facade.lightning  # what fit would refuse is refused here
        if is_main() and (path := self._typed("lightning_yaml")):
            with atomic(path) as file:
                file.write(lightning_yaml(self.facade.global_config).encode())
            _log.info("%s is written", path)
        return _table(told)

    def verify_resume(self) -> Answer:
        """Try whether an interrupted run ends as an uninterrupted one does."""
        return verdict(verify_resume(self.given, batches=self._typed("batches")))


def verdict(found: Sequence[Difference]) -> Answer:
    """What to tell of a trial: the first difference and where to look, or that there is none.

    Args:
        found: What :func:`verify_resume` gives.
    """
    if not found:
        told = "no difference: a run that is interrupted goes on exactly"
        return Answer(told, {"exact": True, "differences": []})
    told = (
        f"{render_differences(found[:1])}\n{len(found)} places differ: look for random numbers "
        "from a generator of the data set's own, and for kernels that are not deterministic "
        "(lightning.deterministic: true)"
    )
    return Answer(told, {"exact": False, "differences": [asdict(each) for each in found]}, 1)


def _table(values: Mapping[str, Any]) -> Answer:
    width = max(map(len, values)) + 2
    lines = (f"{name:<{width}}{_value(value)}" for name, value in values.items())
    return Answer("\n".join(lines), dict(values))


def _value(value: Any) -> str:
    return f"{value:.6f}" if isinstance(value, float) else str(value)
