"""What is tried before a run has a folder: batches, metrics, monitored names, the schedule."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sized
from math import ceil
from typing import Any, Final, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Callback,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
)
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau

from lis2_lightning.assembly.assemble import Assembly
from lis2_lightning.assembly.settings import Settings
from lis2_lightning.base.labelled import checked_mask
from lis2_lightning.callbacks import LossEarlyStopping
from lis2_lightning.config import as_list
from lis2_lightning.data import first_batch
from lis2_lightning.errors import ConfigError, DataError, did_you_mean, one_line
from lis2_lightning.running.around_loop import trial
from lis2_lightning.running.last_layer import check_output, tell_of_output
from lis2_lightning.training.module import SegmentationModule, Split

_log = logging.getLogger("lis2_lightning")
_NO_VALIDATION: Final = (
    ", as no validation runs (val_dataset is null, lightning.limit_val_batches is 0, or "
    "lightning.check_val_every_n_epoch is more than epochs)"
)


def check(settings: Settings, built: Assembly) -> None:
    """Try what would otherwise fail, or be wrong without a word, after an epoch or more.

    Raises:
        ConfigError: A monitored name, a metric, the loss or the schedule does not fit.
        DataError: A batch does not fit the network.
    """
    module, data = built.module, built.data
    callbacks: list[Callback] = as_list(settings.lightning.get("callbacks"))
    _refuse_finders(callbacks)
    configured: Any = module.configure_optimizers()
    scheduler = configured["lr_scheduler"]["scheduler"] if isinstance(configured, dict) else None
    _check_monitors(settings, built, callbacks, scheduler)
    _check_schedule(settings, built.lightning, callbacks, scheduler)
    module.train_scores.metrics.check()
    for dataset in (data.val, data.test, data.train):
        if dataset is not None:
            output = _try(module, first_batch(dataset))
    tell_of_output(module, output)


def _refuse_finders(callbacks: Iterable[Callback]) -> None:
    for callback in callbacks:
        if isinstance(callback, LearningRateFinder | BatchSizeFinder):
            key = "optimizer.lr" if isinstance(callback, LearningRateFinder) else "batch_size"
            raise ConfigError(
                f"lightning.callbacks: {type(callback).__name__} would change {key} behind the "
                f"configuration, from which runs are resumed: remove it and set {key}"
            )


def _check_monitors(
    settings: Settings, built: Assembly, callbacks: list[Callback], scheduler: Any
) -> None:
    """Refuse names that nothing logs, and tell where the worst value would count as the best."""
    every = built.lightning.check_val_every_n_epoch or 1
    limit = built.lightning.limit_val_batches
    validates = built.data.val is not None and limit != 0 and every <= settings.epochs
    splits: tuple[Split, ...] = ("train", "val") if validates else ("train",)
    names = {split: built.module.scores(split).names for split in splits}
    logged = ["lr", *(f"{split}_{name}" for split in splits for name in names[split])]
    # a callback of the user's own may log anything
    is_complete = all(
        type(c).__module__.startswith(("lightning.", "lis2_lightning.")) for c in callbacks
    )
    for key, name, mode in _followed(settings, built, callbacks, scheduler):
        if is_complete and name not in logged and not name.startswith("lr-"):
            reason = _NO_VALIDATION if name.startswith("val_") and not validates else ""
            raise ConfigError(f"{key} {name!r} is not logged{reason}: {did_you_mean(name, logged)}")
        best = settings.direction(name)
        if best and mode and mode != best:
            _log.warning(
                "%s %r has mode %s, but it is better when %s: the worst epoch would count as the "
                "best; set mode to %s",
                *(key, name, mode, "larger" if best == "max" else "smaller", best),
            )
        if not best and not mode:
            _log.warning(
                "%s %r does not say whether larger is better: the smallest value counts as the "
                "best; set mode",
                *(key, name),
            )


def _followed(
    settings: Settings, built: Assembly, callbacks: Iterable[Callback], scheduler: Any
) -> Iterator[tuple[str, str, str | None]]:
    """The key of each monitored name, the name, and the mode if one is set."""
    followers = [
        ("early_stopper", built.early_stopper),
        ("scheduler", scheduler),
        *((f"lightning.callbacks: {type(callback).__name__}", callback) for callback in callbacks),
    ]
    yield "monitor", settings.monitor, settings.mode
    for key, follower in followers:
        usual = "train_loss" if isinstance(follower, ReduceLROnPlateau) else None
        if isinstance(follower, LossEarlyStopping) and follower.follows_validation:
            continue  # or the training loss, where nothing is validated
        name = getattr(follower, "monitor", usual)
        counts = isinstance(follower, ModelCheckpoint) and name in {"epoch", "step"}
        if isinstance(name, str) and not counts:
            yield f"{key}.monitor", name, getattr(follower, "mode", None)


def _try(module: SegmentationModule, batch: Mapping[str, Tensor]) -> Tensor:
    """The output for a batch, which fits the loss."""
    try:
        # uncompiled and with gradients, whose graph shows what the network ends in
        with trial(module), torch.enable_grad(), torch.compiler.set_stance("force_eager"):
            output: Tensor = module(batch)
            labelled = checked_mask(output, batch["target"], batch.get("labelled"))
            weight = batch.get("weight")
            module.loss.check_weights(batch["target"])
            check_output(module.loss, type(module.model).__name__, output)
            module.loss(output, batch["target"], labelled, weight)
    except (RuntimeError, TypeError) as error:
        shape = tuple(batch["patch"].shape)
        name = type(module.model).__name__
        raise DataError(
            f"{name} does not take a batch of shape {shape}: {one_line(error)}"
        ) from error
    return output


def _check_schedule(
    settings: Settings, trainer: pl.Trainer, callbacks: Iterable[Callback], scheduler: Any
) -> None:
    """Refuse a schedule that ends before the training, and tell of one that then turns back."""
    if not isinstance(scheduler, OneCycleLR | CosineAnnealingLR):
        return
    num_steps = trainer.max_epochs or 0
    if settings.scheduler_interval == "step":
        if any(isinstance(callback, GradientAccumulationScheduler) for callback in callbacks):
            return
        num_steps *= _steps_per_epoch(settings, trainer)
        num_steps = num_steps if trainer.max_steps == -1 else min(num_steps, trainer.max_steps)
    if isinstance(scheduler, CosineAnnealingLR):
        if scheduler.T_max < num_steps:
            _log.warning(
                "scheduler: CosineAnnealingLR falls for %d %ss, and the training has %d: after "
                "them the rate rises again",
                *(scheduler.T_max, settings.scheduler_interval, num_steps),
            )
    elif scheduler.total_steps < num_steps:
        raise ConfigError(
            f"scheduler: OneCycleLR ends after {scheduler.total_steps} steps, and the training has "
            f"{num_steps}: set its total_steps to {num_steps}"
        )


def _steps_per_epoch(settings: Settings, trainer: pl.Trainer) -> int:
    """Optimizer steps in an epoch."""
    samples = ceil(len(cast("Sized", settings.train_dataset)) / trainer.world_size)
    batches, limit = ceil(samples / settings.batch_size), trainer.limit_train_batches
    batches = int(batches * limit) if isinstance(limit, float) else min(batches, limit)
    return ceil(batches / trainer.accumulate_grad_batches)
