"""The configuration that maps another image with a trained network: no truth, no training data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lis2_lightning.config import to_class_paths
from lis2_lightning.errors import ConfigError

# what of a configuration decides a map; the device is decided by where it runs
_NETWORK: Final = ("model", "loss", "batch_size", "num_workers", "compile", "seed")
_SPLITS: Final = ("test_dataset", "val_dataset", "train_dataset")
# what of a data set decides what the network is shown
_TILES: Final = ("size", "stride", "normalization", "data_augmentations")
_CUT: Final = frozenset({"TileDataset", "SyntheticDataset", "ImageTiles"})


def config_for_image(config: Mapping[str, Any], image: str, *, source: str) -> dict[str, Any]:
    """What is needed of a configuration to map an image with its network.

    Tiles are cut and normalised as those of its test set, or of its validation or training set
    where there is none. No other file that it names is used. Errors name the ``source``.

    Raises:
        ConfigError: The data set does not say how tiles are cut.

    >>> config = {"model": "unet", "epochs": 9, "train_dataset": {
    ...     "type": "TileDataset", "image": "gone.npy", "target": "gone_too.npy", "size": 64}}
    >>> config_for_image(config, "other.fits", source="best.pt")
    {'model': 'unet', 'train_dataset': {'class_path': 'lis2_lightning.data.ImageTiles',
     'init_args': {'image': 'other.fits', 'size': 64}}}
    """
    split = next((split for split in _SPLITS if config.get(split)), "train_dataset")
    arguments = _arguments(config.get(split), split, source)
    tiles = {key: arguments[key] for key in _TILES if key in arguments}
    used = {key: config[key] for key in _NETWORK if key in config}
    if precision := (config.get("lightning") or {}).get("precision"):
        used["lightning"] = {"precision": precision}
    data = {"class_path": "lis2_lightning.data.ImageTiles", "init_args": {"image": image, **tiles}}
    return {**used, "train_dataset": data}


def _arguments(dataset: Any, split: str, source: str) -> dict[str, Any]:
    component = dataset or {}
    if isinstance(dataset, str) or "object" not in component:
        component = to_class_paths({split: component})[split]
    path = str(component.get("class_path", component.get("object")))
    name = path.rpartition(".")[2]
    if "object" in component or name not in _CUT or not path.startswith("lis2_lightning."):
        raise ConfigError(
            f"the {split} of {source} ({name}) does not say how tiles are cut from another image: "
            f"add --{split} '{{type: TileDataset, size: 32, normalization: direct}}' with the "
            "values of the training"
        )
    return dict(component.get("init_args") or {})
