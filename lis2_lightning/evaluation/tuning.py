"""Tuning: runs with other values of some keys, of which Optuna chooses the next."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from torch import nn

from lis2_lightning.assembly.settings import Settings
from lis2_lightning.base.files import atomic, shown
from lis2_lightning.base.lock import lock
from lis2_lightning.base.redaction import without_secrets
from lis2_lightning.config import Schema, load_config
from lis2_lightning.errors import ConfigError, DataError, TrainingError
from lis2_lightning.evaluation import side_by_side
from lis2_lightning.evaluation.cross_validation import CrossValidation
from lis2_lightning.evaluation.fold_data import data_of_fold, number_of_folds
from lis2_lightning.evaluation.folder import (
    CONFIG,
    STUDY,
    as_yaml,
    begin,
    check,
    own_number,
    resolved,
)
from lis2_lightning.evaluation.space import Space, from_gridsearch
from lis2_lightning.evaluation.study import Reports, StudyFile
from lis2_lightning.evaluation.trials import FOLD_STEPS, NUMBER, Trials, draw, rows_of, write_csv
from lis2_lightning.inference import Map
from lis2_lightning.running.results import TEST
from lis2_lightning.trainer import Trainer

if TYPE_CHECKING:
    from optuna.trial import Trial

_log = logging.getLogger("lis2_lightning")
_USUAL: Final = 30
_SPACE: Final = "space.yaml"
_BEST: Final = "best.yaml"
# keys that change no value of a trial: they may be others when a study goes on
_FREE: Final = ("output_dir", "run_name", "resume", "num_workers", "trackers", "report")


class _TrialTrainer(Trainer):
    """Trains a run of a trial; one that is pruned is neither tested nor mapped."""

    reports: Reports

    def run_final_evaluation(self, csv_path: str = TEST) -> dict[str, float]:
        """As of any run, see :meth:`Trainer.run_final_evaluation`."""
        return {} if self.reports.has_pruned else super().run_final_evaluation(csv_path)

    def predict(self, *args: Any, **options: Any) -> list[Map]:
        """As of any run, see :meth:`Trainer.predict`."""
        return [] if self.reports.has_pruned else super().predict(*args, **options)


class Tuning:
    """Trains with values of some keys that Optuna chooses, and finds the best.

    Each trial is an ordinary run in ``output_dir/run_name/trial_k``, or one for each fold in
    ``trial_k/fold_i``. The study is ``study.db`` beside them. See :meth:`from_config`.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        space: Space,
        *,
        trials: int,
        num_folds: int | None = None,
        is_grid: bool = False,
        is_pruned: bool = True,
    ) -> None:
        self.config = dict(config)
        self.space = space
        self.num_folds = num_folds
        self.is_pruned = is_pruned and not is_grid
        self.folder = Path(config["output_dir"], config["run_name"])
        self._points = space.grid() if is_grid else []
        if trials < 1:
            raise ConfigError(f"trials must be at least 1, not {trials}")
        self.num_trials = min(trials, len(self._points)) if is_grid else trials
        self._check()

    @classmethod
    def from_config(
        cls,
        source: str | os.PathLike[str] | Mapping[str, Any],
        *,
        space: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        trials: int | None = None,
        num_folds: int | None = None,
        grid: bool = False,
        prune: bool = True,
        **overrides: Any,
    ) -> Self:
        """Read a configuration, and what is to vary.

        Args:
            source: A path or a mapping, as for :meth:`Trainer.from_config`.
            space: A path or a mapping: dotted keys, each with a list of values or a range
                ``{low: 1e-4, high: 0.1, log: true}``, whole numbers where both ends are, with
                ``step`` where there is one. By default the configuration's key ``space`` or LIS2's
                section ``gridsearch``.
            trials: How many trials the study is to have, 30 by default; of a grid, all.
            num_folds: Train each trial on so many folds, at least 3, and compare the means.
            grid: Try each combination of the lists in turn.
            prune: End trials whose monitored value is worse than the median of earlier ones.
            overrides: Keys that win over the configuration's.

        Raises:
            ConfigError: A key or a value is wrong, or Optuna is not installed.
        """
        config = load_config(source, is_for_all=True)
        section = config.pop("gridsearch", None)
        configured = config.pop("space", None)
        space = configured if space is None else space
        trials = own_number(config, "trials", trials)
        num_folds = own_number(config, "folds", num_folds)
        if (section is None) == (space is None):
            problem = "is missing" if space is None else "and gridsearch exclude each other"
            raise ConfigError(f"space {problem}: name the file of what is to vary with --space")
        if section is not None:
            described, grid = from_gridsearch(section), True
        else:
            described = load_config(space or {})
        config = resolved(config, what="tuning builds a trainer for each trial", **overrides)
        parsed = Space.parse(described)
        usual = len(parsed.grid()) if grid else _USUAL
        return cls(
            config,
            parsed,
            trials=usual if trials is None else trials,
            num_folds=None if num_folds is None else number_of_folds(config, num_folds),
            is_grid=grid,
            is_pruned=prune,
        )

    def _check(self) -> None:
        monitor = self.config["monitor"]
        if not monitor.startswith("val_"):
            raise ConfigError(
                f"trials are compared by monitor, and {monitor} is measured on what they are "
                "trained on: set monitor to val_loss or val_dice"
            )
        if self.num_folds is None and self.config["val_dataset"] is None:
            raise ConfigError("trials are compared on val_dataset, and there is none: set it")
        if monitor == "val_loss" and any(
            key.partition(".")[0] == "loss" for key in self.space.keys
        ):
            raise ConfigError(
                "space varies the loss, by which trials are compared: set monitor to val_dice"
            )
        for values in self.space.examples():
            try:
                config = resolved(self.space.apply(self.config, values), what="")
                if self.num_folds is not None:
                    data_of_fold(config, 0, self.num_folds)
            except ConfigError as error:
                raise ConfigError(f"space: {error}") from error

    def run(self, *, jobs: int | None = None) -> Trials:
        """Train the trials that are left, and write the table and the best configuration.

        Args:
            jobs: How many trials to train side by side, each in a process of its own with a log in
                the folder; by default one after the other in this process.

        Raises:
            ConfigError: The folder holds something else or is in use, or as
                :meth:`Trainer.train` as long as no trial has come to an end.
            DataError: Likewise.
            TrainingError: No trial came to an end.
        """
        if jobs is not None:
            side_by_side.check(jobs, self.config)
        self._begin()
        with lock(self.folder):
            over = {trial.user_attrs[NUMBER] for trial in self._study.over()}
            left = [number for number in range(self.num_trials) if number not in over]
            _log.info(
                "%d of %d trials are left: %s", len(left), self.num_trials, shown(self.folder)
            )
            if jobs is None:
                for number in left:
                    self.run_trial(number)
            elif left:
                logs = {number: self.folder / f"trial_{number}.log" for number in left}
                side_by_side.run(["tune", *self._words()], logs, jobs=jobs, unit="trial")
            return self.collect()

    def _words(self) -> list[str]:
        words = ["--config", str(self.folder / CONFIG), "--space", str(self.folder / _SPACE)]
        words += ["--trials", str(self.num_trials)]
        words += [] if self.num_folds is None else ["--folds", str(self.num_folds)]
        words += ["--grid"] if self._points else []
        return words if self.is_pruned else [*words, "--no_pruning"]

    def run_trial(self, number: int) -> None:
        """Train one trial, which goes on where it was killed; nothing if it is over.

        Only one process at a time may train it.

        Raises:
            ConfigError: There is no such trial, or as :meth:`run`.
        """
        if number not in range(self.num_trials):
            raise ConfigError(f"trial must be from 0 to {self.num_trials - 1}, not {number}")
        self._begin()
        trial = self._study.take(number, self._points[number] if self._points else None)
        if trial is None:
            return
        values = self.space.values_of(trial.params)
        listed = ", ".join(f"{key} {value}" for key, value in values.items())
        _log.info("trial %d of %d: %s", number, self.num_trials, listed)
        try:
            self._study.tell(trial, self._train(trial, number, values))
        except (ConfigError, DataError, TrainingError) as error:
            is_common = not isinstance(error, TrainingError) and not self._study.has_value
            if is_common:  # the trial is left to be trained by the next command
                raise
            _log.warning("trial %d failed: %s", number, error)
            self._study.tell(trial, None, str(error))

    def _train(self, trial: Trial, number: int, values: Mapping[str, Any]) -> float | None:
        """Train the runs of a trial; their mean best value, or null where it was pruned."""
        bests: list[float] = []
        for config in self._run_configs(number, values):
            trainer = _TrialTrainer.from_config(config)
            if (num := trainer.lightning.world_size) > 1:
                raise ConfigError(
                    f"a trial of {num} processes would be asked for by each of them: add "
                    "--lightning.devices 1; --jobs trains one for each device"
                )
            first = len(bests) * FOLD_STEPS
            reports = Reports(trial, str(config["monitor"]), first, prunes=self.is_pruned)
            reports.watch(trainer.lightning)
            trainer.reports = reports
            best = float(trainer.train()["best_loss"])
            if reports.has_pruned:
                _log.info("trial %d is pruned", number)
                return None
            if not math.isfinite(best):
                raise TrainingError(f"{config['monitor']} was never a number")
            bests.append(best)
        return sum(bests) / len(bests)

    def _run_configs(self, number: int, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        config = resolved(
            self.space.apply(self.config, values),
            what="",
            output_dir=str(self.folder),
            run_name=f"trial_{number}",
            resume="auto",
        )
        if self.num_folds is None:
            return [config]
        runs = CrossValidation(config, num_folds=self.num_folds)
        return [runs.run_config(fold, runs.seeds[0]) for fold in range(self.num_folds)]

    def collect(self) -> Trials:
        """Write ``trials.csv``, ``study.png`` and ``best.yaml`` of the trials that are over.

        Raises:
            TrainingError: None of them came to an end.
        """
        over = self._study.over()
        values = [self.space.values_of(trial.params) for trial in over]
        rows = rows_of(over, values, is_largest=self._mode == "max")
        if not rows or rows[0].value is None:
            reason = next((row.error for row in rows if row.error), "all were pruned")
            raise TrainingError(f"no trial came to an end: {reason}")
        path = self.folder / _BEST
        trials = Trials(self.config["monitor"], rows, path)
        best = resolved(
            self.space.apply(self.config, rows[0].values),
            what="",
            run_name=f"{self.config['run_name']}_best",
        )
        head = f"# {trials.monitor} {rows[0].value:.6f}: trial {rows[0].number} of {len(rows)}\n"
        with atomic(path) as file:
            file.write((head + as_yaml(best)).encode())
        write_csv(trials, self.folder / "trials.csv")
        draw(trials, self.space, self.folder / "study.png", is_largest=self._mode == "max")
        return trials

    def _begin(self) -> None:
        config = without_secrets(self.config)
        record = {
            "space": self.space.data(),
            "is_grid": bool(self._points),
            "num_folds": self.num_folds,
            "config": {key: value for key, value in config.items() if key not in _FREE},
        }
        check(self.folder, record, STUDY)
        begin(self.folder, self.config, record, STUDY)
        with atomic(self.folder / _SPACE) as file:
            file.write(as_yaml(self.space.data()).encode())

    @cached_property
    def _study(self) -> StudyFile:
        return StudyFile(
            self.folder,
            self.space,
            mode=self._mode,
            warmup=int(self.config["epochs"]) // 4,  # a schedule shows by then what it is worth
            seed=self.config["seed"],
        )

    @property
    def _mode(self) -> Literal["min", "max"]:
        """Whether the best monitored value is the smallest or the largest; no data is opened."""
        nothing = {"val_dataset": None, "test_dataset": None, "trackers": None, "sampler": None}
        objects = {"model": nn.Identity(), "train_dataset": object()}
        built = Schema(Trainer).parse({**self.config, **nothing, **objects}).build()
        return Settings(**{**built, "trackers": []}).best_mode
