"""The facade: LIS2's ``Trainer``, which Lightning runs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, Self

import torch
from jsonargparse import lazy_instance  # type: ignore[attr-defined]  # public, and not in __all__
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger
from torch import nn
from torchmetrics import Metric

from lis2_lightning.assembly import assemble
from lis2_lightning.assembly.settings import Settings
from lis2_lightning.base.redaction import without_secrets
from lis2_lightning.callbacks.run_folder import is_trial, make_folder
from lis2_lightning.config import CHECKPOINT, Schema, load_config, merge
from lis2_lightning.config.trusted import trusted
from lis2_lightning.data import AnyDataset, BalancedSampler
from lis2_lightning.data.open_raster import Source
from lis2_lightning.errors import ConfigError
from lis2_lightning.inference import Map, MapRequest, for_image
from lis2_lightning.report import page, run_pictures
from lis2_lightning.running import around_loop, checks, mapping, results, resume, weights
from lis2_lightning.running.view import GlobalConfig, TrainerView
from lis2_lightning.snapshots import Snapshot, peek
from lis2_lightning.trackers import Tracker
from lis2_lightning.training.module import OptimizerCallable, SchedulerCallable

# what shows the default in --help and in a resolved configuration; it is no loss yet
DEFAULT_LOSS: nn.Module = lazy_instance(nn.BCELoss)


class Trainer(TrainerView):
    """Trains a segmentation network on one large, partly labelled image.

    Writes below ``output_dir/run_name``. Components are objects, or see :meth:`from_config`.

    Args:
        output_dir: Folder of all runs.
        run_name: Name of this run and of its folder.
        model: The network. Its ``forward`` gets the batch keys that it names, else ``patch``.
        train_dataset: What is trained on. A map-style data set of mappings with ``patch``,
            ``target`` and optionally ``labelled``, each (C, H, W).
        val_dataset: What is validated on after each epoch; without it no validation runs.
        test_dataset: What the best snapshot is scored on; without it, ``val_dataset``.
        sampler: Draws tiles with positive pixels in a given share.
        optimizer: Builds the optimizer from parameters; Adam by default.
        scheduler: Builds the learning rate scheduler from an optimizer.
        scheduler_interval: Whether the scheduler steps after each epoch or step.
        loss: A loss of torch.nn or of this package, BCELoss by default; only labelled pixels count.
        early_stopper: True stops after 10 epochs without a lower validation loss; or an object.
        batch_size: Samples in a batch of one process.
        num_workers: Worker processes for data, or auto.
        epochs: How many epochs to train.
        save_interval: Write save_{epoch}.pt every so many epochs after epoch 0; 0 for never.
        save_last: Write last.pt after every epoch.
        save_every_n_steps: Write last.pt inside an epoch every so many steps.
        save_every_minutes: Write last.pt inside an epoch every so many minutes.
        monitor: The logged value that best.pt follows.
        mode: Whether the best value is the smallest or the largest; by default the metric says.
        validate_on: map scores the stitched map too.
        resume: False starts a new run and refuses a folder that holds one; auto resumes from the
            newest whole snapshot, if any; or a path.
        weights: What a new run starts from: a snapshot, a state dict or a Lightning checkpoint.
        compile: Run the model through torch.compile.
        ema: Decay of a moving average of weights, such as 0.999.
        tta: Map turned and mirrored tiles, too. The map is the mean of the eight.
        channels_last: Keep a pixel's channels side by side in memory; lis2 speed measures it.
        trackers: Where numbers go besides logs_train.csv.
        metrics: What is measured; average precision, Dice and ROC AUC where it is null.
        report: Write report.html when training ends.
        seed: Seeds order, augmentation, dropout and first weights; null for another one each run.
        lightning: Any argument of the Lightning Trainer: devices, precision, callbacks and so on.
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
        sampler: BalancedSampler | None = None,
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
        mode: Literal["min", "max"] | None = None,
        validate_on: Literal["tiles", "map"] = "tiles",
        resume: bool | str = False,
        weights: str | Path | None = None,
        compile: bool = False,  # noqa: A002 - the documented key
        ema: float | None = None,
        tta: bool = False,
        channels_last: bool = False,
        trackers: list[Tracker | Logger] | None = None,
        metrics: list[Metric] | None = None,
        report: bool = True,
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
        self._origin: Snapshot | None = None
        self._has_run = False
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
        with around_loop.building(parsed.config):
            trainer = cls(**parsed.build())
        trainer.config = config
        trainer.global_config = GlobalConfig(without_secrets(parsed.config))
        return trainer

    @classmethod
    def from_snapshot(
        cls, path: str | os.PathLike[str], *, image: Source | None = None, **overrides: Any
    ) -> Self:
        """Build the trainer that wrote a snapshot, with its weights; ``train`` continues from it.

        ``validate``, ``test`` and ``predict`` use this snapshot until the trainer has trained.

        Args:
            path: A snapshot.
            image: Another image, a path or an array, which is all that this trainer is to map:
                nothing else that the snapshot names is opened.
            overrides: Keys that win over the snapshot's. A component that was passed as an object
                when the snapshot was written must be passed again.

        Raises:
            SnapshotError: The file is missing, damaged, no snapshot, or of another network.
            ConfigError: As for :meth:`from_config`, or the snapshot names code it may not import.
        """
        snapshot = peek(path)
        snapshot.path = snapshot.path.absolute()  # the program may change its folder
        config = snapshot.config
        if image is not None:
            config, overrides = for_image(config, image, source=str(path), overrides=overrides)
        with trusted(config, source=str(path), overrides=overrides):
            trainer = cls.from_config(config, **{"resume": str(path), **overrides})
        weights.restore(trainer.model, snapshot)
        trainer._origin = snapshot  # noqa: SLF001 - of this class
        return trainer

    def train(self, *, resume: bool | str | None = None) -> dict[str, Any]:
        """Fit, then score the best snapshot on the test set.

        A run that is over is not trained again: its stored result is returned. It goes on where
        ``epochs`` or the patience of ``early_stopper`` has been raised.

        Args:
            resume: In place of the key of this name: ``auto`` continues what was interrupted.

        Returns:
            What :meth:`get_final_info` returns.

        Raises:
            ConfigError: The run folder cannot be written, is used by another run, or holds one
                that this run does not continue.
            SnapshotError: The snapshot to resume from is missing, damaged, or of another network.
            DataError: A batch does not fit the network, or the network's output the target.
            TrainingError: The loss is NaN or infinite.
            TrainingStopped: Ctrl-C ended the run, after ``last.pt`` was written.
            SystemExit: SIGTERM or another signal ended it, likewise.
        """
        if resume is not None and not self._result:
            self._start_anew(resume)
        if self._result:
            results.say_again(self._settings, self._result)
        else:
            self._result = self._stored_result()
        if self._result:
            self._origin = None
            return self.get_final_info()
        self.check()
        with around_loop.folder(self._settings, self.lightning), self._built.tracking:
            return self._train()

    def _stored_result(self) -> dict[str, Any]:
        _ = self._built  # devices that cannot be used are refused first
        resume.check_folder(self._settings)
        return results.stored(self._settings, self.global_config)

    def check(self) -> None:
        """Try samples, metrics, monitored names and schedule, as :meth:`train` does first."""
        checks.check(self._settings, self._built)

    def _train(self) -> dict[str, Any]:
        start = resume.starting_point(self._settings, self.global_config)
        begun = time.perf_counter()
        self._run("fit", start)
        if is_trial(self.lightning):
            return self.get_final_info()  # a trial of the loops: nothing is kept
        self.run_final_evaluation()
        results.remove_temporary(self._settings, self._built)
        self._result, seconds = self.get_final_info(), time.perf_counter() - begun
        summary = results.store(self._settings, self._built, self._result, start, seconds)
        map_image = partial(self.predict, self._best_or_none, overwrite=True)
        unmapped = run_pictures.draw_run(self._settings, self._built, map_image)
        results.show_end(self._settings, self.global_config, self._result, summary, unmapped)
        return self.get_final_info()

    def fit(self, checkpoint: Path | Snapshot | None = None) -> None:
        """Run the training loop alone, from a snapshot or the start, without :meth:`check`."""
        if self.lightning.global_step == 0:
            snapshot = None if checkpoint is None else peek(checkpoint)
            resume.refuse_other_run(snapshot, self._settings.run_dir)
        self._run("fit", checkpoint)

    def validate(self, ckpt_path: str | os.PathLike[str] | None = "auto") -> dict[str, float]:
        """Measure loss and metrics on the validation set.

        Args:
            ckpt_path: ``best``, ``last`` or a snapshot; null for the weights the model has; auto
                for the snapshot of :meth:`from_snapshot` before training, else the best.

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

    def test(self, ckpt_path: str | os.PathLike[str] | None = "auto") -> dict[str, float]:
        """Measure loss and metrics on the test set, and write ``test_results.csv``.

        Args:
            ckpt_path: As for :meth:`validate`.

        Returns:
            ``test_loss`` and ``test_<metric>``.

        Raises:
            ConfigError: There is neither a test nor a validation set, or another run than that of
                the trainer's snapshot has taken the folder.
            SnapshotError: As for :meth:`validate`.
        """
        if self.data.test is None:
            raise ConfigError("there is nothing to test on: set test_dataset or val_dataset")
        if self._origin is not None:
            resume.refuse_other_run(self._origin, self._settings.run_dir)
        self._run("test", ckpt_path, verbose=False)
        return around_loop.logged(self.lightning, "test_")

    def predict(
        self,
        ckpt_path: str | os.PathLike[str] | None = "auto",
        *,
        image: Source | None = None,
        output: str | os.PathLike[str] | None = None,
        mask: str | os.PathLike[str] | None = None,
        threshold: float | Literal["auto"] = "auto",
        stride: int | None = None,
        dtype: Literal["float32", "uint8"] = "float32",
        overwrite: bool = False,
    ) -> list[Map]:
        """Map a whole image; a prediction into a file that was killed goes on when it is repeated.

        Args:
            ckpt_path: As for :meth:`validate`.
            image: A path or an array, cut and normalised as in training; by default the image of
                the test, validation or training set, or each sample where that cuts no image.
            output: A file for the probabilities, in the format of its name; by default
                ``prediction`` in the run's folder, where there is none yet, and no file for
                another image.
            mask: A file for the mask: 1 from the threshold on, else 0, and 255 without data.
            threshold: In [0, 1]; auto for the one with the best Dice on the validation pixels.
            stride: Step from one tile to the next, px; that of the data set by default.
            dtype: What ``output`` holds: probabilities, or bytes from 0 to 254.
            overwrite: Replace files that exist.

        Returns:
            Probabilities in [0, 1], ``(C, H, W)`` each: arrays, or what reads ``output`` like one.

        Raises:
            ConfigError: A file cannot or must not be written, or there is no threshold.
            DataError: The image cannot be read, or does not fit the network.
            SnapshotError: As for :meth:`validate`.
        """
        how: Any = {"threshold": threshold, "stride": stride, "dtype": dtype, "image": image}
        request = MapRequest.of(output=output, mask=mask, overwrite=overwrite, **how)
        run = partial(self._run, "predict", ckpt_path, return_predictions=False)
        maps = mapping.predict(self._built, self._settings.run_dir, run, request)
        run_pictures.keep_map(self._built, self._settings.run_dir, maps)
        return maps

    def report(self, output: str | os.PathLike[str] | None = None) -> Path:
        """Write the run's page, by default ``report.html`` in its folder, and return its path.

        Raises:
            ConfigError: The folder holds no run, or ``output`` cannot be written.
            DataError: A file of the run is damaged.
        """
        return page.write_page([self._settings.run_dir], output, lambda _: self.data)

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
            return results.Result(self._result)
        return results.final_info(self._settings, self._built, self._test_scores, self._origin)

    @cached_property
    def global_config(self) -> GlobalConfig:
        """Every key with its value, plain; it loads back as it is."""
        return GlobalConfig(without_secrets({**Schema(type(self)).defaults(), **self.config}))

    @cached_property
    def _built(self) -> assemble.Assembly:
        with around_loop.quiet():
            seed = resume.seed_of(self._settings)
            return assemble.assemble(self._settings, self.global_config, seed=seed)

    def _run(self, name: str, checkpoint: Any, **options: Any) -> None:
        """Run one of Lightning's loops, with the weights of a snapshot."""
        if checkpoint is not None and name != "fit":
            checkpoint = resume.snapshot_path(checkpoint, self._named)
        if checkpoint is None and (name == "fit" or not self._has_run):
            weights.prepare(self.model, self._origin, self._settings.weights_path)
        if name == "test":
            make_folder(self._settings.run_dir)
        run, self._has_run = getattr(self.lightning, name), True
        if name == "fit":
            self._origin = None
        with around_loop.loop(self._built.signals, self.lightning):
            run(
                self.module,
                datamodule=self.data,
                ckpt_path=checkpoint,  # Lightning takes whatever can be used as a path
                weights_only=True,
                **options,
            )
