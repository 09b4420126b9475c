"""The short names of components, LIS2's included: tables from name to import path.

They hold no classes, so that reading a configuration imports only what it names.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from functools import cache
from typing import Final

from lis2_lightning.errors import ConfigError, did_you_mean

# the names of each class, by kind; classes without a library's path are of this package
_CLASSES: Final[Mapping[str, Mapping[str, str]]] = {
    "model": {"models.UNet": "unet base_unet"},
    "encoder": {
        f"models.{name}PositionEncoding": f"{name}PositionEncoding {name}Encoding {name}"
        for name in ("Lin", "Sin", "Identity")
    },
    "dataset": {
        "data.TileDataset": "TileDataset",
        "data.SyntheticDataset": "SyntheticDataset",
        "data.PatchDataset": "PatchDataset FilamentsDataset",
        "torch.utils.data.ConcatDataset": "ConcatDataset",
    },
    "augmentation": {
        f"data.{name}": name
        for name in (
            *("ToTensor", "RandomHorizontalFlip", "RandomVerticalFlip"),
            *("RandomRotation", "NoiseDataAugmentation", "Normalize"),
        )
    },
    "sampler": {"data.BalancedSampler": "balanced"},
    "optimizer": {},
    "scheduler": {},
    "loss": {
        "torch.nn.BCELoss": "bce BCELoss",
        # the others of torch need class numbers, targets of -1 and 1, or a second input
        **{
            f"torch.nn.{name}": name
            for name in ("BCEWithLogitsLoss", "L1Loss", "MSELoss", "SmoothL1Loss", "HuberLoss")
        },
        "losses.DiceLoss": "dice_loss",
        "losses.BceDiceLoss": "bce_dice_loss",
        "losses.FocalLoss": "focal_loss",
        "losses.TverskyLoss": "tversky_loss",
        "losses.ClDiceLoss": "cl_dice_loss",
    },
    "metric": {
        "metrics.AveragePrecision": "average_precision map ap",
        "metrics.Dice": "dice dice_index",
        "metrics.RocAuc": "roc_auc auc",
        "metrics.IoU": "iou",
        "metrics.Precision": "precision",
        "metrics.Recall": "recall",
        "metrics.BestDice": "best_dice",
        "metrics.BestThreshold": "best_threshold",
        "metrics.CalibrationError": "calibration_error",
        "metrics.MaskedSSIM": "mssim ssim",
    },
    "tracker": {
        "trackers.CsvLogger": "csv CsvLogger",
        "trackers.Wandb": "Wandb",
        "trackers.Mlflow": "Mlflow",
        "trackers.TensorBoard": "tensorboard",
    },
    "early_stopper": {"callbacks.LossEarlyStopping": "LossEarlyStopping"},
}
TABLES: Final[Mapping[str, Mapping[str, str]]] = {
    kind: {
        name: path if path.startswith("torch.") else f"lis2_lightning.{path}"
        for path, listed in classes.items()
        for name in listed.split()
    }
    for kind, classes in _CLASSES.items()
}

# Where further names come from: a module, the base class of its public classes, and their place.
LIBRARIES: Final[Mapping[str, tuple[str, str, str]]] = {
    "optimizer": ("torch.optim", "Optimizer", "torch.optim"),
    "scheduler": ("torch.optim.lr_scheduler", "LRScheduler", "torch.optim.lr_scheduler"),
    "callback": ("lightning.pytorch.callbacks", "Callback", "lightning.pytorch.callbacks"),
    "accelerator": (
        "lightning.pytorch.accelerators",
        "Accelerator",
        "lightning.pytorch.accelerators",
    ),
    "profiler": ("lightning.pytorch.profilers", "Profiler", "lightning.pytorch.profilers"),
    "strategy": ("lightning.pytorch.strategies", "Strategy", "lightning.pytorch.strategies"),
    "plugin": ("lightning.pytorch.plugins", "", "lightning.pytorch.plugins"),
}

# What is meant where nothing is named: by --optimizer.lr 0.01 and by --metrics+=iou.
USUAL: Final = {"optimizer": "Adam", "loss": "BCELoss", "early_stopper": "LossEarlyStopping"}
USUAL_METRICS: Final = ("average_precision", "dice", "roc_auc")

# Which kind of component stands under which key, wherever in a configuration the key occurs.
KINDS: Final[Mapping[str, str]] = {
    **{kind: kind for kind in ("model", "encoder", "optimizer", "scheduler", "loss")},
    **dict.fromkeys(("train_dataset", "val_dataset", "test_dataset", "datasets"), "dataset"),
    "data_augmentations": "augmentation",
    "metrics": "metric",
    "trackers": "tracker",
    "early_stopper": "early_stopper",
    "sampler": "sampler",
}
# The same for arguments of the Lightning trainer.
LIGHTNING_KINDS: Final = {
    "callbacks": "callback",
    "accelerator": "accelerator",
    "profiler": "profiler",
    "strategy": "strategy",
    "plugins": "plugin",
}


@cache
def names(kind: str) -> Mapping[str, str]:
    """All short names of a kind, also of torch's own classes, with their import paths."""
    table = dict(TABLES.get(kind, {}))
    if kind in LIBRARIES:
        module_name, base_name, place = LIBRARIES[kind]
        module = importlib.import_module(module_name)
        base = getattr(module, base_name) if base_name else object
        for name, value in vars(module).items():
            public = inspect.isclass(value) and not name.startswith("_") and value is not base
            if public and issubclass(value, base):
                table.setdefault(name, f"{place}.{name}")
    return table


def _losses_of_torch() -> set[str]:
    return {name.lower() for name in vars(importlib.import_module("torch.nn.modules.loss"))}


def class_path(kind: str, name: str, *, key: str) -> str:
    """The import path of a component: its short name's, or the path itself where it has a dot.

    Short names are case-insensitive.

    Raises:
        ConfigError: The name is unknown; the message suggests the nearest valid ones.

    >>> class_path("metric", "dcie", key="metrics")
    Traceback (most recent call last):
    lis2_lightning.errors.ConfigError: unknown metric 'dcie' in metrics: did you mean 'dice'?
    """
    if re.fullmatch(r"[\w.]+", name) and "." in name:
        return name
    folded = {short.lower(): path for short, path in names(kind).items()}
    if name.lower() not in folded:
        if kind == "loss" and name.lower() in _losses_of_torch():
            raise ConfigError(
                f"{name} in {key} does not fit a target that is 0 or 1 in each pixel: valid are "
                f"{', '.join(names(kind))}"
            )
        hint = did_you_mean(name, names(kind))
        raise ConfigError(f"unknown {kind.replace('_', ' ')} {name!r} in {key}: {hint}")
    return folded[name.lower()]
