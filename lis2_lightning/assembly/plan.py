"""What each key became, and the equivalent configuration for a bare ``LightningCLI``.

That one names the same components and seed, and the callbacks that decide what is trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl
import yaml

from lis2_lightning.assembly.settings import FIXED, Settings
from lis2_lightning.config import describe
from lis2_lightning.errors import ConfigError
from lis2_lightning.metrics import default_metrics
from lis2_lightning.parallel.devices import left_to_launcher

# Which object each documented key becomes; ``{}`` stands for its value.
_PLAN: Final[Mapping[str, str]] = {
    "output_dir": "lightning.pytorch.Trainer(default_root_dir={}/<run_name>)",
    "run_name": "the run's folder and its name in every tracker",
    "model": "SegmentationModule(model={})",
    "train_dataset": "SegmentationData(train={})",
    "val_dataset": "SegmentationData(val={})",
    "test_dataset": "SegmentationData(test={})",
    "optimizer": "SegmentationModule.configure_optimizers() -> {}",
    "scheduler": "SegmentationModule.configure_optimizers() -> {}",
    "scheduler_interval": "lr_scheduler interval={}",
    "loss": "MaskedLoss({})",
    "sampler": "SegmentationData(sampler={})",
    "early_stopper": "callbacks.LossEarlyStopping if true, or the callback: {}",
    "batch_size": "torch.utils.data.DataLoader(batch_size={})",
    "num_workers": "torch.utils.data.DataLoader(num_workers={})",
    "epochs": "lightning.pytorch.Trainer(max_epochs={})",
    "save_interval": "callbacks.EverySnapshot(save_interval={})",
    "save_last": "callbacks.LastSnapshot(every_epoch={})",
    "save_every_n_steps": "callbacks.SnapshotInsideEpoch(every_n_steps={})",
    "save_every_minutes": "callbacks.SnapshotInsideEpoch(every_s=60 * {})",
    "monitor": "callbacks.BestSnapshot(monitor={})",
    "mode": "callbacks.BestSnapshot(mode={})",
    "validate_on": "SegmentationModule.val_scores, on {}",
    "resume": "lightning.pytorch.Trainer.fit(ckpt_path=...): {}",
    "weights": "the network's load_state_dict(...), before a new run's first epoch: {}",
    "compile": "torch.compile(model): {}",
    "ema": "callbacks.MovingAverage(decay={})",
    "tta": "SegmentationModule.predict_step, on eight turns: {}",
    "channels_last": "model.to(memory_format=torch.channels_last): {}",
    "trackers": "lightning.pytorch.Trainer(logger=...): CSV, and {}",
    "metrics": "SegmentationModule(metrics={})",
    "report": "report.html at the end of training: {}",
    "seed": "lightning.pytorch.seed_everything({}), shuffling, augmentation",
}
_HEADER: Final = """\
# The same run for Lightning alone. Run it with
#   python -c "from lightning.pytorch.cli import LightningCLI; LightningCLI()" fit -c THIS_FILE
# It trains the same weights. Snapshots become Lightning's checkpoints, logs_train.csv becomes
# metrics.csv, and there is no final evaluation: run `test` for it. `resume` has no counterpart
# but --ckpt_path, and `weights` has none: the network starts from weights of its own.
"""
_OURS: Final = "lis2_lightning.callbacks"
_CSV: Final = "lis2_lightning.trackers.CsvLogger"
# Lightning's logger, the arguments that it shares with our tracker, and those that follow the run
_LOGGERS: Final[Mapping[str, tuple[str, tuple[str, ...], Mapping[str, str]]]] = {
    "CsvLogger": ("CSVLogger", (), {"save_dir": "{folder}", "name": ""}),
    "TensorBoard": ("TensorBoardLogger", (), {"save_dir": "{folder}", "name": ""}),
    "Wandb": (
        "WandbLogger",
        ("project", "entity", "offline"),
        {"save_dir": "{folder}", "name": "{run}"},
    ),
    "Mlflow": ("MLFlowLogger", ("tracking_uri", "experiment_name"), {"run_name": "{run}"}),
}
_MODULE_KEYS: Final = ("model", "loss", "optimizer", "scheduler", "scheduler_interval", "tta")
_BATCHNORM: Final = "lis2_lightning.parallel.batchnorm.SharedBatchNorm"


def planned(settings: Settings, config: Mapping[str, Any]) -> dict[str, str]:
    """Which Lightning object, with which arguments, each key became."""
    metrics = describe(settings.chosen_metrics())
    used = {**config, "metrics": metrics, "mode": settings.best_mode}
    plan = {
        field.name: _PLAN[field.name].format(_short(used.get(field.name)))
        for field in fields(settings)
        if field.name != "lightning"
    }
    plan |= {
        f"lightning.{key}": f"lightning.pytorch.Trainer({key}={_short(describe(value))})"
        for key, value in settings.lightning.items()
    }
    plan |= {
        f"lightning.{key}": f"lightning.pytorch.Trainer({key}={num}): decided by where it runs"
        for key, num in left_to_launcher(settings.lightning).items()
    }
    return plan


def _short(value: Any) -> str:
    if isinstance(value, Mapping) and "class_path" in value:
        arguments = value.get("init_args") or {}
        inside = ", ".join(f"{key}={_short(item)}" for key, item in arguments.items())
        return f"{value['class_path']}({inside})"
    if isinstance(value, Mapping) and "object" in value:
        return f"<{value['object']}>"
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    return "none" if value is None else str(value)


def lightning_yaml(config: Mapping[str, Any], callbacks: Iterable[pl.Callback] = ()) -> str:
    """The configuration of the same run for a bare ``LightningCLI``, as YAML.

    The run's ``callbacks`` know whether larger values are better, which Lightning alone does not.

    Raises:
        ConfigError: A component was passed as an object, which a file cannot name.
    """
    if objects := objects_in(config):
        raise ConfigError(
            f"{', '.join(objects)}: passed as objects, which a file cannot name: use class_path "
            "and init_args instead"
        )
    seed = config["seed"] or 0
    bare = {
        "seed_everything": seed,
        "trainer": _trainer(
            config, {type(c).__name__: getattr(c, "mode", None) for c in callbacks}
        ),
        "model": {
            "class_path": "lis2_lightning.SegmentationModule",
            "init_args": {
                **{key: config[key] for key in _MODULE_KEYS},
                "metrics": usual_metrics() if config["metrics"] is None else config["metrics"],
                "compile_model": config["compile"],
                "channels_last": config["channels_last"],
            },
        },
        "data": {
            "class_path": "lis2_lightning.SegmentationData",
            "init_args": {
                **{split: config[f"{split}_dataset"] for split in ("train", "val", "test")},
                "batch_size": config["batch_size"],
                "num_workers": config["num_workers"],
                "seed": seed,
                "sampler": config["sampler"],
            },
        },
    }
    return _HEADER + yaml.safe_dump(bare, sort_keys=False)


def objects_in(config: Mapping[str, Any]) -> list[str]:
    """The keys whose components were passed as objects, which no file can name."""
    return [key for key, value in config.items() if _is_object(value)]


def _is_object(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_is_object, value))
    return isinstance(value, Mapping) and "object" in value


def usual_metrics() -> list[dict[str, Any]]:
    """The metrics of a run that names none, as components."""
    return [{"class_path": describe(metric)["object"]} for metric in default_metrics()]


def _trainer(config: Mapping[str, Any], modes: Mapping[str, Any]) -> dict[str, Any]:
    arguments = dict(config.get("lightning") or {})
    theirs = arguments.pop("callbacks", None) or []
    folder = str(Path(config["output_dir"]) / config["run_name"])
    when = "always" if arguments.get("sync_batchnorm") else "possible"
    # the order matters: the log has divided the sums before another callback looks at them
    names = ("SeedEachBatch", "StopOnNonFiniteLoss", "EpochLog")
    callbacks: list[dict[str, Any]] = [{"class_path": f"{_OURS}.{name}"} for name in names]
    callbacks += _early_stopper(config["early_stopper"], modes)
    if (decay := config["ema"]) is not None:
        average = {"class_path": f"{_OURS}.averaging.MovingAverage", "init_args": {"decay": decay}}
        callbacks.append(average)
    callbacks.append(
        {
            "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
            "init_args": {
                "dirpath": folder,
                "filename": "best",
                "save_last": config["save_last"],
                "monitor": config["monitor"],
                "mode": config["mode"] or modes.get("BestSnapshot", "min"),
                "save_on_train_epoch_end": True,
            },
        }
    )
    return {
        "max_epochs": config["epochs"],
        "default_root_dir": folder,
        **FIXED,
        "logger": _loggers(config, folder),
        "callbacks": [*callbacks, *(theirs if isinstance(theirs, list) else [theirs])],
        **arguments,
        "plugins": arguments.get("plugins")
        or [{"class_path": _BATCHNORM, "init_args": {"when": when}}],
    }


def _early_stopper(value: Any, modes: Mapping[str, Any]) -> list[dict[str, Any]]:
    if isinstance(value, Mapping):
        name, arguments = value["class_path"].rpartition(".")[2], value.get("init_args") or {}
        mode = {"mode": modes[name]} if name in modes else {}
        return [{**value, "init_args": {**arguments, **mode}}]
    return [{"class_path": f"{_OURS}.LossEarlyStopping"}] if value else []


def _loggers(config: Mapping[str, Any], folder: str) -> list[dict[str, Any]]:
    """Lightning's loggers in place of our trackers; other trackers are loggers already."""
    trackers = config["trackers"] or []
    if all(tracker["class_path"] != _CSV for tracker in trackers):
        trackers = [{"class_path": _CSV}, *trackers]
    loggers = []
    for tracker in trackers:
        room, _, name = tracker["class_path"].rpartition(".")
        if not room.startswith("lis2_lightning"):
            loggers.append(tracker)
            continue
        logger, keys, fixed = _LOGGERS[name]
        arguments = tracker.get("init_args") or {}
        kept = {key: arguments[key] for key in keys if arguments.get(key) is not None}
        run = config["run_name"]
        filled = {key: value.format(folder=folder, run=run) for key, value in fixed.items()}
        loggers.append(
            {"class_path": f"lightning.pytorch.loggers.{logger}", "init_args": {**filled, **kept}}
        )
    return loggers
