"""The focal loss, which counts pixels less the surer the network already is of them."""

from __future__ import annotations

import math

from torch import Tensor, nn

from lis2_lightning.errors import ConfigError
from lis2_lightning.losses.entropy import cross_entropy


class FocalLoss(nn.Module):
    """The cross-entropy of each pixel times ``(1 - q) ** gamma``, q the probability of the truth.

    Lin et al. 2017, "Focal Loss for Dense Object Detection". It is a mean over pixels.

    Args:
        gamma: 0, which gives the cross-entropy, or at least 1.
        alpha: The weight of positive pixels in [0, 1], and 1 minus that of negative ones; null
            weights both with 1.
        from_logits: Whether the model's output is logits, which then pass a sigmoid.

    >>> import torch
    >>> FocalLoss(gamma=1)(torch.tensor([0.5]), torch.tensor([1.0]))  # half of log 2
    tensor(0.3466)
    """

    def __init__(
        self, *, gamma: float = 2.0, alpha: float | None = None, from_logits: bool = False
    ) -> None:
        super().__init__()
        if gamma != 0 and not 1 <= gamma < math.inf:
            raise ConfigError(f"gamma must be 0, or at least 1 and finite, got {gamma}")
        if alpha is not None and not 0 <= alpha <= 1:
            raise ConfigError(f"alpha must be null or lie in [0, 1], got {alpha}")
        self.gamma = gamma
        self.alpha = alpha
        self.expects_logits = from_logits
        self.reduction = "mean"

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean over pixels, or with the ``reduction`` none each pixel's value."""
        values = cross_entropy(output, target, from_logits=self.expects_logits)
        if self.gamma:
            values = values * (-(-values).expm1()) ** self.gamma  # q is exp(-values)
        if self.alpha is not None:
            values = values * (1 - self.alpha + (2 * self.alpha - 1) * target)
        return values if self.reduction == "none" else values.mean()
