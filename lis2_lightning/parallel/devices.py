"""Devices, hosts and strategies: what a launcher has decided, and what is not supported."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy

from lis2_lightning.base.files import shown
from lis2_lightning.errors import ConfigError
from lis2_lightning.parallel.processes import Launch, launched


def left_to_launcher(arguments: Mapping[str, Any]) -> dict[str, int]:
    """``devices`` and ``num_nodes`` that a launcher, or a notebook, decides."""
    decided = {}
    if launch := _launch_for(arguments):
        decided = {"devices": launch.devices, "num_nodes": launch.num_nodes}
    elif hasattr(sys, "ps1") and arguments.get("strategy") in (None, "auto"):
        decided = {"devices": 1}
    return {key: num for key, num in decided.items() if arguments.get(key) in (None, "auto")}


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 itself; a CPU without it is slower than in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return True  # nothing is known against it
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def check_strategy(strategy: Any) -> None:
    """Refuse a strategy, or its name, other than DDP's and those of a single device."""
    if isinstance(strategy, str):
        name, is_known = strategy, strategy.lower().startswith(("auto", "ddp", "single_"))
    else:
        name, is_known = type(strategy).__name__, isinstance(strategy, SingleDeviceStrategy)
        is_known |= isinstance(strategy, DDPStrategy) and not isinstance(
            strategy, DeepSpeedStrategy
        )
    if not is_known:
        raise ConfigError(
            f"lightning.strategy is {name}, and only ddp and single devices are supported: set it "
            "to auto or ddp"
        )


def check_processes(arguments: Mapping[str, Any], trainer: pl.Trainer, run_dir: Path) -> None:
    """Refuse a trainer that counts on other processes than there are or can be.

    Lightning would train on a part of the data, or wait for processes that do not exist.
    """
    launcher = trainer.strategy.launcher
    if launcher is not None and not hasattr(launcher, "cluster_environment"):
        raise ConfigError(needs_a_script(run_dir))
    launch = _launch_for(arguments)
    devices, num_nodes = trainer.num_devices, trainer.num_nodes
    if launch is not None and launch[1:] != (devices, num_nodes):
        raise ConfigError(
            f"{launch.launcher} has started processes for devices: {launch.devices} and num_nodes: "
            f"{launch.num_nodes}, and lightning has devices: {devices} and num_nodes: {num_nodes}: "
            "leave both out, or start as many"
        )


def needs_a_script(run_dir: Path) -> str:
    """The error message where no script can be started again for each device."""
    config = run_dir / "config.yaml"
    name = shown(config) if config.is_file() else "YOUR_CONFIG.yaml"
    return (
        "several devices in a notebook, and strategies that fork or spawn, are not supported: run "
        f"`lis2 fit --config {name}` in a terminal, or set lightning.devices to 1"
    )


def _launch_for(arguments: Mapping[str, Any]) -> Launch | None:
    """What a launcher has started; null where Lightning starts the processes itself."""
    plugins = arguments.get("plugins") or []
    plugins = plugins if isinstance(plugins, list | tuple) else [plugins]
    same = (TorchElasticEnvironment, SLURMEnvironment)
    # the user may choose another environment, such as LightningEnvironment in a job of SLURM
    is_other = any(isinstance(p, ClusterEnvironment) and not isinstance(p, same) for p in plugins)
    return None if is_other else launched()
