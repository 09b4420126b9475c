"""The binary cross-entropy of each pixel, and what costs a loss nothing."""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from lis2_lightning.base.labelled import on_cpu
from lis2_lightning.errors import ConfigError, DataError

# Losses that look at each pixel alone, and an output that costs them exactly nothing beside a
# target of 0, with a gradient of exactly 0: put in place of unlabelled outputs it saves masking the
# result again. (exp(-1000) is 0 in float32.)
COSTS_NOTHING = MappingProxyType(
    {
        nn.BCELoss: 0.0,
        nn.BCEWithLogitsLoss: -1000.0,
        nn.HuberLoss: 0.0,
        nn.L1Loss: 0.0,
        nn.MSELoss: 0.0,
        nn.SmoothL1Loss: 0.0,
    }
)


def binary_cross_entropy(output: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """Torch's own per pixel, but NaN is NaN and what lies outside [0, 1] is a sentence."""
    if not on_cpu(output):
        return unchecked_cross_entropy(output, target, weight)
    try:
        return F.binary_cross_entropy(output, target, weight=weight, reduction="none")
    except RuntimeError:
        check_probabilities(output)
        _check_target(target)
        if not output.isnan().any() and not target.isnan().any():
            raise  # torch means something else
        return unchecked_cross_entropy(output, target, weight)


def unchecked_cross_entropy(output: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """NaN where output or target are no probabilities: on a GPU torch's check ends the process."""
    inside = (output >= 0) & (output <= 1) & (target >= 0) & (target <= 1)
    safe, truth = torch.where(inside, output, 0.5), torch.where(inside, target, 0.0)
    values = F.binary_cross_entropy(safe, truth, weight=weight, reduction="none")
    return torch.where(inside, values, float("nan"))


def check_probabilities(output: Tensor) -> None:
    """Say which output is no probability; waits for the device.

    Raises:
        ConfigError: One lies outside [0, 1].
    """
    outside = output[(output < 0) | (output > 1)]  # NaN is neither: whoever trains reports it
    if outside.numel():
        raise ConfigError(
            f"the model's output must lie in [0, 1] for BCELoss, got {outside[0].item():.4g}: "
            f"end the model with a sigmoid or use BCEWithLogitsLoss"
        )


def _check_target(target: Tensor) -> None:
    outside = target[(target < 0) | (target > 1)]
    if outside.numel():
        raise DataError(
            f"the target must lie in [0, 1] for BCELoss, got {outside[0].item():.4g}: "
            f"check the label image"
        )
