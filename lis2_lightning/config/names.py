"""The short names of components: one table for each kind, from name to import path.

The tables hold import paths and not classes, so that reading a configuration imports only what it
names. LIS2's own names stay valid; names are case-insensitive. Every class of ``torch.optim``,
``torch.optim.lr_scheduler`` and every loss of ``torch.nn`` is known by its own name, too.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Final

from lis2_lightning.errors import ConfigError, did_you_mean

_OURS: Final = "lis2_lightning"

TABLES: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "model": {
            "unet": f"{_OURS}.models.UNet",
            "base_unet": f"{_OURS}.models.UNet",
        },
        "encoder": {
            "LinPositionEncoding": f"{_OURS}.models.LinPositionEncoding",
            "LinEncoding": f"{_OURS}.models.LinPositionEncoding",
            "Lin": f"{_OURS}.models.LinPositionEncoding",
            "SinPositionEncoding": f"{_OURS}.models.SinPositionEncoding",
            "SinEncoding": f"{_OURS}.models.SinPositionEncoding",
            "Sin": f"{_OURS}.models.SinPositionEncoding",
            "IdentityPositionEncoding": f"{_OURS}.models.IdentityPositionEncoding",
            "IdentityEncoding": f"{_OURS}.models.IdentityPositionEncoding",
            "Identity": f"{_OURS}.models.IdentityPositionEncoding",
        },
        "dataset": {
            "TileDataset": f"{_OURS}.data.TileDataset",
            "SyntheticDataset": f"{_OURS}.data.SyntheticDataset",
            "PatchDataset": f"{_OURS}.data.PatchDataset",
            "FilamentsDataset": f"{_OURS}.data.PatchDataset",
        },
        "augmentation": {
            name: f"{_OURS}.data.{name}"
            for name in (
                "ToTensor",
                "RandomHorizontalFlip",
                "RandomVerticalFlip",
                "RandomRotation",
                "NoiseDataAugmentation",
                "Normalize",
            )
        },
        "optimizer": {},
        "scheduler": {},
        "loss": {
            "bce": "torch.nn.BCELoss",
            "dice_loss": f"{_OURS}.losses.DiceLoss",
            "bce_dice_loss": f"{_OURS}.losses.BceDiceLoss",
        },
        "metric": {
            "average_precision": f"{_OURS}.metrics.AveragePrecision",
            "map": f"{_OURS}.metrics.AveragePrecision",
            "ap": f"{_OURS}.metrics.AveragePrecision",
            "dice": f"{_OURS}.metrics.Dice",
            "dice_index": f"{_OURS}.metrics.Dice",
            "roc_auc": f"{_OURS}.metrics.RocAuc",
            "auc": f"{_OURS}.metrics.RocAuc",
            "iou": f"{_OURS}.metrics.IoU",
            "precision": f"{_OURS}.metrics.Precision",
            "recall": f"{_OURS}.metrics.Recall",
            "best_dice": f"{_OURS}.metrics.BestDice",
            "best_threshold": f"{_OURS}.metrics.BestThreshold",
            "calibration_error": f"{_OURS}.metrics.CalibrationError",
            "mssim": f"{_OURS}.metrics.MaskedSSIM",
            "ssim": f"{_OURS}.metrics.MaskedSSIM",
        },
        "tracker": {
            "csv": f"{_OURS}.trackers.CsvLogger",
            "CsvLogger": f"{_OURS}.trackers.CsvLogger",
            "Wandb": f"{_OURS}.trackers.Wandb",
            "Mlflow": f"{_OURS}.trackers.Mlflow",
            "tensorboard": f"{_OURS}.trackers.TensorBoard",
        },
        "early_stopper": {
            "LossEarlyStopping": f"{_OURS}.callbacks.LossEarlyStopping",
        },
    }
)

# Where a kind's further names come from: a module, and the base class its public classes share.
_LIBRARIES: Final[Mapping[str, tuple[str, str, str]]] = MappingProxyType(
    {
        "optimizer": ("torch.optim", "torch.optim", "Optimizer"),
        "scheduler": ("torch.optim.lr_scheduler", "torch.optim.lr_scheduler", "LRScheduler"),
        "loss": ("torch.nn.modules.loss", "torch.nn.modules.loss", "_Loss"),
    }
)

# Which kind of component stands under which key, wherever in a configuration the key occurs.
KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "model": "model",
        "encoder": "encoder",
        "train_dataset": "dataset",
        "val_dataset": "dataset",
        "test_dataset": "dataset",
        "data_augmentations": "augmentation",
        "optimizer": "optimizer",
        "scheduler": "scheduler",
        "loss": "loss",
        "metrics": "metric",
        "trackers": "tracker",
        "early_stopper": "early_stopper",
    }
)


@cache
def names(kind: str) -> Mapping[str, str]:
    """All short names of a kind with the import path each stands for.

    >>> names("optimizer")["AdamW"]
    'torch.optim.AdamW'
    >>> names("metric")["map"]
    'lis2_lightning.metrics.AveragePrecision'
    """
    table = dict(TABLES[kind])
    if kind in _LIBRARIES:
        module_name, base_module, base_name = _LIBRARIES[kind]
        module = importlib.import_module(module_name)
        base = getattr(importlib.import_module(base_module), base_name)
        prefix = "torch.nn" if kind == "loss" else module_name
        for name, value in vars(module).items():
            public = inspect.isclass(value) and not name.startswith("_") and value is not base
            if public and issubclass(value, base):
                table.setdefault(name, f"{prefix}.{name}")
    return MappingProxyType(table)


def class_path(kind: str, name: str, *, key: str) -> str:
    """The import path of a component: its short name's, or the path itself where it has a dot.

    Args:
        kind: One of :data:`TABLES`.
        name: A short name (case-insensitive) or a dotted import path.
        key: The configuration key it stands under, to name in an error.

    Raises:
        ConfigError: The name is unknown; the sentence has the nearest valid ones.

    >>> class_path("model", "UNet", key="model")
    'lis2_lightning.models.UNet'
    >>> class_path("metric", "dcie", key="metrics")
    Traceback (most recent call last):
    lis2_lightning.errors.ConfigError: unknown metric 'dcie' in metrics: did you mean 'dice'?
    """
    if "." in name:
        return name
    folded = {short.lower(): path for short, path in names(kind).items()}
    if name.lower() not in folded:
        hint = did_you_mean(name, names(kind))
        raise ConfigError(f"unknown {kind.replace('_', ' ')} {name!r} in {key}: {hint}")
    return folded[name.lower()]


def lis2_name(kind: str, path: str) -> str:
    """The first short name of an import path, or the path itself where it has none.

    >>> lis2_name("model", "lis2_lightning.models.UNet")
    'unet'
    """
    return next((short for short, target in names(kind).items() if target == path), path)
