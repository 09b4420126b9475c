"""The binary cross-entropy of each pixel, and outputs with zero loss."""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from lis2_lightning.base.labelled import on_cpu
from lis2_lightning.errors import ConfigError, DataError

# Pixel-wise losses, and an output whose loss and gradient are exactly 0 beside a target of 0: it
# replaces unlabelled outputs, so that the result need not be masked. (exp(-1000) is 0 in float32.)
NEUTRAL = MappingProxyType(
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
    """Torch's, per pixel; but NaN gives NaN, and values outside [0, 1] raise one of our errors."""
    if not on_cpu(output):
        return unchecked_cross_entropy(output, target, weight)
    try:
        return F.binary_cross_entropy(output, target, weight=weight, reduction="none")
    except RuntimeError:
        check_probabilities(output)
        outside = target[(target < 0) | (target > 1)]
        if outside.numel():
            raise DataError(
                f"the target must lie in [0, 1] for BCELoss, got {outside[0].item():.4g}: "
                "check the label image"
            ) from None
        if not output.isnan().any() and not target.isnan().any():
            raise  # another error
        return unchecked_cross_entropy(output, target, weight)


def cross_entropy(output: Tensor, target: Tensor, *, from_logits: bool) -> Tensor:
    """The binary cross-entropy of each pixel, of logits or of probabilities."""
    if from_logits:
        return F.binary_cross_entropy_with_logits(output, target, reduction="none")
    return binary_cross_entropy(output, target, None)


def unchecked_cross_entropy(output: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """NaN outside [0, 1], where torch's check on a GPU would kill the process."""
    inside = (output >= 0) & (output <= 1) & (target >= 0) & (target <= 1)
    safe, truth = torch.where(inside, output, 0.5), torch.where(inside, target, 0.0)
    values = F.binary_cross_entropy(safe, truth, weight=weight, reduction="none")
    return torch.where(inside, values, float("nan"))


def check_probabilities(output: Tensor) -> None:
    """Raise a ConfigError if an output lies outside [0, 1]; waits for the device."""
    outside = output[(output < 0) | (output > 1)]  # not NaN, which the training loop reports
    if outside.numel():
        raise ConfigError(
            f"the model's output must lie in [0, 1] for this loss, got {outside[0].item():.4g}: "
            f"end the model with a sigmoid, or use a loss of logits such as BCEWithLogitsLoss"
        )
