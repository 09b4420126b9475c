"""Which strategy a run has, and what becomes of batch normalisation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
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
from lis2_lightning.parallel.batchnorm import SharedBatchNorm

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
        ({"devices": 1, "strategy": "auto"}, SingleDeviceStrategy),
    ],
)
def test_several_devices_take_ddp_unless_told_otherwise(
    tiny: Make, lightning: dict[str, Any], expected: type
) -> None:
    assert type(built(tiny, **lightning).lightning.strategy) is expected


@pytest.mark.parametrize("strategy", ["ddp", "ddp_find_unused_parameters_true", DDPStrategy()])
def test_every_form_of_ddp_is_supported(tiny: Make, strategy: Any) -> None:
    lightning = {"accelerator": "cpu", "devices": 2, "strategy": strategy}
    made = Trainer.from_config(tiny(), lightning=lightning).lightning.strategy
    assert isinstance(made, DDPStrategy)


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed", "dpp", FSDPStrategy()])
def test_any_other_strategy_is_refused_in_a_sentence(tiny: Make, strategy: Any) -> None:
    name = strategy if isinstance(strategy, str) else "FSDPStrategy"
    trainer = Trainer.from_config(tiny(), lightning={"strategy": strategy})
    with pytest.raises(
        ConfigError, match=f"lightning.strategy is {name}, .* set it to auto or ddp"
    ):
        _ = trainer.lightning


@pytest.mark.parametrize("strategy", ["ddp_notebook", "ddp_fork", "ddp_spawn"])
def test_processes_that_are_forked_or_spawned_are_refused_with_the_command_to_type(
    tiny: Make, tmp_path: Path, strategy: str
) -> None:
    trainer = built(tiny, devices=2, strategy=strategy)
    with pytest.raises(ConfigError, match=r"run `lis2 fit --config YOUR_CONFIG.yaml` in a term"):
        _ = trainer.lightning
    config = tmp_path / "runs/tiny/config.yaml"
    config.parent.mkdir(parents=True)
    config.touch()
    with pytest.raises(ConfigError, match=f"run `lis2 fit --config {config}` in a terminal, or"):
        _ = trainer.lightning


NOTEBOOK = """
from lis2_lightning import Trainer
trainer = Trainer.from_config("tiny.yaml", **{{"lightning.devices": {devices}}})
trainer.train()
"""


@pytest.mark.slow
def test_a_notebook_trains_on_one_device_and_refuses_several(tiny: Make, tmp_path: Path) -> None:
    nbformat: Any = pytest.importorskip("nbformat")
    nbclient: Any = pytest.importorskip("nbclient")
    text = yaml.safe_dump(tiny(output_dir="runs"))
    (tmp_path / "tiny.yaml").write_text(text, encoding="utf-8")
    devices = ["'auto'", "2", "2, 'lightning.strategy': 'ddp'"]
    cells = [nbformat.v4.new_code_cell(NOTEBOOK.format(devices=value)) for value in devices]
    cells.append(nbformat.v4.new_code_cell("trainer.planned()['lightning.devices']"))
    notebook = nbformat.v4.new_notebook(cells=cells)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", allow_errors=True, resources=where
    ).execute()
    errors = [
        [output.evalue for output in cell.outputs if output.output_type == "error"]
        for cell in notebook.cells
    ]
    command = "`lis2 fit --config runs/tiny/config.yaml` in a terminal"
    assert errors[0] == []
    assert all(command in error for below in errors[1:3] for error in below)
    assert [len(below) for below in errors] == [0, 1, 1, 0]


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
    (message,) = caplog.messages
    assert message.startswith(
        "on cpu batch normalisation cannot be synchronised: each of the 2 pro"
    )
    assert type(layer(module)) is nn.BatchNorm2d


@pytest.mark.parametrize(
    "setup",
    [
        {"device": "cpu", "num_processes": 1},
        {"device": "cuda", "num_processes": 1},
        {"device": "cpu", "num_processes": 2, "is_main": False},
    ],
)
def test_nothing_is_reported_where_there_is_nothing_to_report(
    setup: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    module = normalised(**setup)
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
        arguments = {"accelerator": "cpu", "devices": 2, **lightning}
        strategy = Trainer.from_config(tiny(), lightning=arguments).lightning.strategy
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
