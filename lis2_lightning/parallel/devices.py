"""Lightning's ``devices`` and ``num_nodes``, as the launcher's processes ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from lis2_lightning.errors import ConfigError
from lis2_lightning.parallel.processes import Launch, launched

_HOW: Final[Mapping[str, str]] = {
    "torchrun": "start torchrun with --nnodes={num_nodes} --nproc-per-node={devices}",
    "SLURM": "start srun with --nodes={num_nodes} --ntasks-per-node={devices}",
}


def left_to_launcher(arguments: Mapping[str, Any]) -> dict[str, int]:
    """``devices`` and ``num_nodes``, where a launcher has decided them and nobody else has.

    Args:
        arguments: Those of the Lightning trainer.

    Raises:
        ConfigError: As for :func:`~lis2_lightning.parallel.launched`.
    """
    launch = _launch_for(arguments)
    if launch is None:
        return {}
    started = {"devices": launch.devices, "num_nodes": launch.num_nodes}
    return {key: num for key, num in started.items() if arguments.get(key) in (None, "auto")}


def check_launch(arguments: Mapping[str, Any], *, devices: int, num_nodes: int) -> None:
    """Refuse a trainer that counts on other processes than were started.

    Lightning would train on a part of the data, or wait for processes that do not exist.

    Args:
        arguments: Those the Lightning trainer was built with.
        devices: How many processes it counts on for each host.
        num_nodes: On how many hosts.

    Raises:
        ConfigError: They differ from what was started.
    """
    launch = _launch_for(arguments)
    if launch is None or (launch.devices, launch.num_nodes) == (devices, num_nodes):
        return
    how = _HOW[launch.launcher].format(devices=devices, num_nodes=num_nodes)
    raise ConfigError(
        f"this was started by {launch}, and lightning has devices: {devices} and num_nodes: "
        f"{num_nodes}: leave both out, or {how}"
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
