"""Which strategy a run has, and what becomes of batch normalisation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import yaml
from lightning.pytorch.accelerators import CUDAAccelerator
from lightning.pytorch.plugins import TorchSyncBatchNorm
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, SingleDeviceStrategy
from torch import nn

from lis2_lightning import ConfigError, Trainer
from lis2_lightning.assembly.lightning_config import lightning_yaml
from lis2_lightning.parallel.batchnorm import SharedBatchNorm
from lis2_lightning.parallel.sharded import ShardedStrategy

Make = Callable[..., dict[str, Any]]


def built(tiny: Make, **lightning: Any) -> Trainer:
    common = {"enable_progress_bar": False, "accelerator": "cpu"}
    return Trainer.from_config(tiny(lightning={**common, **lightning}))


@pytest.mark.parametrize(
    ("lightning", "expected"),
    [
        ({"devices": 2}, DDPStrategy),
        ({"devices": 2, "strategy": "auto"}, DDPStrategy),
        ({"devices": 2, "strategy": "ddp"}, DDPStrategy),
        ({"devices": 2, "strategy": "fsdp"}, ShardedStrategy),
        ({"devices": 1, "strategy": "auto"}, SingleDeviceStrategy),
    ],
)
def test_several_devices_take_ddp_unless_told_otherwise(
    tiny: Make, lightning: dict[str, Any], expected: type
) -> None:
    assert type(built(tiny, **lightning).lightning.strategy) is expected


def test_the_configuration_for_lightning_alone_means_the_same(tiny: Make) -> None:
    given = built(tiny, devices=2, strategy="ddp").global_config
    arguments = yaml.safe_load(lightning_yaml(given))["trainer"]
    assert arguments["strategy"] == "ddp"
    assert arguments["plugins"][0]["class_path"].endswith("SharedBatchNorm")


def test_a_configuration_may_name_the_strategy_with_its_arguments(tiny: Make) -> None:
    path = "lis2_lightning.parallel.sharded.ShardedStrategy"
    strategy = {"class_path": path, "init_args": {"min_parameters": 5}}
    made = built(tiny, devices=2, strategy=strategy).lightning.strategy
    assert isinstance(made, ShardedStrategy)
    assert made.min_parameters == 5


@pytest.mark.parametrize("strategy", ["fsdp_cpu_offload", FSDPStrategy()])
def test_what_shards_otherwise_is_refused(tiny: Make, strategy: Any) -> None:
    name = strategy if isinstance(strategy, str) else "FSDPStrategy"
    with pytest.raises(ConfigError, match=f"lightning.strategy is {name}, which cannot .* ddp"):
        _ = Trainer.from_config(tiny(), lightning={"strategy": strategy}).lightning


def test_a_precision_that_cannot_be_sharded_is_refused(tiny: Make) -> None:
    with pytest.raises(ConfigError, match=r"does not support .*64-true"):
        _ = built(tiny, strategy="fsdp", precision="64-true").lightning


def normalised(*, device: str, num_processes: int, is_main: bool = True) -> pl.LightningModule:
    """A module with batch normalisation, as if a strategy had set it up."""
    module = pl.LightningModule()
    module.model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.BatchNorm2d(2)))
    strategy = SimpleNamespace(
        root_device=torch.device(device), world_size=num_processes, is_global_zero=is_main
    )
    module._trainer = SimpleNamespace(strategy=strategy)  # type: ignore[assignment]
    return module


def layer(module: pl.LightningModule) -> Any:
    return module.get_submodule("model.1.0")


def test_on_gpus_the_layers_are_synchronised_and_come_back_with_what_they_learnt() -> None:
    module = normalised(device="cuda", num_processes=2)
    own = layer(module)
    plugin = SharedBatchNorm()

    assert plugin.apply(module) is module
    shared = layer(module)
    assert type(shared) is nn.SyncBatchNorm
    assert shared.weight is own.weight  # the optimizer has it
    shared.running_mean = torch.tensor([3.0, 4.0])  # as a move to a GPU makes another tensor
    names = list(module.state_dict())

    assert plugin.revert(module) is module
    assert layer(module) is own
    assert own.running_mean.tolist() == [3.0, 4.0]
    assert list(module.state_dict()) == names


def test_on_a_cpu_one_line_tells_that_they_are_not(caplog: pytest.LogCaptureFixture) -> None:
    module = normalised(device="cpu", num_processes=2)
    plugin = SharedBatchNorm()
    with caplog.at_level(logging.INFO, "lis2_lightning"):
        logging.getLogger("lis2_lightning").propagate = True
        for _ in range(2):
            plugin.revert(plugin.apply(module))
    (told,) = caplog.messages
    assert told.startswith("on cpu batch normalisation cannot be synchronised: each of the 2 pro")
    assert type(layer(module)) is nn.BatchNorm2d


@pytest.mark.parametrize(
    "given",
    [
        {"device": "cpu", "num_processes": 1},
        {"device": "cuda", "num_processes": 1},
        {"device": "cpu", "num_processes": 2, "is_main": False},
    ],
)
def test_nothing_is_told_where_there_is_nothing_to_tell(
    given: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    module = normalised(**given)
    SharedBatchNorm().apply(module)
    SharedBatchNorm("never").apply(normalised(device="cuda", num_processes=2))
    assert type(layer(module)) is nn.BatchNorm2d
    assert not caplog.messages


def test_what_is_asked_for_and_cannot_be_is_refused() -> None:
    module = normalised(device="cpu", num_processes=2)
    with pytest.raises(ConfigError, match=r"sync_batchnorm is true, .* on GPUs only, not on cpu"):
        SharedBatchNorm("always").apply(module)


def test_a_user_says_how_batch_normalisation_is_synchronised(tiny: Make) -> None:
    def plugin(**lightning: Any) -> Any:
        given = {"accelerator": "cpu", "devices": 2, **lightning}
        strategy = Trainer.from_config(tiny(), lightning=given).lightning.strategy
        assert isinstance(strategy, DDPStrategy)
        return strategy._layer_sync

    theirs = TorchSyncBatchNorm()
    path = "lis2_lightning.parallel.batchnorm.SharedBatchNorm"
    assert plugin().when == "possible"
    assert plugin(sync_batchnorm=False).when == "possible"  # Lightning's default, in every file
    assert plugin(sync_batchnorm=True).when == "always"
    assert plugin(plugins=[{"class_path": path, "init_args": {"when": "never"}}]).when == "never"
    assert plugin(plugins=[theirs]) is theirs


def test_no_gpu_is_touched_to_find_out(monkeypatch: pytest.MonkeyPatch) -> None:
    if CUDAAccelerator.is_available():
        pytest.skip("a GPU is there, and may be touched")
    monkeypatch.setattr(torch.cuda, "init", lambda: pytest.fail("CUDA was initialised"))
    SharedBatchNorm().apply(normalised(device="cpu", num_processes=2))
