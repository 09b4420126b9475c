"""The block ``data``: another spelling of the three data sets, all of which one flag reaches.

With a class it describes them; without one it changes those that are described elsewhere.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from lis2_lightning.config.loading import merge
from lis2_lightning.errors import ConfigError, did_you_mean

DATA: Final = "data"
_SPLITS: Final[Sequence[str]] = ("train", "val", "test")
_ALIKE: Final = ("image", "size", "normalization")  # what is usually the same for all
_ANY: Final = re.compile(rf"\b(?:{'|'.join(_SPLITS)})_dataset\b")
_log = logging.getLogger("lis2_lightning")


def separate(config: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the block ``data`` by the data sets that it stands for.

    Its keys are common to all of them, except for those in its sections ``train``, ``val`` and
    ``test``, and for ``folds`` where these are given by split.

    Raises:
        ConfigError: The block has no such form, or a data set is described in two places.

    >>> separate({"data": {"type": "TileDataset", "folds": {"train": [0, 1], "val": [2]},
    ...                    "train": {"stride": 8}}})
    {'train_dataset': {'type': 'TileDataset', 'stride': 8, 'folds': [0, 1]},
     'val_dataset': {'type': 'TileDataset', 'folds': [2]}}
    >>> separate({"train_dataset": {"type": "TileDataset", "size": 32}, "data": {"size": 64}})
    {'train_dataset': {'type': 'TileDataset', 'size': 64}}
    """
    rest = {key: value for key, value in config.items() if key != DATA}
    if config.get(DATA) is None:
        return rest
    common, sections = _parts(_flat(config[DATA], DATA))
    present = [split for split in _SPLITS if rest.get(_key(split)) is not None]
    if "type" in common:
        return _described(rest, common, sections)
    if not present:
        raise ConfigError(f"{DATA} names no class: add 'type: <name>' to it")
    for split in present:
        if not isinstance(rest[_key(split)], Mapping | str):
            raise ConfigError(f"{_key(split)} is an object, which {DATA} cannot change")
        changes = {**common, **sections.get(split, {})}
        rest = merge(rest, {f"{_key(split)}.{name}": value for name, value in changes.items()})
    return rest


def _described(
    rest: dict[str, Any], common: Mapping[str, Any], sections: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The data sets of a block with a class; what is written for one of them alone wins."""
    chosen = [split for split in _SPLITS if split == "train" or split in sections]
    for split in (split for split in _SPLITS if split in chosen or _key(split) in rest):
        alone = rest.get(_key(split), {})
        if isinstance(alone, Mapping) and not {"type", "class_path"} & set(alone):
            dataset = {**common, **sections.get(split, {})}
            rest = {**rest, _key(split): merge(dataset, _flat(alone, _key(split)))}
        elif alone is not None:
            raise ConfigError(
                f"{DATA} and {_key(split)} both describe a data set: keep one of them, or leave "
                f"the class out of {_key(split)} to change only what differs"
            )
    return rest


def _parts(block: dict[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What all data sets have in common, and what each has of its own."""
    sections: dict[str, dict[str, Any]] = {
        split: _flat(block.pop(split) or {}, f"{DATA}.{split}")
        for split in _SPLITS
        if split in block
    }
    if isinstance(block.get("folds"), Mapping):
        for split, folds in block.pop("folds").items():
            if split not in _SPLITS:
                hint = did_you_mean(str(split), _SPLITS)
                raise ConfigError(f"unknown split {split!r} in {DATA}.folds: {hint}")
            sections[split] = {**sections.get(split, {}), "folds": folds}
    return block, sections


def _flat(block: Any, path: str) -> dict[str, Any]:
    """A component in LIS2's spelling."""
    if not isinstance(block, Mapping):
        raise ConfigError(f"{path} must hold keys and values, got {block!r}")
    arguments = {**block, **(block.get("init_args") or {})}
    arguments.pop("init_args", None)
    return {"type" if key == "class_path" else str(key): v for key, v in arguments.items()}


def _key(split: str) -> str:
    return f"{split}_dataset"


def once_for_all(sentences: Iterable[str]) -> list[str]:
    """The same mistake in several data sets as one sentence about the block.

    >>> once_for_all(["unknown key 'train_dataset.a'", "unknown key 'val_dataset.a'", "no seed"])
    ["unknown key 'data.a' (in train_dataset and val_dataset)", 'no seed']
    """
    alike: dict[str, dict[str, str]] = {}  # where each is said, and how
    for sentence in sentences:
        name = _ANY.search(sentence)
        where = name[0] if name else ""
        alike.setdefault(_ANY.sub(DATA, sentence), {}).setdefault(where, sentence)
    merged = []
    for general, places in alike.items():
        *others, last = places
        merged.append(f"{general} (in {', '.join(others)} and {last})" if others else places[last])
    return merged


def warn_of_differences(config: Mapping[str, Any]) -> None:
    """Warn where the data sets of a resolved configuration differ in what is usually common.

    Another image with another target is meant to be one.
    """
    datasets = {_key(split): config.get(_key(split)) or {} for split in _SPLITS}
    arguments = {
        key: dataset.get("init_args") or {}
        for key, dataset in datasets.items()
        if "class_path" in dataset
        and dataset["class_path"] == datasets["train_dataset"].get("class_path")
    }
    num_targets = len({str(inner.get("target")) for inner in arguments.values()})
    for name in _ALIKE:
        values = {key: str(inner.get(name)) for key, inner in arguments.items()}
        if len(set(values.values())) > (num_targets if name == "image" else 1):
            listed = ", ".join(f"{value} in {key}" for key, value in values.items())
            _log.warning("%s is %s: %s.%s sets it for all", name, listed, DATA, name)
