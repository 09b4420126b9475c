"""Every optimizer, scheduler and name that a configuration may give: each builds and trains."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch.optim import Optimizer, lr_scheduler

from lis2_lightning import ConfigError, Trainer
from lis2_lightning.config.names import TABLES, class_path, names
from lis2_lightning.snapshots import read_snapshot

pytestmark = pytest.mark.usefixtures("no_pictures")
Make = Callable[..., dict[str, Any]]

NOT_FOR_DENSE_GRADIENTS = {"SparseAdam": "takes sparse gradients only; those of images are dense"}
OPTIMIZERS = sorted(set(names("optimizer")) - set(NOT_FOR_DENSE_GRADIENTS))
NEEDS_NETWORK = {"Muon": "Matrices"}  # it takes two-dimensional parameters only

# Schedulers whose arguments are functions or other schedulers: no plain value says them.
NOT_PLAIN = {
    "LambdaLR": "takes a function",
    "MultiplicativeLR": "takes a function",
    "SequentialLR": "takes schedulers of the same optimizer",
    "ChainedScheduler": "takes schedulers of the same optimizer",
}
REQUIRED: Mapping[str, Mapping[str, Any]] = {
    "StepLR": {"step_size": 1},
    "MultiStepLR": {"milestones": [1]},
    "ExponentialLR": {"gamma": 0.5},
    "CosineAnnealingLR": {"T_max": 2},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "CyclicLR": {"base_lr": 0.001, "max_lr": 0.01, "cycle_momentum": False},
    "OneCycleLR": {"max_lr": 0.01, "total_steps": 4},
}
SCHEDULERS = sorted(set(names("scheduler")) - set(NOT_PLAIN))


def two_steps(
    tiny: Make, folder: Path, **changes: Any
) -> tuple[Trainer, dict[str, torch.Tensor], dict[str, Any]]:
    """Train two steps; return trainer, weights before them, and the snapshot, read back."""
    little = {"limit_train_batches": 2, "enable_progress_bar": False, "accelerator": "cpu"}
    config = tiny(epochs=1, val_dataset=None, test_dataset=None, metrics=[], lightning=little)
    trainer = Trainer.from_config({**config, **changes})
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    trainer.train()
    return trainer, before, read_snapshot(folder / "runs/tiny/best.pt")


def component(kind: str, name: str, arguments: Mapping[str, Any], spelling: str) -> dict[str, Any]:
    """A component in one of the two spellings."""
    if spelling == "LIS2":
        return {"type": name, **arguments}
    return {"class_path": class_path(kind, name, key=kind), "init_args": dict(arguments)}


def test_the_walk_leaves_out_nothing_that_torch_has() -> None:
    theirs = {
        name
        for name, value in vars(torch.optim).items()
        if inspect.isclass(value) and issubclass(value, Optimizer) and value is not Optimizer
    }
    assert theirs == set(OPTIMIZERS) | set(NOT_FOR_DENSE_GRADIENTS)
    assert len(theirs) > 12
    assert set(SCHEDULERS) | set(NOT_PLAIN) == set(lr_scheduler.__all__) - {"LRScheduler"}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_torch_trains(
    tiny: Make, tmp_path: Path, networks: str, name: str
) -> None:
    spelling = "LIS2" if OPTIMIZERS.index(name) % 2 else "class_path"
    model = {"class_path": f"{networks}.{NEEDS_NETWORK.get(name, 'Droppy')}"}
    optimizer = component("optimizer", name, {"lr": 0.01}, spelling)
    trainer, before, snapshot = two_steps(tiny, tmp_path, optimizer=optimizer, model=model)
    assert type(trainer.optimizer).__name__.endswith(name)  # Lightning wraps some
    after = snapshot["MODEL"]["MODEL_STATE"]
    assert all(bool(value.isfinite().all()) for value in after.values())
    assert any(not torch.equal(before[key], after[key]) for key in before if "weight" in key)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_of_torch_trains_and_comes_back(
    tiny: Make, tmp_path: Path, name: str
) -> None:
    spelling = "class_path" if SCHEDULERS.index(name) % 2 else "LIS2"
    scheduler = component("scheduler", name, REQUIRED.get(name, {}), spelling)
    # Lightning warns where OneCycleLR, which is made for steps, steps once an epoch
    interval = "step" if name == "OneCycleLR" else "epoch"
    trainer, _, snapshot = two_steps(
        tiny, tmp_path, scheduler=scheduler, scheduler_interval=interval
    )
    assert type(trainer.scheduler).__name__ == name
    assert snapshot["TRAIN_INFO"]["SCHEDULER_STATE"] is not None
    again = Trainer.from_snapshot(tmp_path / "runs/tiny/best.pt", epochs=2)
    assert again.train()["epochs_run"] == 2


@pytest.mark.parametrize("kind", ["optimizer", "scheduler"])
def test_both_spellings_of_a_component_mean_the_same(tiny: Make, kind: str) -> None:
    components: Mapping[str, tuple[str, Mapping[str, Any]]] = {
        "optimizer": ("RAdam", {"lr": 0.1}),
        "scheduler": ("StepLR", {"step_size": 2}),
    }
    lis2, ours = (
        Trainer.from_config(tiny(**{kind: component(kind, *components[kind], spelling)}))
        for spelling in ("LIS2", "class_path")
    )
    assert lis2.global_config == ours.global_config


def test_a_bare_name_in_any_case_is_a_component(tiny: Make) -> None:
    trainer = Trainer.from_config(tiny(optimizer="adamw", loss="bcewithlogitsloss", metrics="MAP"))
    output = trainer.global_config
    assert output["optimizer"]["class_path"] == "torch.optim.AdamW"
    assert output["loss"]["class_path"].endswith("BCEWithLogitsLoss")
    assert [metric["class_path"] for metric in output["metrics"]] == [
        "lis2_lightning.metrics.AveragePrecision"
    ]


def test_a_new_component_keeps_no_argument_of_the_former_one(tiny: Make) -> None:
    config = tiny(optimizer={"type": "SGD", "lr": 0.1, "momentum": 0.9})
    trainer = Trainer.from_config(config, optimizer={"type": "AdamW"})
    arguments = trainer.global_config["optimizer"]["init_args"]
    assert arguments["lr"] == inspect.signature(torch.optim.AdamW).parameters["lr"].default
    assert arguments["weight_decay"] == 0.01  # AdamW's, not that of the default optimizer Adam
    assert "momentum" not in arguments


NETWORK = {"type": "unet", "features": 2, "num_blocks": 1}


def patches(folder: Path) -> str:
    """A file as LIS² writes them."""
    shape = (6, 16, 16)
    rng = np.random.default_rng(0)
    with h5py.File(folder / "patches.h5", "w") as file:
        file["patches"] = rng.random(shape, dtype=np.float32)
        file["spines"] = (rng.random(shape) > 0.5).astype(np.float32)
        file["labelled"] = np.ones(shape, np.float32)
        file["positions"] = np.zeros((6, 2, 2, 1), np.float32)
    return str(folder / "patches.h5")


SYNTHETIC = {"type": "SyntheticDataset", "height": 64, "width": 64, "size": 16}
AUGMENTATIONS: Mapping[str, Mapping[str, Any]] = {
    "RandomRotation": {"degrees": 90},
    "NoiseDataAugmentation": {"name": "input", "keys_to_augment": ["patch"], "noise_var": 0.1},
    "Normalize": {"mean": 0.5, "std": 0.1},
}


def registered(kind: str, name: str, folder: Path) -> dict[str, Any]:
    """A configuration's keys that use a name."""
    if kind == "dataset":
        files = {key: str(folder / f"{key}.npy") for key in ("image", "target")}
        datasets: dict[str, dict[str, Any]] = {
            "TileDataset": {**files, "size": 16},
            "SyntheticDataset": SYNTHETIC,
            "ConcatDataset": {"datasets": [{**files, "type": "TileDataset", "size": 16}] * 2},
        }
        arguments = datasets.get(name, {"dataset_path": patches(folder)})
        return {"train_dataset": {**arguments, "type": name}, "val_dataset": None}
    if kind == "encoder":
        turns = [{"index": 0, "angle": 90.0}, {"index": 1, "angle": 90.0}]
        arguments = {} if name.startswith("Identity") else {"vars_config": turns}
        encoder = {"type": name, **arguments}
        return {"model": {**NETWORK, "encoder": encoder, "encoder_cat_position": "middle"}}
    if kind == "augmentation":
        augmentation = {"type": name, **AUGMENTATIONS.get(name, {})}
        return {
            "train_dataset": {**SYNTHETIC, "data_augmentations": [augmentation]},
            "val_dataset": None,
        }
    mlflow = {"tracking_uri": "http://127.0.0.1:1"} if name == "Mlflow" else {}
    others: dict[str, dict[str, Any]] = {
        "tracker": {"trackers": [{"type": name, **mlflow}]},
        "model": {"model": {**NETWORK, "type": name}},
        "metric": {"metrics": [name]},
    }
    return others.get(kind, {kind: {"type": name}})


# the first name of each class: further names of it are only looked up
NAMES = [
    (kind, next(name for name in table if table[name] == path))
    for kind, table in TABLES.items()
    for path in dict.fromkeys(table.values())
]


def test_every_registered_name_names_a_class_that_is_there() -> None:
    for kind, table in TABLES.items():
        for name in table:
            path = class_path(kind, name.upper(), key=kind)
            assert path == table[name]
            module, _, class_name = path.rpartition(".")
            assert inspect.isclass(getattr(importlib.import_module(module), class_name))


@pytest.mark.parametrize(("kind", "name"), NAMES, ids=str)
def test_every_registered_class_builds_by_its_name(
    tiny: Make, tmp_path: Path, kind: str, name: str
) -> None:
    np.save(tmp_path / "image.npy", 1 + np.random.default_rng(0).random((48, 48)))
    np.save(tmp_path / "target.npy", np.indices((48, 48)).sum(0) % 2.0)
    trainer = Trainer.from_config(tiny(test_dataset=None, **registered(kind, name, tmp_path)))
    batch = next(iter(trainer.data.train_dataloader()))
    batch = {key: value.float() for key, value in batch.items()}
    with torch.no_grad():
        assert trainer.module(batch).shape == batch["target"].shape
    if kind == "tracker":
        assert len(trainer.tracker) == 1 + (TABLES[kind][name] != TABLES[kind]["csv"])


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "nllloss", "SoftMarginLoss"])
def test_torchs_losses_that_do_not_fit_are_refused_by_name(tiny: Make, name: str) -> None:
    assert name.lower() not in map(str.lower, names("loss"))
    sentence = f"^{name} in loss does not fit a target that is 0 or 1 in each pixel: valid are bce,"
    with pytest.raises(ConfigError, match=sentence):
        Trainer.from_config(tiny(loss={"type": name}))


def test_a_loss_by_its_path_is_refused_before_training(tiny: Make, tmp_path: Path) -> None:
    trainer = Trainer.from_config(tiny(loss={"class_path": "torch.nn.CrossEntropyLoss"}))
    with pytest.raises(
        ConfigError, match=r"^CrossEntropyLoss does not fit a target that is 0 or 1"
    ):
        trainer.train()
    assert not (tmp_path / "runs").exists()
