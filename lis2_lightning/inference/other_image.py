"""The configuration that maps another image with a trained network: no truth, no training data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lis2_lightning.config import merge, to_class_paths
from lis2_lightning.errors import ConfigError

_SPLITS: Final = ("test_dataset", "val_dataset", "train_dataset")
# what of a snapshot's configuration decides a map; the device is decided by where it is made
_NETWORK: Final = (
    "model", "loss", "batch_size", "num_workers", "compile", "channels_last", "tta", "seed",
)  # fmt: skip
# what of a data set decides what the network is shown
_TILES: Final = ("size", "stride", "normalization", "data_augmentations")
_CUT: Final = frozenset({"TileDataset", "SyntheticDataset", "ImageTiles"})


def for_image(
    config: Mapping[str, Any], image: Any, *, source: str, overrides: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of a snapshot's configuration and of overrides maps another image with its network.

    Arguments, errors and the data set are those of :func:`data_of_image`; overrides may change how
    tiles are cut.
    """
    data = data_of_image(merge(config, overrides), image, source=source)
    precision = (config.get("lightning") or {}).get("precision")
    network = {key: config[key] for key in _NETWORK if key in config}
    if precision is not None:
        network["lightning"] = {"precision": precision}
    kept = {key: item for key, item in overrides.items() if key.partition(".")[0] not in _SPLITS}
    return {**network, **data}, kept


def data_of_image(config: Mapping[str, Any], image: Any, *, source: str) -> dict[str, Any]:
    """The data sets of a configuration, replaced by another image without truth.

    Its tiles are cut and normalised as those of the test set, or of the validation or training set
    where there is none; of several data sets joined to one, as those of the first. No file that the
    configuration names is used. Errors name its ``source``.

    Raises:
        ConfigError: The data set does not say how tiles are cut.

    >>> config = {"train_dataset": {"type": "TileDataset", "image": "gone.npy", "size": 64}}
    >>> data_of_image(config, "other.fits", source="best.pt")["train_dataset"]["init_args"]
    {'image': 'other.fits', 'size': 64}
    """
    split = next((split for split in _SPLITS if config.get(split)), "train_dataset")
    arguments = _arguments(config.get(split), split, source)
    tiles: dict[str, Any] = {
        "image": image,
        **{key: arguments[key] for key in _TILES if key in arguments},
    }
    dataset = {"class_path": "lis2_lightning.data.ImageTiles", "init_args": tiles}
    return {"train_dataset": dataset, "val_dataset": None, "test_dataset": None}


def _arguments(dataset: Any, split: str, source: str) -> dict[str, Any]:
    component = dataset or {}
    if isinstance(dataset, str) or "object" not in component:
        component = to_class_paths({split: component})[split]
    path = str(component.get("class_path", component.get("object")))
    if path == "torch.utils.data.ConcatDataset":  # all tiles of a run are cut alike
        return _arguments(component["init_args"]["datasets"][0], split, source)
    name = path.rpartition(".")[2]
    if "object" in component or name not in _CUT or not path.startswith("lis2_lightning."):
        raise ConfigError(
            f"the {split} of {source} ({name}) does not say how tiles are cut from another image: "
            f"add --{split} '{{type: TileDataset, size: 32, normalization: direct}}' with the "
            "values of the training"
        )
    return dict(component.get("init_args") or {})
