"""The commands that train or compare many networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lis2_lightning.base.files import shown
from lis2_lightning.cli.tools import Answer, number
from lis2_lightning.errors import ConfigError
from lis2_lightning.evaluation import side_by_side
from lis2_lightning.evaluation.cross_validation import CrossValidation
from lis2_lightning.evaluation.ensemble import EnsembleTrainer
from lis2_lightning.evaluation.learning_rate import suggest_lr
from lis2_lightning.evaluation.split_scores import score_splits
from lis2_lightning.evaluation.summary import Summary
from lis2_lightning.evaluation.tuning import Tuning
from lis2_lightning.trainer import Trainer

Options = Mapping[str, Any]


def cross_validate(config: dict[str, Any], options: Options) -> Answer:
    """Train every fold and collect; or one fold; or collect alone."""
    side_by_side.end_with_parent()
    fold, jobs = number(options, "fold"), number(options, "jobs")
    chosen = [
        f"--{name}"
        for name in ("fold", "jobs", "collect")
        if options[name] is not None and options[name] is not False
    ]
    if len(chosen) > 1:
        raise ConfigError(f"{' and '.join(chosen)} exclude each other: use one of them at a time")
    runs = CrossValidation.from_config(
        config,
        num_folds=number(options, "folds"),
        seeds=number(options, "seeds"),
    )
    if fold is not None:
        runs.run_fold(fold)
        return Answer("", {"fold": fold, "output": str(runs.folder)})
    return _answer(runs.collect() if options["collect"] else runs.run(jobs=jobs))


def tune(config: dict[str, Any], options: Options) -> Answer:
    """Train the trials of a study that are left; or one of them."""
    side_by_side.end_with_parent()
    trial, jobs = number(options, "trial"), number(options, "jobs")
    if trial is not None and jobs is not None:
        raise ConfigError("--trial and --jobs exclude each other: use one of them at a time")
    tuning = Tuning.from_config(
        config,
        space=options["space"],
        trials=number(options, "trials"),
        num_folds=number(options, "folds"),
        grid=options["grid"],
        prune=not options["no_pruning"],
    )
    if trial is not None:
        tuning.run_trial(trial)
        return Answer("", {"trial": trial, "output": str(tuning.folder)})
    trials = tuning.run(jobs=jobs)
    return Answer(trials.table(), trials.data())


def find_lr(config: dict[str, Any], options: Options) -> Answer:
    """Try learning rates, and say which key to set."""
    rate, picture = suggest_lr(config, options["output"])
    text = f"--optimizer.lr {rate:.2g}\n[the losses: {shown(picture)}]"
    return Answer(text, {"optimizer.lr": rate, "picture": str(picture)})


def baseline(config: dict[str, Any], options: Options) -> Answer:
    """Score filters of the image: on its test areas, or on every fold."""
    num_folds = number(options, "folds")
    if num_folds is not None:
        return _answer(CrossValidation.from_config(config, num_folds=num_folds).baselines())
    return _answer(score_splits(Trainer.from_config(config)))


def segment_together(
    snapshots: Sequence[Path],
    config: dict[str, Any],
    options: Options,
    request: Mapping[str, Any],
) -> Answer:
    """Map an image with several networks.

    Raises:
        ConfigError: There is no image, or a configuration beside the snapshots.
    """
    if not options["image"]:
        raise ConfigError("several snapshots map another image: name it with --image")
    if {"model", "train_dataset"} & set(config):
        raise ConfigError(
            "several snapshots bring their networks and tiles with them: leave out --config, model "
            "and data"
        )
    image, output, spread = (options[key] for key in ("image", "output", "spread"))
    ensemble = EnsembleTrainer.from_snapshots(snapshots, image=image, **config)
    probs = ensemble.segment(image, output=output, spread=spread, **request)
    data = {"output": output, "mask": request["mask"], "spread": spread, "networks": len(snapshots)}
    return Answer("", {**data, "shapes": [list(probs.shape)]})


def _answer(summary: Summary) -> Answer:
    return Answer(summary.table(), summary.data())
