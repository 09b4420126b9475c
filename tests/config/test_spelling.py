from __future__ import annotations

import pytest

from lis2_lightning.config import merge, to_class_paths, to_lis2
from lis2_lightning.config.names import KINDS, TABLES, class_path, names
from lis2_lightning.errors import ConfigError

# LIS2's own names, as its users write them.
LIS2_NAMES = {
    "model": ["unet", "base_unet"],
    "dataset": ["FilamentsDataset"],
    "early_stopper": ["LossEarlyStopping"],
    "tracker": ["Wandb", "Mlflow", "CsvLogger"],
    "metric": [
        *("map", "ap", "average_precision", "dice", "dice_index", "roc_auc", "auc"),
        *("mssim", "ssim"),
    ],
    "loss": ["dice_loss", "bce_dice_loss"],
    "augmentation": [
        *("ToTensor", "RandomHorizontalFlip", "RandomVerticalFlip", "RandomRotation"),
        *("NoiseDataAugmentation", "Normalize"),
    ],
    "encoder": ["LinPositionEncoding", "Lin", "Sin", "SinPositionEncoding", "Identity"],
}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, listed in LIS2_NAMES.items() for name in listed]
)
def test_every_name_of_lis2_is_known_in_any_case(kind: str, name: str) -> None:
    assert class_path(kind, name.upper(), key=kind) == class_path(kind, name, key=kind)


def test_every_kind_of_a_key_has_a_table() -> None:
    assert set(KINDS.values()) == set(TABLES)


def test_both_spellings_mean_the_same() -> None:
    lis2 = {"optimizer": {"type": "AdamW", "lr": 0.01}}
    ours = {"optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}}

    assert to_class_paths(lis2) == to_class_paths(ours) == ours


def test_components_inside_components_are_translated() -> None:
    config = {
        "model": {"type": "unet", "encoder": {"type": "Lin", "in_features": 4}},
        "train_dataset": {
            "type": "FilamentsDataset",
            "data_augmentations": [{"type": "ToTensor"}, {"type": "RandomRotation", "degrees": 9}],
        },
    }

    spelt = to_class_paths(config)

    assert spelt["model"]["init_args"]["encoder"] == {
        "class_path": "lis2_lightning.models.LinPositionEncoding",
        "init_args": {"in_features": 4},
    }
    augmentations = spelt["train_dataset"]["init_args"]["data_augmentations"]
    assert [item["class_path"].rsplit(".")[-1] for item in augmentations] == [
        "ToTensor",
        "RandomRotation",
    ]


def test_a_component_goes_to_lis2_spelling_and_back() -> None:
    component = {"class_path": "lis2_lightning.models.UNet", "init_args": {"features": 4}}

    spelt = to_lis2("model", component)

    assert spelt == {"type": "unet", "features": 4}
    assert to_class_paths({"model": spelt}) == {"model": component}


def test_a_single_metric_or_tracker_needs_no_list() -> None:
    spelt = to_class_paths({"metrics": "dice", "trackers": {"type": "Wandb", "entity": "me"}})

    assert len(spelt["metrics"]) == 1
    assert spelt["trackers"][0]["init_args"] == {"entity": "me"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model": "unett"}, "unknown model 'unett' in model: did you mean 'unet'"),
        ({"optimizer": {"type": "Adm"}}, "unknown optimizer 'Adm' in optimizer: did you mean"),
        (
            {"train_dataset": {"type": "TileDataset", "data_augmentations": [{"type": "Flip"}]}},
            r"unknown augmentation 'Flip' in train_dataset.data_augmentations\[0\]",
        ),
        ({"scheduler": {"gamma": 0.1}}, "scheduler names no class: add 'type"),
        ({"optimizer": {"Adam": {"lr": 0.1}}}, "optimizer names no class: add 'type"),
        ({"optimizer": "Adam(lr=0.1)"}, r"unknown optimizer 'Adam\(lr=0.1\)' in optimizer"),
        ({"epoch": 1, "epochs": 2}, "the same key"),
    ],
)
def test_a_wrong_component_is_reported_with_its_place(
    config: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        to_class_paths(config)


def test_every_public_optimizer_and_scheduler_of_torch_has_a_name() -> None:
    assert {"Adam", "AdamW", "SGD", "RMSprop", "LBFGS"} <= set(names("optimizer"))
    assert {"StepLR", "MultiStepLR", "ReduceLROnPlateau", "OneCycleLR"} <= set(names("scheduler"))


def test_an_override_reaches_inside_a_component_in_either_spelling() -> None:
    lis2 = merge({"optimizer": {"type": "SGD", "lr": 1.0}}, {"optimizer.lr": 2.0})
    ours = merge(
        {"optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 1.0}}},
        {"optimizer.lr": 2.0},
    )
    name = merge({"optimizer": "SGD"}, {"optimizer.lr": 2.0})

    assert to_class_paths(lis2) == to_class_paths(ours) == to_class_paths(name)


def test_merging_leaves_what_was_given_as_it_was() -> None:
    config = {"optimizer": {"type": "SGD", "lr": 1.0}}

    merge(config, {"optimizer.lr": 2.0})

    assert config == {"optimizer": {"type": "SGD", "lr": 1.0}}
