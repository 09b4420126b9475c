"""What is tried before anything is written: the network, the loss, the monitored name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lis2_lightning.assembly.settings import Settings
from lis2_lightning.data import SegmentationData, first_batch
from lis2_lightning.errors import (
    ConfigError,
    DataError,
    did_you_mean,
)
from lis2_lightning.training.module import SegmentationModule


def check(settings: Settings, module: SegmentationModule, data: SegmentationData) -> None:
    """Try the network on a sample of each data set, and its optimizer, before anything is written.

    Raises:
        ConfigError: The optimizer or the scheduler cannot be built, or nothing is logged under
            the name of ``monitor``.
        DataError: The network does not take a sample, or gives another shape than the target.
    """
    module.configure_optimizers()
    _check_monitor(settings, module)
    for dataset in (data.train, data.val, data.test):
        if dataset is not None:
            _check_batch(module, first_batch(dataset))


def _check_monitor(settings: Settings, module: SegmentationModule) -> None:
    if settings.lightning.get("callbacks"):
        return  # a callback of the user's may log it
    splits = ["train"] if settings.val_dataset is None else ["train", "val"]
    names = ["loss", *module.train_scores.metrics.names]
    logged = ["lr", *(f"{split}_{name}" for split in splits for name in names)]
    if settings.monitor not in logged:
        hint = did_you_mean(settings.monitor, logged)
        raise ConfigError(f"monitor {settings.monitor!r} is not logged: {hint}")


def _check_batch(module: SegmentationModule, batch: Mapping[str, Tensor]) -> None:
    training = module.model.training
    module.model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            output = module(batch)
            module.loss(output, batch["target"], batch.get("labelled"))
    except (RuntimeError, TypeError) as error:
        shape = tuple(batch["patch"].shape)
        told = " ".join(str(error).split())
        raise DataError(
            f"{type(module.model).__name__} does not take a batch of shape {shape}: {told}"
        ) from error
    finally:
        module.model.train(training)
