"""The equivalent configuration for a bare ``LightningCLI``: nobody is locked in by the facade.

It names the same network, data sets, loss, optimizer and seed, and the callbacks that decide what
is trained. What only the facade does is in its comments: snapshots that LIS2 reads, resuming
inside an epoch, and the final evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from lis2_lightning.config import describe
from lis2_lightning.data import AnyDataset, SegmentationData
from lis2_lightning.errors import ConfigError
from lis2_lightning.metrics import default_metrics

_HEADER: Final = """\
# The same run for Lightning alone. Run it with
#   python -c "from lightning.pytorch.cli import LightningCLI; LightningCLI()" fit -c THIS_FILE
# It trains the same weights. Snapshots become Lightning's checkpoints, logs_train.csv becomes
# metrics.csv, and there is no final evaluation: run `test` for it. `resume` has no counterpart
# but --ckpt_path.
"""
_OURS: Final = "lis2_lightning.callbacks"
_LOGGERS: Final = "lightning.pytorch.loggers"
_BATCHNORM: Final = "lis2_lightning.parallel.batchnorm.SharedBatchNorm"


def lightning_yaml(config: Mapping[str, Any]) -> str:
    """Write the configuration of the same run for a bare ``LightningCLI``.

    Args:
        config: Every documented key as plain values, as ``trainer.global_config`` has it.

    Returns:
        YAML with the keys ``seed_everything``, ``trainer``, ``model`` and ``data``.

    Raises:
        ConfigError: A component was passed as an object, which a file cannot name.
    """
    objects = [key for key, value in config.items() if _is_object(value)]
    if objects:
        raise ConfigError(
            f"{', '.join(objects)}: passed as objects, which a file cannot name: use class_path "
            "and init_args instead"
        )
    seed = config["seed"] or 0
    bare = {
        "seed_everything": seed,
        "trainer": _trainer(config),
        "model": {
            "class_path": "lis2_lightning.SegmentationModule",
            "init_args": _module(config),
        },
        "data": {
            "class_path": "lis2_lightning.assembly.lightning_config.data",
            "init_args": _data(config, seed),
        },
    }
    return _HEADER + yaml.safe_dump(bare, sort_keys=False)


def data(
    *,
    train: AnyDataset,
    val: AnyDataset | None = None,
    test: AnyDataset | None = None,
    batch_size: int = 256,
    num_workers: int | Literal["auto"] = "auto",
    seed: int = 0,
) -> SegmentationData:
    """The data sets of a run and their loaders, with types that jsonargparse can build.

    Args:
        train: What is trained on.
        val: What is validated on, or null.
        test: What is tested on, or null for ``val``.
        batch_size: Samples in a batch of one process.
        num_workers: Worker processes of a loader, or ``auto``.
        seed: Decides order and augmentation.
    """
    return SegmentationData(
        train=train,
        val=val,
        test=test,
        batch_size=batch_size,
        num_workers=num_workers,
        seed=seed,
    )


def _is_object(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_is_object, value))
    return isinstance(value, Mapping) and "object" in value


def _module(config: Mapping[str, Any]) -> dict[str, Any]:
    usual = [{"class_path": describe(metric)["object"]} for metric in default_metrics()]
    keys = ("model", "loss", "optimizer", "scheduler", "scheduler_interval")
    return {
        **{key: config[key] for key in keys},
        "metrics": usual if config["metrics"] is None else config["metrics"],
        "compile_model": config["compile"],
    }


def _data(config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    return {
        **{split: config[f"{split}_dataset"] for split in ("train", "val", "test")},
        "batch_size": config["batch_size"],
        "num_workers": config["num_workers"],
        "seed": seed,
    }


def _trainer(config: Mapping[str, Any]) -> dict[str, Any]:
    given = dict(config.get("lightning") or {})
    theirs = given.pop("callbacks", None) or []
    folder = str(Path(config["output_dir"]) / config["run_name"])
    when = "always" if given.get("sync_batchnorm") else "possible"
    # the order matters: the log has divided the sums before another callback looks at them
    names = ("SeedEachBatch", "StopOnNonFiniteLoss", "EpochLog")
    callbacks: list[dict[str, Any]] = [{"class_path": f"{_OURS}.{name}"} for name in names]
    callbacks += _early_stopper(config["early_stopper"])
    callbacks.append(
        {
            "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
            "init_args": {
                "dirpath": folder,
                "filename": "best",
                "save_last": config["save_last"],
                "monitor": config["monitor"],
                "mode": config["mode"],
                "save_on_train_epoch_end": True,
            },
        }
    )
    return {
        "max_epochs": config["epochs"],
        "default_root_dir": folder,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
        "logger": [_logger(tracker, config, folder) for tracker in _trackers(config)],
        "callbacks": [*callbacks, *(theirs if isinstance(theirs, list) else [theirs])],
        **given,
        "plugins": given.get("plugins")
        or [{"class_path": _BATCHNORM, "init_args": {"when": when}}],
    }


def _early_stopper(given: Any) -> list[dict[str, Any]]:
    if isinstance(given, Mapping):
        return [dict(given)]
    return [{"class_path": f"{_OURS}.LossEarlyStopping"}] if given else []


def _trackers(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    given = [dict(tracker) for tracker in config["trackers"] or []]
    csv = {"class_path": "lis2_lightning.trackers.CsvLogger"}
    return given if csv in given else [csv, *given]


def _logger(tracker: Mapping[str, Any], config: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Lightning's logger in place of one of our trackers; others are loggers already."""
    room, _, name = tracker["class_path"].rpartition(".")
    given = dict(tracker.get("init_args") or {})
    if not room.startswith("lis2_lightning"):
        return dict(tracker)
    run = config["run_name"]
    theirs: dict[str, tuple[str, dict[str, Any]]] = {
        "CsvLogger": ("CSVLogger", {"save_dir": folder, "name": ""}),
        "TensorBoard": ("TensorBoardLogger", {"save_dir": folder, "name": ""}),
        "Wandb": ("WandbLogger", {"save_dir": folder, "name": run}),
        "Mlflow": ("MLFlowLogger", {"run_name": run}),
    }
    known, fixed = theirs[name]
    keys = {
        "Wandb": {"project", "entity", "offline"},
        "Mlflow": {"tracking_uri", "experiment_name"},
    }
    kept = {key: given[key] for key in keys.get(name, set()) & set(given) if given[key] is not None}
    return {"class_path": f"{_LOGGERS}.{known}", "init_args": {**fixed, **kept}}
