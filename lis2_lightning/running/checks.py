"""What is tried before a run has a folder: batches, metrics, monitored names, the schedule."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping
from math import ceil
from typing import Any, Final

import torch
from lightning.pytorch.callbacks import BatchSizeFinder, Callback, LearningRateFinder
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from lis2_lightning.assembly.settings import Settings
from lis2_lightning.config import as_list
from lis2_lightning.data import SegmentationData, first_batch
from lis2_lightning.errors import ConfigError, DataError, did_you_mean, one_line
from lis2_lightning.training.module import SegmentationModule

_log = logging.getLogger("lis2_lightning")
# the last operations of a network, as autograd calls them, after which it gives probabilities
_ACTIVATIONS: Final = ("Sigmoid", "Softmax", "LogSoftmax", "LogSigmoid", "Hardsigmoid")
# and those which leave the range of values as it is
_PASSIVE: Final = (
    *("Slice", "Select", "Index", "Squeeze", "Unsqueeze", "View", "UnsafeView", "ReshapeAlias"),
    *("Permute", "Transpose", "Clone", "ToCopy", "Alias", "AsStrided", "Clamp", "Upsample"),
    *("Expand", "Unsafe", "Constant", "Reflection", "Replication"),
)


def check(settings: Settings, module: SegmentationModule, data: SegmentationData) -> None:
    """Try what would otherwise fail, or be wrong without a word, after an epoch or more.

    Raises:
        ConfigError: A monitored name, a metric, the loss or the schedule does not fit.
        DataError: A batch does not fit the network.
    """
    callbacks: list[Callback] = as_list(settings.lightning.get("callbacks"))
    _refuse_finders(callbacks)
    _check_monitors(settings, module, callbacks)
    for dataset in (data.train, data.val, data.test):
        if dataset is not None:
            _check_batch(module, first_batch(dataset))
    _check_schedule(settings, module, data)


def settle_output(module: SegmentationModule, data: SegmentationData) -> None:
    """Find out whether a loss that does not say so expects logits, where nothing is trained."""
    if module.loss.is_undeclared:
        batch = first_batch(data.predict if data.predict is not None else data.train)
        _check_output(module, _try(module, batch))


def _refuse_finders(callbacks: Iterable[Callback]) -> None:
    for callback in callbacks:
        if isinstance(callback, LearningRateFinder | BatchSizeFinder):
            key = "optimizer.lr" if isinstance(callback, LearningRateFinder) else "batch_size"
            raise ConfigError(
                f"lightning.callbacks: {type(callback).__name__} would change {key} behind the "
                f"configuration, from which runs are resumed: remove it and set {key}"
            )


def _check_monitors(
    settings: Settings, module: SegmentationModule, callbacks: list[Callback]
) -> None:
    """Refuse names that nothing logs, and warn where the worst value would count as the best."""
    splits = ["train", "val"] if _validates(settings) else ["train"]
    names = ["loss", *module.train_scores.metrics.names]
    logged = ["lr", *(f"{split}_{name}" for split in splits for name in names)]
    # a callback of the user's own may log anything
    is_complete = all(type(c).__module__.startswith("lightning.") for c in callbacks)
    followed = {"monitor": (settings.monitor, settings.mode)}
    stoppers = {"early_stopper": settings.early_stopper}
    listed = {f"lightning.callbacks: {type(c).__name__}": c for c in callbacks}
    for key, follower in {**stoppers, **listed}.items():
        if isinstance(name := getattr(follower, "monitor", None), str):
            followed[f"{key}.monitor"] = name, getattr(follower, "mode", None)
    for key, (name, mode) in followed.items():
        # LossEarlyStopping's default, which means the training loss where nothing is validated
        is_default = key == "early_stopper.monitor" and name == "val_loss"
        if is_complete and name not in logged and not is_default and not name.startswith("lr-"):
            reason = "" if "val" in splits or not name.startswith("val_") else _NO_VALIDATION
            raise ConfigError(f"{key} {name!r} is not logged{reason}: {did_you_mean(name, logged)}")
        best = settings.direction(name)
        if mode and best and mode != best:
            size = "larger" if best == "max" else "smaller"
            _log.warning(
                "%s follows %s with mode %s, but it is better when %s: the worst epoch would count "
                "as the best; set mode to %s",
                *(key, name, mode, size, best),
            )


_NO_VALIDATION: Final = (
    ", as no validation runs (val_dataset is null, or lightning.limit_val_batches 0)"
)


def _validates(settings: Settings) -> bool:
    return settings.val_dataset is not None and settings.lightning.get("limit_val_batches") != 0


def _check_batch(module: SegmentationModule, batch: Mapping[str, Tensor]) -> None:
    output = _try(module, batch)
    _check_output(module, output)
    module.loss.check_weights(batch["target"])
    probabilities = module.probabilities(output)
    # all pixels: the first sample may have none that is labelled
    with warnings.catch_warnings(action="ignore"):
        module.train_scores.metrics.check(probabilities, batch["target"])


def _try(module: SegmentationModule, batch: Mapping[str, Tensor]) -> Tensor:
    """The output for a batch, with the operations that led to it; nothing else remains of it."""
    training = module.model.training
    module.model.eval()
    patch = batch["patch"].detach().clone().requires_grad_()
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            output = module({**batch, "patch": patch})
            module.loss(output, batch["target"], batch.get("labelled"))
    except (RuntimeError, TypeError) as error:
        shape = tuple(batch["patch"].shape)
        name = type(module.model).__name__
        raise DataError(
            f"{name} does not take a batch of shape {shape}: {one_line(error)}"
        ) from error
    finally:
        module.model.train(training)
    return output


def _check_output(module: SegmentationModule, output: Tensor) -> None:
    """Refuse a second sigmoid, or logits where probabilities are needed."""
    loss, network = module.loss, type(module.model).__name__
    name = type(loss.loss).__name__
    activation = _last_activation(output)
    if loss.expects_logits and activation:
        weight = getattr(loss.loss, "pos_weight", None)
        weighted = " (with alpha: 1 and pos_weight, it weighs positive pixels)"
        raise ConfigError(
            f"{network} ends in a {activation.lower()}, and {name} applies a sigmoid of its own: "
            f"use a loss of probabilities such as bce or bce_dice_loss"
            f"{'' if weight is None else weighted}, or a model without it"
        )
    finite = output.detach()[output.isfinite()]
    low, high = (finite.min().item(), finite.max().item()) if finite.numel() else (0.0, 0.0)
    if loss.expects_logits or 0 <= low <= high <= 1:
        return
    seen = f"the output of {network} ranges from {low:.3g} to {high:.3g}"
    if loss.needs_probabilities:
        raise ConfigError(
            f"{seen}, and {name} needs probabilities in [0, 1]: end the model with a sigmoid, or "
            "use a loss of logits (from_logits: true, or BCEWithLogitsLoss)"
        )
    if loss.is_undeclared:
        loss.expects_logits = True
        _log.warning(
            "%s, so %s is taken as a loss of logits: say so by its attribute expects_logits = True "
            "(or False, for probabilities)",
            *(seen, name),
        )
    else:
        _log.warning("%s under %s: metrics and maps cut it to [0, 1]", seen, name)


def _last_activation(output: Tensor) -> str | None:
    """The sigmoid or softmax whose values are the output, as a layer or a function; or null."""
    node: Any = output.grad_fn
    while node is not None and node.name().startswith(_PASSIVE):
        node = next((parent for parent, _ in node.next_functions if parent is not None), None)
    name = "" if node is None else node.name().partition("Backward")[0]
    return name if name in _ACTIVATIONS else None


def _check_schedule(settings: Settings, module: SegmentationModule, data: SegmentationData) -> None:
    """Refuse a schedule that ends before the training, at which torch would raise an error."""
    configured: Any = module.configure_optimizers()
    scheduler = configured["lr_scheduler"]["scheduler"] if isinstance(configured, dict) else None
    if isinstance(scheduler, ReduceLROnPlateau) and scheduler.mode == "max":
        _log.warning(
            "scheduler: ReduceLROnPlateau with mode max lowers the rate while the loss falls: set "
            "mode to min"
        )
    if not isinstance(scheduler, OneCycleLR):
        return
    num_steps = settings.epochs
    if settings.scheduler_interval == "step":
        num_steps *= _steps_per_epoch(settings, data)
    max_steps = settings.lightning.get("max_steps", -1)
    num_steps = num_steps if max_steps in {None, -1} else min(num_steps, max_steps)
    if scheduler.total_steps < num_steps:
        raise ConfigError(
            f"scheduler: OneCycleLR ends after {scheduler.total_steps} steps, and the training has "
            f"{num_steps}: set its total_steps to {num_steps}"
        )


def _steps_per_epoch(settings: Settings, data: SegmentationData) -> int:
    """Optimizer steps in an epoch of one process."""
    lightning = settings.lightning
    batches = len(data.loader(data.train, shuffle=True))
    limit = lightning.get("limit_train_batches")
    if isinstance(limit, float):
        batches = int(batches * limit)
    elif limit is not None:
        batches = min(batches, limit)
    return ceil(batches / (lightning.get("accumulate_grad_batches") or 1))
