"""Batch normalisation over the batches of all processes."""

from __future__ import annotations

import logging
from typing import Literal, cast

import lightning.pytorch as pl
from lightning.pytorch.plugins import TorchSyncBatchNorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lis2_lightning.errors import ConfigError

_log = logging.getLogger("lis2_lightning")
_STATE = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class SharedBatchNorm(TorchSyncBatchNorm):
    """Normalises with the batches of all processes on GPUs, and says where that cannot be.

    What differs from Lightning's plugin: torch's layer refuses a CPU, where this one leaves the
    network as it is; and afterwards the network has its own layers again.

    Args:
        when: Where it can be, and a line in the log where it cannot; always, and an error where it
            cannot; or never.
    """

    def __init__(self, when: Literal["possible", "always", "never"] = "possible") -> None:
        self.when = when
        self._replaced: dict[str, nn.Module] = {}
        self._has_told = False

    def apply(self, model: nn.Module) -> nn.Module:
        """Put synchronised layers in the place of a network's own, where there are processes.

        Raises:
            ConfigError: It is to be always, and the devices are no GPUs.
        """
        strategy = cast("pl.LightningModule", model).trainer.strategy
        own: dict[str, nn.Module] = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
        }
        num_processes = int(getattr(strategy, "world_size", 1))
        if not own or num_processes == 1 or self.when == "never":
            return model
        device = strategy.root_device.type
        is_told = strategy.is_global_zero and not self._has_told
        self._has_told = True
        if device != "cuda":
            self._refuse(device, num_processes, is_told=is_told)
            return model
        if is_told:
            _log.info("batch normalisation is synchronised over %d processes", num_processes)
        self._replaced = own
        return super().apply(model)

    def revert(self, model: nn.Module) -> nn.Module:
        """Put the network's own layers back, with what they have learnt; none where none went."""
        for name, own in self._replaced.items():
            shared = model.get_submodule(name)
            for part in _STATE:
                setattr(own, part, getattr(shared, part))
            own.train(shared.training)
            model.set_submodule(name, own)
        self._replaced = {}
        return model

    def _refuse(self, device: str, num_processes: int, *, is_told: bool) -> None:
        if self.when == "always":
            raise ConfigError(
                f"lightning.sync_batchnorm is true, and torch synchronises batch normalisation on "
                f"GPUs only, not on {device}: leave it out, or set lightning.accelerator to gpu"
            )
        if is_told:
            _log.warning(
                "on %s batch normalisation cannot be synchronised: each of the %d processes "
                "normalises with its own batch; take a larger batch_size, a network with group "
                "normalisation, or one process",
                device,
                num_processes,
            )
