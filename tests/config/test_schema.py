"""Components of Lightning by name, and what stands where nothing is named."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import callbacks
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.profilers import SimpleProfiler
from lightning.pytorch.strategies import DDPStrategy

from lis2_lightning import ConfigError, Trainer
from lis2_lightning.config import Schema, describe, to_class_paths
from lis2_lightning.config.names import USUAL, USUAL_METRICS, class_path, names
from lis2_lightning.metrics import default_metrics

Make = Callable[..., dict[str, Any]]


def test_what_is_meant_where_nothing_is_named_is_the_default() -> None:
    defaults = Schema(Trainer).defaults()
    for key in ("optimizer", "loss"):
        assert class_path(key, USUAL[key], key=key) == defaults[key]["class_path"]
    usual = [type(metric).__name__ for metric in default_metrics()]
    paths = [class_path("metric", name, key="metrics") for name in USUAL_METRICS]
    assert [path.rpartition(".")[2] for path in paths] == usual


@pytest.mark.parametrize("written", [None, "left out", {"lr": 0.5}])
def test_a_dotted_key_reaches_inside_the_default_optimizer_in_python(
    tiny: Make, written: Any
) -> None:
    config = tiny(optimizer=written)
    if written == "left out":
        del config["optimizer"]
    overrides = {"optimizer.lr": 0.25, "early_stopper.patience": 3, "metrics.1.threshold": 0.4}
    trainer = Trainer.from_config(config, **overrides)
    optimizer = trainer.global_config["optimizer"]
    assert optimizer["class_path"] == "torch.optim.Adam"
    assert optimizer["init_args"]["lr"] == 0.25
    assert trainer.early_stopper is not None
    assert trainer.early_stopper.patience == 3
    assert trainer.global_config["metrics"][1]["init_args"]["threshold"] == 0.4


def test_every_callback_of_lightning_has_its_own_name() -> None:
    theirs = {
        name
        for name in callbacks.__all__
        if issubclass(getattr(callbacks, name), callbacks.Callback)
    }
    assert theirs - {"Callback"} <= set(names("callback"))
    assert class_path("callback", "learningratemonitor", key="x").endswith(".LearningRateMonitor")


@pytest.mark.parametrize("spelling", ["type", "class_path"])
def test_components_of_lightning_are_built_by_name(tiny: Make, spelling: str) -> None:
    arguments = {"swa_lrs": 0.01}
    inside = arguments if spelling == "type" else {"init_args": arguments}
    average = {spelling: "StochasticWeightAveraging", **inside}
    lightning = {
        "accelerator": {spelling: "CPUAccelerator"},
        "callbacks": [{spelling: "LearningRateMonitor"}, "Timer", average],
        "profiler": {spelling: "SimpleProfiler"},
        "strategy": {spelling: "DDPStrategy"},
    }
    config = tiny(lightning=lightning)
    built = Schema(Trainer).parse(config).build()["lightning"]
    kinds = [type(callback) for callback in built["callbacks"]]
    assert kinds == [
        *(callbacks.LearningRateMonitor, callbacks.Timer, callbacks.StochasticWeightAveraging)
    ]
    assert isinstance(built["accelerator"], CPUAccelerator)
    assert isinstance(built["profiler"], SimpleProfiler)
    assert isinstance(built["strategy"], DDPStrategy)


def test_words_of_lightnings_own_stay_as_they_are() -> None:
    theirs = {"profiler": "simple", "strategy": "ddp", "plugins": None, "precision": "bf16-mixed"}
    assert to_class_paths({"lightning": theirs}) == {"lightning": theirs}


@pytest.mark.parametrize(
    ("lightning", "sentence"),
    [
        (
            {"callbacks": [{"type": "LearningRateMonitr"}]},
            "unknown callback 'LearningRateMonitr' in lightning.callbacks[0]: did you mean "
            "'LearningRateMonitor'",
        ),
        ({"callbacks": ["Timmer"]}, "unknown callback 'Timmer'"),
        ({"profiler": {"type": "SimplProfiler"}}, "did you mean 'SimpleProfiler'"),
        ({"callbacks": [{"logging_interval": "step"}]}, "lightning.callbacks[0] names no class"),
        (
            {"callbacks": [{"type": "LearningRateMonitor", "interval": "step"}]},
            "unknown key 'lightning.callbacks[0].interval': did you mean",
        ),
    ],
)
def test_a_wrong_name_or_key_of_lightnings_is_one_sentence(
    tiny: Make, lightning: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as error:
        Schema(Trainer).parse(tiny(lightning=lightning))
    assert sentence in str(error.value)


def test_a_key_of_what_takes_none_is_one_whole_sentence(tiny: Make) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'metrics\[0\].dice': there are none here"):
        Schema(Trainer).parse(tiny(metrics=[{"type": "roc_auc", "dice": 1}]))


def test_a_default_that_is_an_object_is_left_to_the_class(tiny: Make) -> None:
    average = {"type": "StochasticWeightAveraging", "swa_lrs": 0.01}
    parsed = Schema(Trainer).parse(tiny(lightning={"callbacks": [average]}))
    [written] = parsed.config["lightning"]["callbacks"]
    assert "device" not in written["init_args"]
    [built] = parsed.build()["lightning"]["callbacks"]
    assert built._device == torch.device("cpu")
    assert Schema(Trainer).parse(parsed.config).config == parsed.config


@pytest.mark.usefixtures("no_pictures")
def test_a_run_with_weight_averaging_trains_as_from_a_script(tiny: Make) -> None:
    average = {"type": "StochasticWeightAveraging", "swa_lrs": 0.01, "swa_epoch_start": 1}
    lightning = {"enable_progress_bar": False, "accelerator": "cpu", "callbacks": [average]}
    info = Trainer.from_config(tiny(lightning=lightning, epochs=3)).train()
    assert info["epochs_run"] == 4  # Lightning counts the pass for the batch statistics as an epoch
    assert info["metrics_test"]["loss"] > 0


@pytest.mark.parametrize("weight", [10, 0.1, [0.1, 2.5]])
def test_a_number_or_a_list_is_a_tensor_where_a_component_wants_one(
    tiny: Make, weight: Any
) -> None:
    config = tiny(loss={"type": "BCEWithLogitsLoss", "pos_weight": weight})
    parsed = Schema(Trainer).parse(config)
    assert parsed.config["loss"]["init_args"]["pos_weight"] == weight
    assert torch.equal(parsed.build()["loss"].pos_weight, torch.tensor(weight, dtype=torch.float))
    assert Schema(Trainer).parse(parsed.config).config == parsed.config


@pytest.mark.parametrize("weight", ["many", True, [1, "many"]])
def test_what_is_no_number_is_no_tensor(tiny: Make, weight: Any) -> None:
    with pytest.raises(ConfigError, match=r"^loss.pos_weight must be "):
        Schema(Trainer).parse(tiny(loss={"type": "BCEWithLogitsLoss", "pos_weight": weight}))


@pytest.mark.parametrize(
    ("component", "path"),
    [
        (torch.optim.AdamW, "torch.optim.AdamW"),
        (torch.optim.lr_scheduler.StepLR, "torch.optim.lr_scheduler.StepLR"),
        (torch.optim.swa_utils.SWALR, "torch.optim.swa_utils.SWALR"),
    ],
)
def test_a_partial_is_recorded_under_a_path_that_exists(component: Any, path: str) -> None:
    assert describe(partial(component, lr=1)) == {"class_path": path, "init_args": {"lr": 1}}
    module, _, name = path.rpartition(".")
    assert getattr(importlib.import_module(module), name) is component


def test_objects_among_lightnings_arguments_are_left_out_later_and_others_asked_for(
    tiny: Make, caplog: pytest.LogCaptureFixture
) -> None:
    average = {"type": "StochasticWeightAveraging", "swa_lrs": 0.01}
    lightning = {"callbacks": [{"object": "mine.Own"}, average], "profiler": {"object": "mine.P"}}
    kept = Schema(Trainer).parse(tiny(lightning=lightning)).config["lightning"]
    assert [component["class_path"] for component in kept["callbacks"]] == [
        "lightning.pytorch.callbacks.StochasticWeightAveraging"
    ]
    assert "profiler" not in kept
    assert caplog.messages == [
        f"lightning.{key}: left out, as passed as objects when this configuration was written: "
        f"mine.{name}; pass them again, as in from_config(..., lightning={{'{key}': ...}})"
        for key, name in (("callbacks", "Own"), ("profiler", "P"))
    ]
    with pytest.raises(ConfigError, match=r"^metrics \(mine.A, mine.B\): passed as objects when"):
        Schema(Trainer).parse(tiny(metrics=[{"object": "mine.A"}, {"object": "mine.B"}]))


def test_an_array_inside_a_component_is_not_copied(tiny: Callable[..., dict[str, Any]]) -> None:
    image = np.ones((16, 16), np.float32)
    tiles = {"type": "TileDataset", "image": image, "target": image, "size": 8}
    config = tiny(train_dataset=tiles, val_dataset=None, test_dataset=None)
    trainer = Trainer.from_config(config)
    raster: Any = trainer.train_dataset
    assert np.shares_memory(raster.image.handle, image)
