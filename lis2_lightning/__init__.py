"""Train segmentation networks on one very large, partly labelled image, on PyTorch Lightning."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lis2_lightning._version import __version__
from lis2_lightning.base.imports import collecting_later
from lis2_lightning.errors import (
    ConfigError,
    DataError,
    Lis2Error,
    SnapshotError,
    TrainingError,
)

if TYPE_CHECKING:
    from lis2_lightning.data import (
        PatchDataset,
        SegmentationData,
        SyntheticDataset,
        TileDataset,
        open_raster,
    )
    from lis2_lightning.evaluation.cross_validation import CrossValidation
    from lis2_lightning.evaluation.tuning import Tuning
    from lis2_lightning.models import UNet
    from lis2_lightning.segmenter import Segmenter
    from lis2_lightning.trainer import Trainer
    from lis2_lightning.training.module import SegmentationModule

# Where the names live that bring torch with them: they are imported when they are asked for.
_LATE = {
    "CrossValidation": "lis2_lightning.evaluation.cross_validation",
    "PatchDataset": "lis2_lightning.data",
    "SegmentationData": "lis2_lightning.data",
    "SegmentationModule": "lis2_lightning.training.module",
    "Segmenter": "lis2_lightning.segmenter",
    "SyntheticDataset": "lis2_lightning.data",
    "TileDataset": "lis2_lightning.data",
    "Trainer": "lis2_lightning.trainer",
    "Tuning": "lis2_lightning.evaluation.tuning",
    "UNet": "lis2_lightning.models",
    "open_raster": "lis2_lightning.data",
}

__all__ = [
    "ConfigError",
    "CrossValidation",
    "DataError",
    "Lis2Error",
    "PatchDataset",
    "SegmentationData",
    "SegmentationModule",
    "Segmenter",
    "SnapshotError",
    "SyntheticDataset",
    "TileDataset",
    "Trainer",
    "TrainingError",
    "Tuning",
    "UNet",
    "__version__",
    "open_raster",
]


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with collecting_later():
        return getattr(import_module(_LATE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
