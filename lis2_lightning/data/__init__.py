"""From large images on disk to batches of labelled patches."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lis2_lightning.data.augment import (
    NoiseDataAugmentation,
    Normalize,
    RandomHorizontalFlip,
    RandomRotation,
    RandomVerticalFlip,
    ToTensor,
)
from lis2_lightning.data.balanced import BalancedSampler
from lis2_lightning.data.batch import AnyDataset, Batch
from lis2_lightning.data.dealing import batch_number
from lis2_lightning.data.open_raster import Raster, open_raster
from lis2_lightning.data.patches import PatchDataset
from lis2_lightning.data.splits import check_no_shared_pixels, tile_parts, warn_of_labels
from lis2_lightning.data.synthetic import SyntheticDataset, synthetic_maps
from lis2_lightning.data.tiles import ImageTiles, TileDataset, is_one_image
from lis2_lightning.data.truth import has_data

if TYPE_CHECKING:
    from lis2_lightning.data.datamodule import SegmentationData, first_batch

__all__ = [
    "AnyDataset",
    "BalancedSampler",
    "Batch",
    "ImageTiles",
    "NoiseDataAugmentation",
    "Normalize",
    "PatchDataset",
    "RandomHorizontalFlip",
    "RandomRotation",
    "RandomVerticalFlip",
    "Raster",
    "SegmentationData",
    "SyntheticDataset",
    "TileDataset",
    "ToTensor",
    "batch_number",
    "check_no_shared_pixels",
    "first_batch",
    "has_data",
    "is_one_image",
    "open_raster",
    "synthetic_maps",
    "tile_parts",
    "warn_of_labels",
]


def __getattr__(name: str) -> Any:
    """The two that bring Lightning with them are imported when they are asked for."""
    if name not in {"SegmentationData", "first_batch"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("lis2_lightning.data.datamodule"), name)
