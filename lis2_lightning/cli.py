"""``lis2 fit | validate | test | predict``: Lightning's command line over the facade's keys."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from jsonargparse import ArgumentError, Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lis2_lightning import __version__
from lis2_lightning.config import CHECKPOINT, Schema, spell_arguments
from lis2_lightning.config.messages import sentence
from lis2_lightning.errors import ConfigError
from lis2_lightning.trainer import Trainer

_log = logging.getLogger("lis2_lightning")
_SCHEMA = Schema(Trainer)


class Parser(LightningArgumentParser):
    """Lightning's parser, which also reads LIS2's spelling of components."""

    def parse_args(self, args: Any = None, *rest: Any, **options: Any) -> Any:
        """Parse a command line.

        Raises:
            ConfigError: A key, a name or a value is wrong.
        """
        words = spell_arguments(sys.argv[1:] if args is None else args, _SCHEMA.expanded)
        try:
            return super().parse_args(words, *rest, **options)
        except ArgumentError as error:
            raise ConfigError(sentence(str(error), [f"--{k}" for k in _SCHEMA.keys])) from error


class Lis2CLI(LightningCLI):
    """Lightning's command line, which builds the facade and runs it.

    The documented keys stand at the root, every argument of the Lightning trainer under
    ``lightning``. The subcommands are Lightning's; each calls the facade's method of its name.
    """

    def __init__(self, args: list[str] | None = None) -> None:
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
                **{name: dict(options) for name in self.subcommands()},
            },
            args=args,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

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

    def _set_seed(self) -> None:
        """Leave seeding to the facade."""

    def _parse_ckpt_path(self) -> None:
        """Read no hyperparameters from a snapshot: what is typed beats what a file says."""

    def instantiate_classes(self) -> None:
        """Build the facade from the parsed keys."""
        subcommand = str(self.subcommand)
        parsed: Namespace = self.config[subcommand]
        self.config_init = self.config
        given = _SCHEMA.resolved(self._parser(subcommand), parsed)
        if subcommand == "fit":
            given[CHECKPOINT] = parsed.get(CHECKPOINT)
        self.facade = Trainer.from_config(given)
        self.model, self.datamodule = self.facade.module, self.facade.data
        self.trainer = self.facade.lightning

    @property
    def _ckpt_path(self) -> str:
        return self.config[str(self.subcommand)].get(CHECKPOINT) or "best"

    def fit(self, **_: Any) -> None:
        """Train, score the best snapshot and leave every file."""
        self.facade.train()

    def validate(self, **_: Any) -> None:
        """Measure on the validation set."""
        _tell(self.facade.validate(self._ckpt_path))

    def test(self, **_: Any) -> None:
        """Measure on the test set."""
        _tell(self.facade.test(self._ckpt_path))

    def predict(self, **_: Any) -> None:
        """Map the whole image."""
        self.facade.predict(self._ckpt_path)


def _tell(scores: Mapping[str, float]) -> None:
    width = max(map(len, scores)) + 2
    for name, value in scores.items():
        sys.stdout.write(f"{name:<{width}}{value:.6f}\n")
