"""The commands that train or compare many networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lis2_lightning.cli.tools import Answer
from lis2_lightning.errors import ConfigError
from lis2_lightning.evaluation import side_by_side
from lis2_lightning.evaluation.cross_validation import CrossValidation
from lis2_lightning.evaluation.ensemble import EnsembleTrainer, snapshots_matching
from lis2_lightning.evaluation.split_scores import score_splits
from lis2_lightning.evaluation.summary import Summary
from lis2_lightning.trainer import Trainer

__all__ = ["baseline", "cross_validate", "segment_together", "snapshots_matching"]

Options = Mapping[str, Any]


def cross_validate(config: dict[str, Any], options: Options) -> Answer:
    """Train every fold and collect; or one fold; or collect alone."""
    side_by_side.end_with_parent()
    fold, jobs = whole_number(options, "fold"), whole_number(options, "jobs")
    chosen = [
        f"--{name}" for name in ("fold", "jobs", "collect") if options[name] not in {None, False}
    ]
    if len(chosen) > 1:
        raise ConfigError(f"{' and '.join(chosen)} exclude each other: use one of them at a time")
    runs = CrossValidation.from_config(
        config,
        num_folds=whole_number(options, "folds"),
        seeds=1 if (num := whole_number(options, "seeds")) is None else num,
    )
    if fold is not None:
        runs.run_fold(fold)
        return Answer("", {"fold": fold, "output": str(runs.folder)})
    return _answer(runs.collect() if options["collect"] else runs.run(jobs=jobs))


def baseline(config: dict[str, Any], options: Options) -> Answer:
    """Score filters of the image: on its test areas, or on every fold."""
    num_folds = whole_number(options, "folds")
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


def whole_number(options: Options, name: str) -> int | None:
    """A whole number that was typed or stands in a file; null where there is none.

    Raises:
        ConfigError: It is something else.

    >>> whole_number({"jobs": "2", "fold": None}, "jobs")
    2
    """
    value = options[name]
    if value is None:
        return None
    if not str(value).isdigit():
        raise ConfigError(f"{name} must be a whole number of at least 0, not {value!r}")
    return int(value)
