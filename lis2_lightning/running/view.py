"""What a trainer shows of itself; nothing of it can be assigned to."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sized
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lis2_lightning.assembly import plan
from lis2_lightning.assembly.assemble import Assembly
from lis2_lightning.assembly.settings import Settings
from lis2_lightning.base.display import Displayed, network_text
from lis2_lightning.base.files import shown
from lis2_lightning.base.tables import table
from lis2_lightning.data import AnyDataset, SegmentationData
from lis2_lightning.errors import ConfigError
from lis2_lightning.running.resume import check_files
from lis2_lightning.snapshots import Snapshot
from lis2_lightning.training.module import SegmentationModule


class GlobalConfig(dict[str, Any]):
    """The resolved configuration: every key, plain values, no passwords; it loads back as it is."""

    def to_dict(self) -> dict[str, Any]:
        """A plain copy (LIS2's name for it)."""
        return dict(self)


class _Printed(str):
    """A text that was printed: a cell that ends with it does not show it again."""

    __slots__ = ()

    def _ipython_display_(self) -> None:
        """Show nothing."""


class TrainerView(Displayed):
    """The read-only attributes of a trainer, and its plan."""

    _settings: Settings
    _result: dict[str, Any]
    _origin: Snapshot | None  # what the trainer was built from, until it trains

    @cached_property
    def _built(self) -> Assembly:
        raise NotImplementedError

    @cached_property
    def global_config(self) -> GlobalConfig:
        """Every key with its value, plain; it loads back as it is."""
        raise NotImplementedError

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse an assignment that would have no effect.

        Raises:
            ConfigError: The attribute shows what the trainer was built with.
        """
        attribute = getattr(type(self), name, None)
        if isinstance(attribute, property) and attribute.fset is None:
            raise ConfigError(
                f"assigning to {name} of a trainer has no effect, for the trainer is built: pass "
                "the value to Trainer, from_config or from_snapshot instead"
            )
        super().__setattr__(name, value)

    def facts(self) -> dict[str, Any]:
        """What is trained on what, and how far it is; nothing is built or opened for it."""
        settings = self._settings
        sets = {"train": self.train_dataset, "val": self.val_dataset, "test": self.test_dataset}
        has_begun = self._result or self._origin or "_built" in self.__dict__
        return {
            "run folder": shown(settings.run_dir),
            "model": network_text(self.model),
            "samples": ", ".join(
                f"{name} {len(cast('Sized', dataset)):,}"
                for name, dataset in sets.items()
                if dataset is not None
            ),
            "epochs": f"{self.epochs_run if has_begun else 0} of {self.epochs}",
            f"best {settings.monitor}": f"{self.best_loss:.6g}" if has_begun else None,
        }

    @property
    def output_dir(self) -> str:
        """The folder of all runs, as it was passed."""
        return str(self._settings.output_dir)

    @property
    def run_name(self) -> str:
        """The name of the run and of its folder."""
        return self._settings.run_name

    @property
    def epochs(self) -> int:
        """How many epochs to train."""
        return self._settings.epochs

    @property
    def batch_size(self) -> int:
        """Samples in a batch of one process."""
        return self._settings.batch_size

    @property
    def lightning_arguments(self) -> Mapping[str, Any]:
        """What the key ``lightning`` holds for Lightning's trainer, components as objects."""
        return self._settings.lightning

    @property
    def device(self) -> torch.device:
        """The device that this process computes on."""
        return self.lightning.strategy.root_device

    @property
    def train_dataset(self) -> AnyDataset:
        """What is trained on."""
        return self._settings.train_dataset

    @property
    def val_dataset(self) -> AnyDataset | None:
        """What is validated on, or null."""
        return self._settings.val_dataset

    @property
    def test_dataset(self) -> AnyDataset | None:
        """What is tested on; null where that is the validation set."""
        return self._settings.test_dataset

    @property
    def module(self) -> SegmentationModule:
        """The ``LightningModule``."""
        return self._built.module

    @property
    def data(self) -> SegmentationData:
        """The ``LightningDataModule``."""
        return self._built.data

    @property
    def lightning(self) -> pl.Trainer:
        """The Lightning trainer."""
        return self._built.lightning

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self._settings.model

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer; null before training."""
        return next(iter(self.lightning.optimizers), None)

    @property
    def scheduler(self) -> LRScheduler | None:
        """The scheduler; null before training, or where there is none."""
        configs = self.lightning.lr_scheduler_configs if self.lightning.optimizers else []
        return next((config.scheduler for config in configs), None)

    @property
    def early_stopper(self) -> EarlyStopping | None:
        """The early stopping callback, or null."""
        return self._built.early_stopper

    @property
    def tracker(self) -> list[Logger]:
        """Every logger; the first writes ``logs_train.csv``."""
        return self.lightning.loggers

    @property
    def epochs_run(self) -> int:
        """How many epochs are done; of a trainer built from a snapshot, how many that has had."""
        done = self._built.log.epochs_run if self._origin is None else self._origin.next_epoch
        return int(self._result.get("epochs_run", done))

    @property
    def best_loss(self) -> float:
        """The best monitored value so far; infinite before the first epoch."""
        best = self._built.best.best_loss if self._origin is None else self._origin.best_loss
        return float(self._result.get("best_loss", best))

    def plan(self) -> str:
        """Print and return which Lightning object, with which arguments, each key became."""
        text = table(self.planned())
        sys.stdout.write(f"{text}\n")
        return _Printed(text)

    def planned(self) -> dict[str, str]:
        """What :meth:`plan` prints: for each key, what it became."""
        check_files(self._settings)
        return plan.planned(self._settings, self.global_config)

    def _start_anew(self, resume: bool | str) -> None:  # noqa: FBT001 - the documented key
        """Build everything again: what an interrupted loop has left is of no use to another."""
        self._settings = replace(self._settings, resume=resume)
        self.__dict__.pop("_built", None)

    @property
    def _named(self) -> dict[str, Path]:
        named = self._settings.named
        return {**named, "auto": self._origin.path if self._origin else named["best"]}

    @property
    def _best_or_none(self) -> str | None:
        return "auto" if self._named["auto"].is_file() else None
