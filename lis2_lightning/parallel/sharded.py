"""``lightning.strategy: fsdp``: a network sharded over processes, with LIS2's snapshots."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, cast

import lightning.pytorch as pl
from lightning.fabric.utilities.optimizer import _optimizers_to_device
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from lis2_lightning.errors import ConfigError
from lis2_lightning.parallel.sharding import is_sharded, like, shard, take_from_main, whole

_log = logging.getLogger("lis2_lightning")
_NOT_SHARDED: Final = "mixed torch.Tensor and DTensor"
_CANNOT_STEP: Final = ("Sharding propagation failed", "placement", "sharding strategy")


class ShardedStrategy(ModelParallelStrategy):
    """Shards the network, its gradients and the optimizer's state over all processes.

    Torch's ``fully_shard`` (FSDP2), which works on CPUs, too. What differs from Lightning's
    ``ModelParallelStrategy``: the network is sharded here, not by the module; snapshots are those
    of any other run, gathered once and written by the main process, and any snapshot can be
    loaded, whatever wrote it; the network's buffers are those of the main process, as with DDP.

    A network that its author has sharded is left as it is. Every call of the network is one of all
    processes.

    Args:
        min_parameters: A child of the network with so many parameters is gathered on its own,
            and freed again after its part of the work; smaller ones stay with the whole.

    Raises:
        ConfigError: ``min_parameters`` is less than 1.
    """

    def __init__(self, min_parameters: int = 100_000) -> None:
        if min_parameters < 1:
            raise ConfigError(f"min_parameters must be at least 1, got {min_parameters}")
        super().__init__(save_distributed_checkpoint=False)
        self.min_parameters = min_parameters
        self._buffers_differ = False

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Whether a snapshot is loaded after the network is sharded: no, in the usual order."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether Lightning gives the optimizer its state: yes, as for any other strategy."""
        return True

    def setup_environment(self) -> None:
        """Connect the processes, once for all loops of a trainer."""
        cast("pl.accelerators.Accelerator", self.accelerator).setup_device(self.root_device)
        self._setup_distributed()
        if self._device_mesh is None:
            self._device_mesh = init_device_mesh(self.root_device.type, (self.world_size,))

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """How many processes share the data, and which one this is."""
        return {"num_replicas": self.world_size, "rank": self.global_rank}

    @property
    def network(self) -> nn.Module:
        """The network inside the module."""
        return cast("nn.Module", self._module.model)

    @property
    def _module(self) -> pl.LightningModule:
        return cast("pl.LightningModule", self.lightning_module)  # Lightning has set it by now

    def setup(self, trainer: pl.Trainer) -> None:
        """Shard the network where it is whole, and build the optimizer over its shards.

        Raises:
            ConfigError: torch cannot shard the network.
        """
        cast("pl.accelerators.Accelerator", self.accelerator).setup(trainer)
        module: nn.Module = self._module
        is_fitting = trainer.state.fn == TrainerFn.FITTING
        is_new = not is_sharded(self.network)
        if is_new and is_fitting and self._layer_sync:
            module = self._layer_sync.apply(module)
        self.model = self.precision_plugin.convert_module(module)
        if is_new:
            self._shard(self.device_mesh)
        self.model_to_device()
        self.barrier()
        if is_fitting:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()
        if is_fitting:
            _optimizers_to_device(self.optimizers, self.root_device)

    def _shard(self, mesh: DeviceMesh) -> None:
        # without a seed each process has built other weights
        take_from_main([*self.network.parameters(), *self.network.buffers()], self.root_device)
        parts = shard(self.network, mesh, min_parameters=self.min_parameters)
        if self.is_global_zero:
            told = "the network is sharded; processes: %d, parts: %d"
            _log.info(told, mesh.size(), len(parts))

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The whole weights by their usual names in the main process, nothing in the others."""
        state = whole(self._module.state_dict(), keep=self.is_global_zero)
        return cast("dict[str, Any]", state) if self.is_global_zero else {}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole state as an unsharded optimizer has it, in the main process alone."""
        inner = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer  # noqa: SLF001 - as Lightning's own strategies unwrap it
        state = whole(inner.state_dict(), keep=self.is_global_zero)
        return cast("dict[str, Any]", state) if self.is_global_zero else {}

    def load_checkpoint(
        self,
        checkpoint_path: Any,
        weights_only: bool | None = None,  # noqa: FBT001 - Lightning's signature
    ) -> dict[str, Any]:
        """Read a snapshot, in every process."""
        # by the plugin, which verifies; Lightning's own strategy goes past it
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:  # noqa: FBT001, FBT002 - Lightning's signature
        """Take this process's part of whole weights."""
        own = self._module.state_dict()
        state = {name: like(v, own.get(name)) for name, v in checkpoint["state_dict"].items()}
        self._module.load_state_dict(state, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's part of a whole optimizer's state."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=False):
            optimizer.load_state_dict(_sharded(state, optimizer))
        _optimizers_to_device(self.optimizers, self.root_device)

    def optimizer_step(
        self,
        optimizer: Optimizer,
        closure: Callable[[], Any],
        model: pl.LightningModule | nn.Module | None = None,
        **kwargs: Any,
    ) -> Any:
        """Step the optimizer.

        Raises:
            ConfigError: It needs whole parameters.
        """
        try:
            return super().optimizer_step(optimizer, closure, model, **kwargs)
        except (RuntimeError, NotImplementedError) as error:
            if not any(part in str(error) for part in _CANNOT_STEP):
                raise
            raise ConfigError(
                f"{type(optimizer).__name__.removeprefix('Lightning')} cannot step a sharded "
                "network: choose one whose step torch can do on parts of the weights, such as "
                "AdamW, or set lightning.strategy to ddp"
            ) from error

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Train on a batch."""
        with self._together():
            self._buffers_differ = True  # of batch normalisation, by each process's own batch
            return super().training_step(*args, **kwargs)

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        """Validate on a batch."""
        with self._together():
            return super().validation_step(*args, **kwargs)

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        """Test on a batch."""
        with self._together():
            return super().test_step(*args, **kwargs)

    def predict_step(self, *args: Any, **kwargs: Any) -> Any:
        """Predict a batch."""
        with self._together():
            return super().predict_step(*args, **kwargs)

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Begin with the main process's buffers, as DDP does, and explain what cannot be sharded.

        Raises:
            ConfigError: The network uses a layer's weights without calling the layer.
        """
        if self._buffers_differ:
            take_from_main(self.network.buffers(), self.root_device)
            self._buffers_differ = False
        try:
            yield
        except RuntimeError as error:
            if _NOT_SHARDED not in str(error):
                raise
            raise ConfigError(
                "the network uses weights of one of its parts without calling that part, so they "
                "are not gathered: set lightning.strategy to ddp, or to a ShardedStrategy with a "
                "larger min_parameters"
            ) from error


def _sharded(state: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """A whole optimizer's state as one of shards: what has its parameter's shape is cut like it."""
    indices = [index for group in state["param_groups"] for index in group["params"]]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    by_index = dict(zip(indices, parameters, strict=False))  # torch refuses what does not fit
    cut = {
        index: {name: like(value, _pattern(by_index.get(index))) for name, value in entry.items()}
        for index, entry in state["state"].items()
    }
    return {**state, "state": cut}


def _pattern(parameter: Any) -> DTensor | None:
    return parameter if isinstance(parameter, DTensor) else None
