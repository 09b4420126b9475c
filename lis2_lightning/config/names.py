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

_OURS: Final = "lis2_lightning."
_METRICS: Final = {
    "AveragePrecision": "average_precision map ap",
    "Dice": "dice dice_index",
    "RocAuc": "roc_auc auc",
    "IoU": "iou",
    "Precision": "precision",
    "Recall": "recall",
    "BestDice": "best_dice",
    "BestThreshold": "best_threshold",
    "CalibrationError": "calibration_error",
    "MaskedSSIM": "mssim ssim",
}
_FLIPS: Final = ("RandomHorizontalFlip", "RandomVerticalFlip")
_AUGMENTATIONS: Final = (
    "ToTensor",
    *_FLIPS,
    "RandomRotation",
    "NoiseDataAugmentation",
    "Normalize",
)
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
    },
    "augmentation": {f"data.{name}": name for name in _AUGMENTATIONS},
    "optimizer": {},
    "scheduler": {},
    "loss": {
        "torch.nn.BCELoss": "bce",
        "losses.DiceLoss": "dice_loss",
        "losses.BceDiceLoss": "bce_dice_loss",
    },
    "metric": {f"metrics.{name}": short for name, short in _METRICS.items()},
    "tracker": {
        "trackers.CsvLogger": "csv CsvLogger",
        "trackers.Wandb": "Wandb",
        "trackers.Mlflow": "Mlflow",
        "trackers.TensorBoard": "tensorboard",
    },
    "early_stopper": {"callbacks.LossEarlyStopping": "LossEarlyStopping"},
}
TABLES: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        kind: {
            name: path if path.startswith("torch.") else _OURS + path
            for path, listed in classes.items()
            for name in listed.split()
        }
        for kind, classes in _CLASSES.items()
    }
)

# Where further names come from: a module, the base class of its public classes, and their place.
_LIBRARIES: Final[Mapping[str, tuple[str, str, str]]] = {
    "optimizer": ("torch.optim", "Optimizer", "torch.optim"),
    "scheduler": ("torch.optim.lr_scheduler", "LRScheduler", "torch.optim.lr_scheduler"),
    "loss": ("torch.nn.modules.loss", "_Loss", "torch.nn"),
}

# Which kind of component stands under which key, wherever in a configuration the key occurs.
KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **{kind: kind for kind in ("model", "encoder", "optimizer", "scheduler", "loss")},
        **dict.fromkeys(("train_dataset", "val_dataset", "test_dataset"), "dataset"),
        "data_augmentations": "augmentation",
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
        module_name, base_name, place = _LIBRARIES[kind]
        module = importlib.import_module(module_name)
        base = getattr(module, base_name)
        for name, value in vars(module).items():
            public = inspect.isclass(value) and not name.startswith("_") and value is not base
            if public and issubclass(value, base):
                table.setdefault(name, f"{place}.{name}")
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
