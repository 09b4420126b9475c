"""Batch normalisation over the batches of all processes."""

from __future__ import annotations

import logging
from typing import Literal, cast

import lightning.pytorch as pl
from lightning.pytorch.plugins import TorchSyncBatchNorm
from torch import nn

from lis2_lightning.errors import ConfigError

_log = logging.getLogger("lis2_lightning")
_LAYERS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class SharedBatchNorm(TorchSyncBatchNorm):
    """Normalises with the batches of all processes on GPUs, and reports where that is impossible.

    Lightning's plugin fails on a CPU, and leaves layers of its own class behind. Where it is
    impossible, "possible" logs a line and "always" is an error; "never" replaces nothing.
    """

    def __init__(self, when: Literal["possible", "always", "never"] = "possible") -> None:
        self.when = when
        self._replaced: dict[str, nn.Module] = {}
        self._is_logged = False

    def apply(self, model: nn.Module) -> nn.Module:
        """Replace a network's layers by synchronised ones, where there are several processes."""
        strategy = cast("pl.LightningModule", model).trainer.strategy
        own = {name: layer for name, layer in model.named_modules() if isinstance(layer, _LAYERS)}
        num, device = int(getattr(strategy, "world_size", 1)), strategy.root_device.type
        if not own or num == 1 or self.when == "never":
            return model
        if device != "cuda" and self.when == "always":
            raise ConfigError(
                "lightning.sync_batchnorm is true, and torch synchronises batch normalisation on "
                f"GPUs only, not on {device}: leave it out, or set lightning.accelerator to gpu"
            )
        if strategy.is_global_zero and not self._is_logged:
            self._is_logged = True
            _report(num, device)
        if device != "cuda":
            return model
        self._replaced = dict(own)
        return super().apply(model)

    def revert(self, model: nn.Module) -> nn.Module:
        """Put the network's own layers back, with their new statistics."""
        for name, own in self._replaced.items():
            shared = model.get_submodule(name)
            own.load_state_dict(shared.state_dict())
            own.train(shared.training)
            model.set_submodule(name, own)
        self._replaced = {}
        return model


def _report(num: int, device: str) -> None:
    if device == "cuda":
        _log.info("batch normalisation is synchronised over %d processes", num)
        return
    _log.warning(
        "on %s batch normalisation cannot be synchronised: each of the %d processes "
        "normalises with its own batch; use a larger batch_size, a network with group "
        "normalisation, or one process",
        device,
        num,
    )
