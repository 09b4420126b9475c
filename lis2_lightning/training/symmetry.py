"""The mean of what a network says of a tile turned and mirrored."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lis2_lightning.errors import ConfigError


def mean_of_turns(
    probabilities: Callable[[Mapping[str, Tensor]], Tensor], batch: Mapping[str, Tensor]
) -> Tensor:
    """The mean over the four quarter turns of a batch and of its mirror image.

    Maps are turned with the patch; other entries, such as ``positions``, stay as they are. One turn
    is in memory at a time.

    Args:
        probabilities: The network, from a batch to ``(B, C, H, W)``.
        batch: ``patch``, ``(B, C, H, W)``, and further entries.

    Raises:
        ConfigError: The patch has fewer than two sides.
    """
    patch = batch["patch"]
    if patch.ndim < 4:
        raise ConfigError(
            f"tta turns tiles of at least two sides, and patch has shape {tuple(patch.shape)}: set "
            "tta: false"
        )
    total = torch.zeros((), device=patch.device)
    for number in range(8):
        turned = {
            name: _turned(value, number) if _is_map(value, patch) else value
            for name, value in batch.items()
        }
        total = total + _turned_back(probabilities(turned), number)
    return total / 8


def _is_map(value: Tensor, patch: Tensor) -> bool:
    return value.ndim == patch.ndim and value.shape[2:] == patch.shape[2:]


def _turned(maps: Tensor, number: int) -> Tensor:
    mirrored = maps.flip(-1) if number >= 4 else maps
    return mirrored.rot90(number % 4, (-2, -1))


def _turned_back(maps: Tensor, number: int) -> Tensor:
    upright = maps.rot90(-(number % 4), (-2, -1))
    return upright.flip(-1) if number >= 4 else upright
