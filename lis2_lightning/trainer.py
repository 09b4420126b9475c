"""The facade: LIS2's ``Trainer``, which Lightning runs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import lightning.pytorch as pl
import torch
from jsonargparse import lazy_instance  # type: ignore[attr-defined]  # public, and not in __all__
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from lis2_lightning.assembly import assemble, plan
from lis2_lightning.assembly.settings import Settings
from lis2_lightning.base.tables import table
from lis2_lightning.callbacks.run_folder import is_trial, make_folder
from lis2_lightning.config import CHECKPOINT, Schema, load_config, merge
from lis2_lightning.config.trusted import trusted
from lis2_lightning.data import AnyDataset, SegmentationData
from lis2_lightning.errors import ConfigError
from lis2_lightning.inference import Map
from lis2_lightning.report import run_pictures
from lis2_lightning.running import around_loop, results, resume
from lis2_lightning.snapshots import Snapshot, peek
from lis2_lightning.trackers import Tracker
from lis2_lightning.training.module import OptimizerCallable, SchedulerCallable, SegmentationModule

# what shows the default in --help and in a resolved configuration; it is no loss yet
DEFAULT_LOSS: nn.Module = lazy_instance(nn.BCELoss)


class GlobalConfig(dict[str, Any]):
    """The resolved configuration: every key, plain values; it loads back as it is."""

    def to_dict(self) -> dict[str, Any]:
        """A plain copy (LIS2's name for it)."""
        return dict(self)


class Trainer:
    """Trains a segmentation network on one large, partly labelled image.

    Everything is written below ``output_dir/run_name``. Components may be objects, or come from
    a configuration: see :meth:`from_config`.

    Args:
        output_dir: Folder of all runs.
        run_name: Name of this run and of its folder.
        model: The network. It is called with the batch keys that its ``forward`` names, or with
            ``patch`` alone where it names none.
        train_dataset: What is trained on: a map-style data set of mappings with ``patch``,
            ``target`` and optionally ``labelled``, each (C, H, W).
        val_dataset: What is validated on after each epoch; without it no validation runs.
        test_dataset: What the best snapshot is scored on; without it, ``val_dataset``.
        optimizer: Builds the optimizer from parameters; Adam by default.
        scheduler: Builds the learning rate scheduler from an optimizer.
        scheduler_interval: Whether the scheduler steps after each epoch or each optimizer step.
        loss: A loss of torch.nn or of this package, BCELoss by default; only labelled pixels count.
        early_stopper: True stops after 10 epochs without a lower validation loss; or an object.
        batch_size: Samples in a batch of one process.
        num_workers: Worker processes for data, or auto.
        epochs: How many epochs to train.
        save_interval: Write save_{epoch}.pt where epoch % save_interval == 0 and epoch > 0,
            counted from 0; 0 for never.
        save_last: Write last.pt after every epoch.
        save_every_n_steps: Write last.pt inside an epoch every so many steps.
        save_every_minutes: Write last.pt inside an epoch every so many minutes.
        monitor: The logged value that best.pt follows.
        mode: Whether the best value is the smallest or the largest.
        resume: False starts a new run and refuses a folder that holds one; auto resumes from the
            newest whole snapshot of this run, or starts a new one where there is none; or a path.
        compile: Run the network through torch.compile.
        trackers: Where numbers go besides logs_train.csv, which is always written.
        metrics: What is measured; average precision, Dice and ROC AUC where it is null.
        seed: Seeds order, augmentation, dropout, and the weights of a network that a configuration
            builds; null for another one each run.
        lightning: Any argument of the Lightning Trainer: accelerator, devices, precision,
            accumulate_grad_batches, gradient_clip_val, callbacks and so on.
    """

    def __init__(
        self,
        output_dir: str | Path = "runs",
        run_name: str = "run",
        *,
        model: nn.Module,
        train_dataset: AnyDataset,
        val_dataset: AnyDataset | None = None,
        test_dataset: AnyDataset | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.Adam(params, lr=1e-3),
        scheduler: SchedulerCallable | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        loss: nn.Module = DEFAULT_LOSS,
        early_stopper: bool | EarlyStopping | None = None,
        batch_size: int = 256,
        num_workers: int | Literal["auto"] = "auto",
        epochs: int = 100,
        save_interval: int = 10,
        save_last: bool = False,
        save_every_n_steps: int | None = None,
        save_every_minutes: float | None = None,
        monitor: str = "train_loss",
        mode: Literal["min", "max"] = "min",
        resume: bool | str = False,
        compile: bool = False,  # noqa: A002 - the documented key
        trackers: list[Tracker | Logger] | None = None,
        metrics: list[Metric] | None = None,
        seed: int | None = None,
        lightning: Mapping[str, Any] | None = None,
    ) -> None:
        arguments = {key: value for key, value in locals().items() if key != "self"}
        self.config: dict[str, Any] = Schema(type(self)).described(arguments)
        if loss is DEFAULT_LOSS:
            arguments["loss"] = nn.BCELoss()
        arguments |= {"trackers": trackers or [], "lightning": lightning or {}}
        self._settings = Settings(**arguments)
        around_loop.speak()
        self._result: dict[str, Any] = {}
        self._test_scores: dict[str, float] = {}

    @classmethod
    def from_config(
        cls, source: str | os.PathLike[str] | Mapping[str, Any], **overrides: Any
    ) -> Self:
        """Build a trainer from a YAML file or a mapping.

        Args:
            source: A path or a mapping, with components in LIS2's spelling
                (``{type: AdamW, lr: 0.01}``) or jsonargparse's (``{class_path: …}``).
            overrides: Keys that win over it; values may be objects. Use
                ``**{"optimizer.lr": 0.01}`` to reach inside a component.

        Raises:
            ConfigError: A key, a name or a value is wrong.
            DataError: A data set cannot be built.
        """
        around_loop.speak()
        config = merge(load_config(source), overrides)
        if checkpoint := config.pop(CHECKPOINT, None):
            config["resume"] = checkpoint
        parsed = Schema(cls).parse(config)
        around_loop.seed(parsed.config["seed"])
        trainer = cls(**parsed.build())
        trainer.config = config
        trainer.global_config = GlobalConfig(parsed.config)
        return trainer

    @classmethod
    def from_snapshot(cls, path: str | os.PathLike[str], **overrides: Any) -> Self:
        """Build the trainer that wrote a snapshot; its ``train`` continues after that epoch.

        Args:
            path: A snapshot.
            overrides: Keys that win over the snapshot's. A component that was passed as an object
                when the snapshot was written must be passed again.

        Raises:
            SnapshotError: The file is missing, damaged or no snapshot.
            ConfigError: As for :meth:`from_config`, or the snapshot names code it may not import.
        """
        config = peek(path).config
        with trusted(config, source=str(path), overrides=overrides):
            return cls.from_config(config, **{"resume": str(path), **overrides})

    def train(self) -> dict[str, Any]:
        """Fit, then score the best snapshot on the test set.

        A run that is over is not trained again: its stored result is returned.

        Returns:
            What :meth:`get_final_info` returns.

        Raises:
            ConfigError: The run folder cannot be written, is used by another run, or holds a run
                and ``resume`` is false.
            DataError: A batch does not fit the network, or the network's output the target.
            TrainingError: The loss is NaN or infinite.
            KeyboardInterrupt: Ctrl-C ended the run, after ``last.pt`` was written.
            SystemExit: SIGTERM or SIGUSR1 ended it, likewise.
        """
        self._result = self._result or results.stored(self._settings)
        if self._result:
            return self.get_final_info()
        around_loop.check(self._settings, self.module, self.data)
        if (path := self._settings.resume) not in {True, False, "auto"}:
            resume.snapshot_path(str(path), self._named)  # refused before a folder is made
        with around_loop.folder(self._settings, self.lightning), self._built.tracking:
            return self._train()

    def _train(self) -> dict[str, Any]:
        checkpoint = resume.starting_point(self._settings, self.global_config, self._named)
        begun = time.perf_counter()
        self.fit(checkpoint)
        if is_trial(self.lightning):
            return self.get_final_info()  # a trial of the loops: nothing is kept
        self.run_final_evaluation()
        results.remove_temporary(self._settings, self._built)
        self._result = self.get_final_info()
        results.store(self._settings, self._built, self._result, time.perf_counter() - begun)
        if self.lightning.is_global_zero:
            run_pictures.draw_log(self._settings.run_dir)
        if run_pictures.is_drawn(self.data.predict):
            maps = self.predict(self._best_or_none)
            run_pictures.draw_map(self.data.predict, maps, self._settings.run_dir)
        return self.get_final_info()

    def fit(self, checkpoint: Path | Snapshot | None = None) -> None:
        """Run Lightning's training loop alone, from a snapshot or from the beginning.

        No evaluation follows, and no result is stored. It raises as :meth:`train` does.
        """
        self._run("fit", checkpoint)

    def validate(self, ckpt_path: str | os.PathLike[str] | None = "best") -> dict[str, float]:
        """Measure loss and metrics on the validation set.

        Args:
            ckpt_path: ``best``, ``last`` or a snapshot; null for the weights the model has.

        Returns:
            ``val_loss`` and ``val_<metric>``.

        Raises:
            ConfigError: There is no validation set.
            SnapshotError: The snapshot is missing, damaged, or of another network.
        """
        if self.data.val is None:
            raise ConfigError("there is nothing to validate on: set val_dataset")
        self._run("validate", ckpt_path, verbose=False)
        return around_loop.logged(self.lightning, "val_")

    def test(self, ckpt_path: str | os.PathLike[str] | None = "best") -> dict[str, float]:
        """Measure loss and metrics on the test set, and write ``test_results.csv``.

        Args:
            ckpt_path: As for :meth:`validate`.

        Returns:
            ``test_loss`` and ``test_<metric>``.

        Raises:
            ConfigError: There is neither a test nor a validation set.
            SnapshotError: As for :meth:`validate`.
        """
        if self.data.test is None:
            raise ConfigError("there is nothing to test on: set test_dataset or val_dataset")
        self._run("test", ckpt_path, verbose=False)
        return around_loop.logged(self.lightning, "test_")

    def predict(self, ckpt_path: str | os.PathLike[str] | None = "best") -> list[Map]:
        """Map the whole image, and write ``prediction.fits`` or ``prediction.npy``.

        The image is that of the test set, or of the validation or training set where there is
        none. Data sets that cut no image give a map for each sample.

        Args:
            ckpt_path: As for :meth:`validate`.

        Returns:
            Probabilities in [0, 1], ``(C, H, W)`` each.

        Raises:
            SnapshotError: As for :meth:`validate`.
        """
        self._run("predict", ckpt_path, return_predictions=False)
        maps = self._built.segmenter.maps
        if self.lightning.is_global_zero:
            results.write_prediction(maps, self.data.predict, self._settings.run_dir)
        return maps

    def run_final_evaluation(self, csv_path: str = results.TEST) -> dict[str, float]:
        """Score the best snapshot as :meth:`test` does, or return nothing without a test set.

        The CSV file is below the run's folder unless ``csv_path`` is absolute.
        """
        if self.data.test is None:
            return {}
        self._built.test_results.path = self._settings.run_dir / csv_path
        try:
            self._test_scores = self.test(self._best_or_none)
        finally:
            self._built.test_results.path = self._settings.run_dir / results.TEST
        return self._test_scores

    def get_final_info(self) -> dict[str, Any]:
        """The run's results as plain Python values.

        These are ``best_loss``, ``epochs_run``, ``run_name``, ``output_dir``, ``final_model_path``
        and ``last_model_path`` (null where not written), ``metrics_train`` and ``metrics_val`` of
        the last epoch, and ``metrics_test`` of the best snapshot.
        """
        if self._result:
            return dict(self._result)
        return results.final_info(self._settings, self._built, self._test_scores)

    def plan(self) -> str:
        """Print and return which Lightning object, with which arguments, each key became."""
        text = table(self.planned())
        sys.stdout.write(f"{text}\n")
        return text

    def planned(self) -> dict[str, str]:
        """What :meth:`plan` prints: for each key, what it became."""
        return plan.planned(self._settings, self.global_config)

    @cached_property
    def global_config(self) -> GlobalConfig:
        """Every key with its value, plain; it loads back as it is."""
        return GlobalConfig({**Schema(type(self)).defaults(), **self.config})

    @cached_property
    def _built(self) -> assemble.Assembly:
        with around_loop.quiet():
            seed = resume.seed_of(self._settings)
            return assemble.assemble(self._settings, self.global_config, seed=seed)

    def _run(self, name: str, checkpoint: Any, **options: Any) -> None:
        """Run one of Lightning's loops, with the weights of a snapshot."""
        if checkpoint is not None and name != "fit":
            checkpoint = resume.snapshot_path(checkpoint, self._named)
        if name in {"test", "predict"}:
            make_folder(self._settings.run_dir)
        run = getattr(self.lightning, name)
        with around_loop.loop(self._built.signals, self.lightning):
            run(
                self.module,
                datamodule=self.data,
                ckpt_path=checkpoint,  # Lightning takes whatever can be used as a path
                weights_only=True,
                **options,
            )

    @property
    def _named(self) -> dict[str, Path]:
        return {name: self._settings.run_dir / f"{name}.pt" for name in ("best", "last")}

    @property
    def _best_or_none(self) -> str | None:
        return "best" if self._named["best"].is_file() else None

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
        """How many epochs are done."""
        return int(self._result.get("epochs_run", self._built.log.epochs_run))

    @property
    def best_loss(self) -> float:
        """The best monitored value so far; infinite before the first epoch."""
        return float(self._result.get("best_loss", self._built.best.best_loss))
