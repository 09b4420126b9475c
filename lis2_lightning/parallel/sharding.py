"""Which parts of a network are sharded as one, and how whole tensors become shards and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from lis2_lightning.errors import ConfigError

# their children are called one by one, and it is not known whether they are called themselves
_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)


def is_sharded(network: nn.Module) -> bool:
    """Whether a network is sharded already, by us or by its author."""
    return any(isinstance(module, FSDPModule) for module in network.modules()) or any(
        isinstance(parameter, DTensor) for parameter in network.parameters()
    )


def units(network: nn.Module, *, min_parameters: int) -> list[nn.Module]:
    """The parts of a network that are gathered and freed one by one, inner ones first.

    These are its children. Lists and sequences are looked into, and so is a child that holds more
    than half of the network: a wrapper, or one level of a nested U. What is smaller stays with the
    network as a whole, and so does what shares a parameter with another part.

    Args:
        network: The network.
        min_parameters: How many parameters a part has at least.

    >>> inner = nn.Sequential(nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 1))
    >>> [type(unit).__name__ for unit in units(inner, min_parameters=50)]
    ['Linear']
    """
    uses = Counter(map(id, _parameters(network)))
    total = sum(parameter.numel() for parameter in network.parameters())

    def found(module: nn.Module) -> Iterator[nn.Module]:
        for child in module.children():
            size = sum(parameter.numel() for parameter in child.parameters())
            is_container = isinstance(child, _CONTAINERS)
            if is_container or (2 * size > total and not _is_torchs_own(child)):
                yield from found(child)
            inside = Counter(map(id, _parameters(child)))
            is_alone = all(uses[parameter] == count for parameter, count in inside.items())
            if size >= min_parameters and is_alone and not is_container:
                yield child

    return list(found(network))


def shard(network: nn.Module, mesh: DeviceMesh, *, min_parameters: int) -> list[nn.Module]:
    """Shard a network over the processes of a mesh, part by part and then as a whole, in place.

    Args:
        network: The network, with the same weights in every process.
        mesh: The processes.
        min_parameters: As for :func:`units`.

    Returns:
        The parts that are gathered one by one; the last is the network itself.

    Raises:
        ConfigError: torch cannot shard it.
    """
    parts = [*units(network, min_parameters=min_parameters), network]
    try:
        for part in parts:
            # also the whole: between two steps every parameter is a shard, whoever looks at it
            fully_shard(part, mesh=mesh, reshard_after_forward=True)
    except (ValueError, NotImplementedError, AssertionError) as error:
        told = " ".join(str(error).split())
        raise ConfigError(
            f"{type(network).__name__} cannot be sharded: {told}; set lightning.strategy to ddp"
        ) from error
    _compile(network, parts)
    return parts


def _compile(network: nn.Module, parts: Iterable[nn.Module]) -> None:
    """Compile part by part a network that is to be compiled.

    The hooks which gather a part are not compiled, and within a network that is compiled as a whole
    they would leave all of it as it is, without a word.
    """
    if network._compiled_call_impl is None:  # noqa: SLF001 - torch tells it nowhere else
        return
    network._compiled_call_impl = None  # noqa: SLF001 - same
    for part in parts:
        part.forward = torch.compile(part.forward)  # below the hooks; no name changes


def whole(value: Any, *, keep: bool) -> Any:
    """A state with every shard gathered to the whole tensor, on the CPU; every process calls it.

    Args:
        value: A tensor, or a mapping or a list with tensors anywhere in it.
        keep: Whether this process wants the tensors: the others only take part.
    """
    if isinstance(value, Mapping):
        return {key: whole(item, keep=keep) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(whole(item, keep=keep) for item in value)
    if not isinstance(value, DTensor):
        return value
    gathered = value.full_tensor()
    return gathered.cpu() if keep else None


def like(value: Any, pattern: Any) -> Any:
    """A whole tensor as the shard that stands in its place, or itself where that is whole, too."""
    if not (isinstance(value, Tensor) and isinstance(pattern, DTensor)):
        return value
    if isinstance(value, DTensor) or value.shape != pattern.shape:
        return value
    device = pattern.to_local().device
    # every process has read the whole tensor, and takes its part without asking the others
    return distribute_tensor(
        value.to(device), pattern.device_mesh, pattern.placements, src_data_rank=None
    )


@torch.no_grad()
def take_from_main(tensors: Iterable[Tensor], device: torch.device) -> None:
    """Overwrite tensors with those of the main process; every process calls it with the same ones.

    Args:
        tensors: Whole tensors.
        device: Where the processes exchange tensors.
    """
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault(tensor.dtype, []).append(tensor)
    for same in kinds.values():
        flat = torch.cat([tensor.detach().reshape(-1).to(device) for tensor in same])
        # as bytes: not every backend sends numbers of every kind
        distributed.broadcast(flat.view(torch.uint8), src=0)
        parts = torch.split(flat, [tensor.numel() for tensor in same])
        for tensor, part in zip(same, parts, strict=True):
            tensor.detach().copy_(part.view_as(tensor))


def _parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Every parameter as often as it occurs."""
    return (p for _, p in module.named_parameters(remove_duplicate=False))


def _is_torchs_own(module: nn.Module) -> bool:
    """Whether a layer is of torch, which may use its children's weights without calling them."""
    return type(module).__module__.startswith("torch.nn.")
