"""LIS2's other ways to say what to train: files of its pipeline, and arguments of its scripts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from lis2_lightning.errors import ConfigError, did_you_mean

_SETS: Final = {"trainset": "train_dataset", "validset": "val_dataset", "testset": "test_dataset"}
_DEALING: Final = {"RandomController": "in_turn", "NaiveController": "in_blocks"}
_AREAS: Final = {"area_size": 64, "patch_size": 32, "overlap": 0}  # LIS2's defaults
_NUM_FOLDS: Final = ("nb_folds", "k")
_TRAIN_RATIO: Final = ("train_ratio", "k_train")
_NO_EFFECT: Final = ("inference_source", "gpus", "nb_folds", "name")
_FILES: Final = ("indices_path", "save_indices", "dataset_path", "name")
_ARGUMENTS: Final = ("debug", "force_device", "multi_gpu")
_ACCELERATORS: Final = {"cpu": "cpu", "cuda": "gpu", "mps": "mps"}  # torch's names, Lightning's
_log = logging.getLogger("lis2_lightning")


def from_pipeline(config: dict[str, Any], *, is_for_all: bool = False) -> dict[str, Any]:
    """A configuration of LIS2's pipeline, which has sections, in our keys; any other as it is.

    Where it is for all of the runs that LIS2 makes of it, none of them needs to be chosen.

    Raises:
        ConfigError: It asks for several runs, or for folds that are unknown here.
    """
    data, trainer = config.get("data"), config.get("trainer")
    has_sets = isinstance(data, Mapping) and not {*_SETS, "controller"}.isdisjoint(data)
    if not (has_sets or isinstance(trainer, Mapping) or "train_output_dir" in config):
        return config
    if "gridsearch" in config and not is_for_all:
        raise ConfigError("gridsearch asks for several runs: lis2 tune makes them of this file")
    if not isinstance(trainer, Mapping | None):
        raise ConfigError(f"trainer must hold keys and values, got {trainer!r}")
    keys = {key: value for key, value in config.items() if key not in {"trainer", *_NO_EFFECT}}
    if "train_output_dir" in keys:
        keys["output_dir"] = keys.pop("train_output_dir")
    if has_sets:
        run_name = str(keys.get("run_name", "run"))
        keys |= _data_sets(keys.pop("data"), run_name, is_for_all=is_for_all)
    unused = [key for key in _NO_EFFECT if key in config]
    note = f"; without effect here: {', '.join(unused)}" if unused else ""
    _log.info("the configuration is one of LIS2's pipeline%s", note)
    return {**(trainer or {}), **keys}


def _data_sets(data: Mapping[str, Any], run_name: str, *, is_for_all: bool) -> dict[str, Any]:
    """The data sets that LIS2 makes of its section `data`, and the run's name."""
    controller = data.get("controller")
    if not isinstance(controller, Mapping) or controller.get("type") not in _DEALING:
        raise ConfigError(
            f"data.controller must have a type of {', '.join(_DEALING)}, got {controller!r}: or "
            "write train_dataset, val_dataset and test_dataset, each with fold_assignments and "
            "fold_list"
        )
    _check_keys(data, {"type", "dataset_path", "name", "controller", *_SETS}, "data")
    known = {"type", "split", *_AREAS, *_NUM_FOLDS, *_TRAIN_RATIO, *_FILES}
    _check_keys(controller, known, "data.controller")
    for theirs in _SETS:
        if not isinstance(data.get(theirs), Mapping):
            raise ConfigError(f"data.{theirs} must hold keys and values, got {data.get(theirs)!r}")
    num_folds = _first(controller, _NUM_FOLDS, default=1)
    splits = _splits(num_folds, _first(controller, _TRAIN_RATIO, default=0.8))
    is_alone = is_for_all or len(splits) == 1
    split = 0 if is_for_all else controller.get("split", 0 if is_alone else None)
    if split not in range(len(splits)):
        raise ConfigError(
            f"data.controller.split must be a number from 0 to {len(splits) - 1}, one for each run "
            f"that LIS2 makes of this file, got {split!r}; lis2 cross-validate makes all of them"
        )
    folds = {
        "dealing": _DEALING[controller["type"]],
        "num_folds": 10 if num_folds == 1 else num_folds,
        **{key: controller.get(key, default) for key, default in _AREAS.items()},
    }
    shared = {key: data[key] for key in ("type", "dataset_path") if key in data}
    sets = {
        ours: {**data[theirs], **shared, "area_folds": folds, "fold_list": fold_list}
        for (theirs, ours), fold_list in zip(_SETS.items(), splits[split], strict=True)
    }
    return {**sets, "run_name": run_name if is_alone else f"{run_name}_fold_{split}"}


def _check_keys(section: Mapping[str, Any], known: set[str], path: str) -> None:
    for key in section:
        if key not in known:
            raise ConfigError(f"unknown key '{path}.{key}': {did_you_mean(str(key), known)}")


def _first(controller: Mapping[str, Any], names: tuple[str, ...], *, default: float) -> Any:
    """A number that has two names; a whole one if the default is."""
    value = next((controller[name] for name in names if name in controller), default)
    if isinstance(value, int) or (isinstance(value, float) and isinstance(default, float)):
        return value
    kind = "a number" if isinstance(default, float) else "a whole number"
    raise ConfigError(f"data.controller.{names[0]} must be {kind}, got {value!r}")


def _splits(num_folds: int, train_ratio: float) -> list[tuple[list[int], ...]]:
    """The folds for training, validation and test in each of LIS2's runs.

    A single run has ten folds: the first for training, and of the others the first half for
    validation. Of several runs, each begins validation and test at the fold of its own number.

    >>> _splits(1, 0.8)
    [([0, 1, 2, 3, 4, 5, 6, 7], [8], [9])]
    >>> _splits(4, 0.5)[3]
    ([1, 2], [3], [0])
    """
    total = 10 if num_folds == 1 else num_folds
    num_train = round(total * train_ratio, 6)
    width = (total - num_train) / 2
    if width not in ({0, 1, 2, 3, 4, 5} if num_folds == 1 else {1, 2}) or num_train < 0:
        allowed = "an even number of tenths" if num_folds == 1 else "all but 2 or 4 of the folds"
        raise ConfigError(
            f"data.controller.train_ratio {train_ratio:g} with {num_folds} folds is none of LIS2's "
            f"splits: training has {allowed}"
        )
    width, folds = int(width), list(range(total))
    if num_folds == 1:
        first = total - 2 * width
        return [(folds[:first], folds[first : first + width], folds[first + width :])]
    splits: list[tuple[list[int], ...]] = []
    for begin in folds:
        rest = [fold % total for fold in range(begin, begin + total)]
        splits.append((sorted(rest[2 * width :]), rest[:width], rest[width : 2 * width]))
    return splits


def from_script(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the arguments of LIS2's scripts as keys of `lightning`.

    Raises:
        ConfigError: `force_device` is no device of Lightning's.
    """
    arguments = {key: config[key] for key in _ARGUMENTS if key in config}
    if not arguments:
        return dict(config)
    devices: dict[str, Any] = {}
    if arguments.get("multi_gpu") is not None:
        devices["devices"] = "auto" if arguments["multi_gpu"] else 1
    if arguments.get("force_device") is not None:
        devices |= _device(str(arguments["force_device"]))
    names = ", ".join(f"{name}={value}" for name, value in arguments.items())
    here = ", ".join(f"lightning.{key}={value}" for key, value in devices.items())
    _log.info("LIS2's %s: here %s", names, here or "without effect")
    rest = {key: value for key, value in config.items() if key not in arguments}
    lightning = rest.get("lightning") or {}
    if devices and isinstance(lightning, Mapping):
        rest["lightning"] = {**devices, **lightning}
    return rest


def _device(name: str) -> dict[str, Any]:
    kind, _, index = ("cuda" if name.isdigit() else name).partition(":")
    index = name if name.isdigit() else index
    if kind not in _ACCELERATORS or not (index or "0").isdigit():
        raise ConfigError(
            f"force_device {name!r} is unknown: use cpu, cuda, cuda:0 or mps, or set "
            "lightning.accelerator and lightning.devices"
        )
    devices = [int(index)] if index and kind == "cuda" else 1
    return {"accelerator": _ACCELERATORS[kind], "devices": devices}
