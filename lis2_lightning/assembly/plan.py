"""What each key of a configuration became."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from lis2_lightning.assembly.settings import Settings
from lis2_lightning.config import describe
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
    "resume": "lightning.pytorch.Trainer.fit(ckpt_path=...): {}",
    "compile": "torch.compile(model): {}",
    "trackers": "lightning.pytorch.Trainer(logger=...): CSV, and {}",
    "metrics": "SegmentationModule(metrics={})",
    "seed": "lightning.pytorch.seed_everything({}), shuffling, augmentation",
}


def planned(settings: Settings, config: Mapping[str, Any]) -> dict[str, str]:
    """Which Lightning object, with which arguments, each key became."""
    used = {**config, "metrics": describe(settings.chosen_metrics())}
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
