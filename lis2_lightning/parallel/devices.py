"""Devices, hosts and strategies: what a launcher has decided, and what cannot be trained with."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy

from lis2_lightning.errors import ConfigError
from lis2_lightning.parallel.processes import Launch, launched

_HOW: Final[Mapping[str, str]] = {
    "torchrun": "start torchrun with --nnodes={num_nodes} --nproc-per-node={devices}",
    "SLURM": "start srun with --nodes={num_nodes} --ntasks-per-node={devices}",
}
_NOT_FROM_NOTEBOOKS: Final = "not compatible with an interactive"  # Lightning's words


def left_to_launcher(arguments: Mapping[str, Any]) -> dict[str, int]:
    """``devices`` and ``num_nodes``, where they are decided by where this runs and not by the user.

    That is what a launcher has started, or a single device in a notebook.

    Args:
        arguments: Those of the Lightning trainer.

    Raises:
        ConfigError: As for :func:`~lis2_lightning.parallel.processes.launched`.
    """
    launch = _launch_for(arguments)
    if launch is not None:
        decided = {"devices": launch.devices, "num_nodes": launch.num_nodes}
    else:
        is_open = hasattr(sys, "ps1") and arguments.get("strategy") in (None, "auto")
        decided = {"devices": 1} if is_open else {}
    return {key: num for key, num in decided.items() if arguments.get(key) in (None, "auto")}


def check_strategy_name(strategy: Any) -> None:
    """Refuse the name of a strategy before Lightning looks for what it needs.

    Raises:
        ConfigError: It is neither ``auto`` nor one of DDP's or of a single device.
    """
    name = strategy.lower() if isinstance(strategy, str) else "auto"
    if name != "auto" and not name.startswith(("ddp", "single_")):
        raise ConfigError(_refusal(strategy))


def check_processes(arguments: Mapping[str, Any], trainer: pl.Trainer, run_dir: Path) -> None:
    """Refuse a trainer that counts on other processes than there are or can be.

    Lightning would train on a part of the data, or wait for processes that do not exist.

    Args:
        arguments: Those the Lightning trainer was built with.
        trainer: The trainer.
        run_dir: The run's folder.

    Raises:
        ConfigError: They differ from what a launcher has started, or the strategy is not DDP, or
            it forks or spawns its processes.
    """
    strategy = trainer.strategy
    is_ddp = isinstance(strategy, DDPStrategy) and not isinstance(strategy, DeepSpeedStrategy)
    if not (is_ddp or isinstance(strategy, SingleDeviceStrategy)):
        raise ConfigError(_refusal(type(strategy).__name__))
    if is_ddp and not hasattr(strategy.launcher, "cluster_environment"):
        raise ConfigError(needs_a_script(run_dir))
    launch = _launch_for(arguments)
    devices, num_nodes = trainer.num_devices, trainer.num_nodes
    if launch is None or (launch.devices, launch.num_nodes) == (devices, num_nodes):
        return
    how = _HOW[launch.launcher].format(devices=devices, num_nodes=num_nodes)
    raise ConfigError(
        f"this was started by {launch}, and lightning has devices: {devices} and num_nodes: "
        f"{num_nodes}: leave both out, or {how}"
    )


def refusal(error: Exception, run_dir: Path) -> str:
    """One sentence for what Lightning has refused.

    Args:
        error: What it has raised.
        run_dir: The run's folder.
    """
    message = " ".join(str(error).split())
    if _NOT_FROM_NOTEBOOKS in message:
        return needs_a_script(run_dir)
    return f"lightning refuses its arguments: {message}"


def needs_a_script(run_dir: Path) -> str:
    """The sentence for several devices where no script can be started a second time."""
    config = run_dir / "config.yaml"
    path = config if config.is_file() else "YOUR_CONFIG.yaml"
    return (
        "several devices in a notebook, and strategies that fork or spawn, are not supported: run "
        f"`lis2 fit --config {path}` in a terminal, or set lightning.devices to 1"
    )


def _refusal(name: str) -> str:
    return (
        f"lightning.strategy is {name}, and only ddp and single devices are supported: set it to "
        "auto or ddp"
    )


def _launch_for(arguments: Mapping[str, Any]) -> Launch | None:
    """What a launcher has started; null where Lightning starts the processes itself.

    Plugins may name another environment, such as ``LightningEnvironment`` inside a job of SLURM.
    """
    plugins = arguments.get("plugins") or []
    named = plugins if isinstance(plugins, list | tuple) else [plugins]
    same = (TorchElasticEnvironment, SLURMEnvironment)
    if any(isinstance(p, ClusterEnvironment) and not isinstance(p, same) for p in named):
        return None
    return launched()
