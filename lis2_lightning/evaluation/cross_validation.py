"""Cross-validation: a run for each fold, and one honest answer about all labelled pixels."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from lis2_lightning.base.files import shown
from lis2_lightning.config import load_config
from lis2_lightning.errors import ConfigError, Lis2Error
from lis2_lightning.evaluation import filters, side_by_side
from lis2_lightning.evaluation.area_scores import AreaScores
from lis2_lightning.evaluation.baselines import Chosen, score_baselines
from lis2_lightning.evaluation.fields import Field, fields_of
from lis2_lightning.evaluation.fold_data import data_of_all, data_of_fold, number_of_folds
from lis2_lightning.evaluation.folder import CONFIG, begin, check, own_number, resolved
from lis2_lightning.evaluation.out_of_fold import folds_of_areas, gather
from lis2_lightning.evaluation.run_maps import (
    BEST,
    RunMaps,
    are_made,
    is_over,
    make_maps,
    threshold_of,
)
from lis2_lightning.evaluation.summary import NETWORK, Summary, summarise, write_csv, write_json
from lis2_lightning.report.fold_picture import draw_folds
from lis2_lightning.report.run_record import LOG, log_rows
from lis2_lightning.running.mapping import map_paths
from lis2_lightning.trainer import Trainer

_log = logging.getLogger("lis2_lightning")


class CrossValidation:
    """Trains a network for each fold of an image, and scores every labelled pixel once.

    Fold k is tested on, the next one validates, the others train. Each run is an ordinary one,
    which goes on where it was stopped, in ``output_dir/run_name/fold_k``; or in ``fold_k/seed_s``,
    if there are several seeds. See :meth:`from_config`.
    """

    def __init__(self, config: Mapping[str, Any], *, num_folds: int, seeds: int = 1) -> None:
        if seeds < 1:
            raise ConfigError(f"seeds must be at least 1, not {seeds}")
        self.config = dict(config)
        self.num_folds = num_folds
        first = 0 if config["seed"] is None else int(config["seed"])
        self.seeds = list(range(first, first + seeds))
        self.folder = Path(config["output_dir"], config["run_name"])

    @classmethod
    def from_config(
        cls,
        source: str | os.PathLike[str] | Mapping[str, Any],
        *,
        num_folds: int | None = None,
        seeds: int | None = None,
        **overrides: Any,
    ) -> Self:
        """Read a configuration, whose data sets are of tiles, or of patches with ``area_folds``.

        Args:
            source: A path or a mapping, as for :meth:`Trainer.from_config`.
            num_folds: At least 3; by default that of the configuration, or 5.
            seeds: Runs of each fold, 1 by default: with the configured seed (or 0) and those that
                follow it.
            overrides: Keys that win over the configuration's.

        Raises:
            ConfigError: A key or a value is wrong, or a component is an object.
        """
        loaded = load_config(source, is_for_all=True)
        if "gridsearch" in loaded:
            raise ConfigError("gridsearch asks for runs with several values: lis2 tune makes them")
        num_folds = own_number(loaded, "folds", num_folds)
        seeds = own_number(loaded, "seeds", seeds)
        what = "cross-validation builds a trainer for each fold"
        config = resolved(loaded, what=what, **overrides)
        num_folds = number_of_folds(config, num_folds)
        return cls(config, num_folds=num_folds, seeds=1 if seeds is None else seeds)

    def run(self, *, jobs: int | None = None) -> Summary:
        """Train what is not trained yet, and collect.

        Args:
            jobs: How many folds to train side by side, each in a process of its own with a log in
                its folder; by default one after the other in this process.

        Raises:
            ConfigError: The folder holds something else, or as :meth:`Trainer.train`.
            DataError: As there.
            TrainingError: A run failed; the others have gone on.
        """
        self._begin()
        if jobs is None:
            for fold in range(self.num_folds):
                self._train(fold, is_alone=False)
        else:
            self._run_side_by_side(jobs)
        return self.collect()

    def run_fold(self, fold: int) -> None:
        """Train one fold, with every seed, and map the image with its best snapshot.

        Raises:
            ConfigError: There is no such fold, or as :meth:`run`.
        """
        if fold not in range(self.num_folds):
            raise ConfigError(f"fold must be from 0 to {self.num_folds - 1}, not {fold}")
        self._begin()
        self._train(fold, is_alone=len(self.seeds) == 1)

    def _train(self, fold: int, *, is_alone: bool) -> None:
        for seed in self.seeds:
            folder = self.run_dir(fold, seed)
            _log.info("fold %d of %d, seed %d: %s", fold, self.num_folds, seed, shown(folder))
            trainer = Trainer.from_config(self.run_config(fold, seed))
            if not is_alone and (num := trainer.lightning.world_size) > 1:
                raise ConfigError(
                    f"a run of {num} processes cannot be followed by another one in this program: "
                    "add --lightning.devices 1, or --jobs 1, which starts a program for each fold"
                )
            trainer.train()
            make_maps(trainer, folder)

    def _run_side_by_side(self, jobs: int) -> None:
        side_by_side.check(jobs, self.config)
        # each finds for itself what is left to train: epochs may have been raised
        logs = {fold: self.folder / f"fold_{fold}.log" for fold in range(self.num_folds)}
        words = ["--config", str(self.folder / CONFIG), "--folds", str(self.num_folds)]
        words += ["--seeds", str(len(self.seeds))]
        side_by_side.run(["cross-validate", *words], logs, jobs=jobs)

    def run_dir(self, fold: int, seed: int) -> Path:
        """The folder of a run."""
        folder = self.folder / f"fold_{fold}"
        return folder / f"seed_{seed}" if len(self.seeds) > 1 else folder

    def run_config(self, fold: int, seed: int) -> dict[str, Any]:
        """The configuration of a run."""
        folder = self.run_dir(fold, seed)
        return {
            **self.config,
            **data_of_fold(self.config, fold, self.num_folds),
            "output_dir": str(folder.parent),
            "run_name": folder.name,
            "seed": seed,
            "resume": "auto",
        }

    def collect(self, *, baselines: bool = True) -> Summary:
        """Gather what the runs have left, and write figures, map and picture beside them.

        Args:
            baselines: Score filters on the same pixels too, where scikit-image is installed.

        Raises:
            ConfigError: A run is not over.
            DataError: A map cannot be read or written.
        """
        check(self.folder, self._folds)
        fields = self.fields
        runs = [self._maps(fold, seed) for fold in range(self.num_folds) for seed in self.seeds]
        paths = map_paths(self.folder, "out_of_fold", [field.image for field in fields])
        by_seed, of_map = gather(fields, runs, paths)
        methods: dict[str, tuple[AreaScores, Mapping[int, AreaScores]]] = {
            NETWORK: (of_map, by_seed)
        }
        chosen: Chosen = {
            (NETWORK, run.fold, run.seed): f"from {run.threshold:.4g} on" for run in runs
        }
        if baselines:
            scores, of_baselines = self._baselines()
            methods |= {name: (own, {}) for name, own in scores.items()}
            chosen |= of_baselines
        summary = summarise(methods, folds_of_areas(fields), chosen=chosen, seed=self.seeds[0])
        write_csv(summary.rows, self.folder / "cross_validation.csv")
        write_json(summary.data(), self.folder / "cross_validation.json")
        pictures = map_paths(self.folder, "folds", [None] * len(fields))
        for field, path in zip(fields, pictures, strict=True):
            edges = field.areas.row_edges, field.areas.column_edges
            picture = path.with_suffix(".png")
            draw_folds(field.coarse(), field.shape, edges, field.folds, picture)
        _log.info("the out-of-fold map is in %s", " and ".join(map(shown, paths)))
        return summary

    def baselines(self) -> Summary:
        """Score the baselines alone; nothing is trained or written.

        Raises:
            ConfigError: scikit-image is not installed, or there is no image to filter.
            DataError: The image is too large.
        """
        scores, chosen = score_baselines(self.fields, tested=range(self.num_folds))
        methods = {name: (own, dict[int, AreaScores]()) for name, own in scores.items()}
        return summarise(methods, folds_of_areas(self.fields), chosen=chosen, seed=self.seeds[0])

    def _baselines(self) -> tuple[dict[str, AreaScores], Chosen]:
        if not filters.is_available():
            _log.info('no baselines: pip install "lis2-lightning[baselines]" adds them')
            return {}, {}
        try:
            return score_baselines(self.fields, tested=range(self.num_folds))
        except Lis2Error as error:  # the network has its figures all the same
            _log.info("no baselines: %s", error)
            return {}, {}

    @cached_property
    def fields(self) -> list[Field]:
        """The images, with the folds of their areas."""
        everything = data_of_all(self.config, self.num_folds)
        alone = {"train_dataset": everything, "val_dataset": None, "test_dataset": None}
        trainer = Trainer.from_config({**self.config, **alone, "output_dir": str(self.folder)})
        return fields_of(trainer.data.train)

    def _maps(self, fold: int, seed: int) -> RunMaps:
        folder = self.run_dir(fold, seed)
        paths = map_paths(folder, "prediction", [field.image for field in self.fields])
        if not is_over(folder, self.config) or not are_made(folder, paths):
            num = len(log_rows(folder / LOG)) if (folder / LOG).is_file() else 0
            raise ConfigError(
                f"{shown(folder)} is not finished, with {num} epochs trained of "
                f"{self.config['epochs']}, and every fold is needed: train it with --fold {fold}, "
                "or all that are left without --collect"
            )
        return RunMaps(fold, seed, threshold_of(folder / BEST), paths)

    def _begin(self) -> None:
        check(self.folder, self._folds)
        begin(self.folder, self.config, self._folds)

    @property
    def _folds(self) -> dict[str, Any]:
        """What decides how pixels are divided, and in which folders runs are."""
        return {
            "num_folds": self.num_folds,
            "first_seed": self.seeds[0],
            "several_seeds": len(self.seeds) > 1,
            "test_dataset": data_of_fold(self.config, 0, self.num_folds)["test_dataset"],
        }
