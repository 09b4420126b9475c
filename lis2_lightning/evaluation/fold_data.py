"""The data sets of each fold of a cross-validation, as a configuration has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lis2_lightning.config.mistakes import imported
from lis2_lightning.data import PatchDataset, TileDataset
from lis2_lightning.errors import ConfigError

Config = dict[str, Any]
SPLITS: Final = ("train_dataset", "val_dataset", "test_dataset")
LEAST: Final = 3
_USUAL: Final = 5
_MAPS: Final = ("image", "target", "dataset_path")
# in what the data sets may differ
_OWN: Final = (
    "stride",
    "size",
    "normalization",
    "data_augmentations",
    "toEncode",
    "keep_unlabelled",
    "use_all_patches",
)


def number_of_folds(config: Mapping[str, Any], requested: int | None) -> int:
    """How many folds there are: those asked for, of the configuration, or five.

    Raises:
        ConfigError: There are too few for training, validation and test.
    """
    num = _configured(config) if requested is None else requested
    if num < LEAST:
        raise ConfigError(
            f"folds must be at least {LEAST}, for training, validation and test, not {num}"
        )
    return num


def _configured(config: Mapping[str, Any]) -> int:
    arguments = _arguments(config)
    dealt = arguments.get("area_folds") or {}
    num = int(dealt.get("num_folds") or arguments.get("num_folds") or 0)
    return num if num >= LEAST else _USUAL


def data_of_fold(config: Mapping[str, Any], fold: int, num_folds: int) -> Config:
    """The data sets of one fold: it is tested on, the next one validated, the others trained on.

    The keys of ``train_dataset`` decide which image is divided, and how. Where a file of LIS2's
    pipeline trains on fewer folds, those before the tested one stay unused.

    Args:
        config: A resolved configuration.
        fold: The fold, from 0.
        num_folds: How many there are.

    Raises:
        ConfigError: The data sets are not tiles or patches with folds, or not of one image.
    """
    kind = _kind(config)
    _check_one_image(config)
    turn = [(fold + step) % num_folds for step in range(num_folds)]
    num_val = _widths(config, kind, num_folds)
    chosen = (turn[1 + num_val : num_folds - num_val + 1], turn[1 : 1 + num_val], turn[:1])
    return {
        split: _dataset(config, split, kind, num_folds, sorted(folds))
        for split, folds in zip(SPLITS, chosen, strict=True)
    }


def data_of_all(config: Mapping[str, Any], num_folds: int) -> Config:
    """The data set of all folds, of which the truth of the whole image is read."""
    return _dataset(config, "test_dataset", _kind(config), num_folds, [*range(num_folds)])


def _kind(config: Mapping[str, Any]) -> type[TileDataset] | type[PatchDataset]:
    dataset = config["train_dataset"]
    named = imported(dataset)
    kinds = (TileDataset, PatchDataset)
    kind = next((kind for kind in kinds if named and issubclass(named, kind)), None)
    if kind is PatchDataset and not _arguments(config).get("area_folds"):
        raise ConfigError(
            "cross-validation deals areas to folds, and train_dataset has patches without "
            "area_folds: add area_folds: {num_folds: 5, area_size: 64}"
        )
    if kind is PatchDataset and (_arguments(config)["area_folds"].get("overlap") or 0) > 0:
        raise ConfigError(
            "area_folds with an overlap lets patches of two folds share pixels, and no figure on "
            "them would be honest: set overlap to 0"
        )
    if kind is None:
        name = dataset.get("class_path", dataset.get("object"))
        raise ConfigError(
            f"cross-validation divides an image into folds, and train_dataset is {name}: describe "
            "a TileDataset, a SyntheticDataset or a PatchDataset with area_folds"
        )
    return kind


def _widths(config: Mapping[str, Any], kind: type, num_folds: int) -> int:
    """How many folds are for validation: more than one where LIS2's ``train_ratio`` says so."""
    listed = (config["val_dataset"] or {}).get("init_args", {}).get("fold_list") or []
    is_theirs = kind is PatchDataset and num_folds == _configured(config)
    return max(1, len(listed)) if is_theirs and 2 * len(listed) < num_folds else 1


def _dataset(
    config: Mapping[str, Any], split: str, kind: type, num_folds: int, folds: list[int]
) -> Config:
    """A data set of some folds; it has its own keys where it is configured."""
    train, own = config["train_dataset"], config[split] or config["val_dataset"]
    theirs = {"data_augmentations": None} if own is None else own.get("init_args") or {}
    arguments = _arguments(config) | {key: theirs[key] for key in _OWN if key in theirs}
    if issubclass(kind, TileDataset):
        return {**train, "init_args": {**arguments, "num_folds": num_folds, "folds": folds}}
    arguments["area_folds"] = {**arguments["area_folds"], "num_folds": num_folds}
    if split == "test_dataset":  # every patch is mapped, whatever its target is
        arguments |= {"use_all_patches": True, "stride": 1}
    return {**train, "init_args": {**arguments, "fold_list": folds}}


def _check_one_image(config: Mapping[str, Any]) -> None:
    for split in SPLITS[1:]:
        for key in _MAPS:
            mine = _arguments(config).get(key)
            theirs = ((config[split] or {}).get("init_args") or {}).get(key, mine)
            if mine != theirs:
                raise ConfigError(
                    f"cross-validation divides one image, and {key} of {split} is {theirs}, that "
                    f"of train_dataset {mine}: list all images in train_dataset"
                )


def _arguments(config: Mapping[str, Any]) -> Config:
    return dict(config["train_dataset"].get("init_args") or {})
