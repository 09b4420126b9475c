"""Losses that are a function of sums: exact over any number of batches and processes."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from lis2_lightning.base.labelled import num_labelled, only_labelled
from lis2_lightning.errors import ConfigError
from lis2_lightning.losses.entropy import NEUTRAL, cross_entropy


class SumLoss(nn.Module):
    """A loss that is a function of a few sums over labelled pixels.

    The trainer adds the sums of all processes and accumulated batches and uses the gradient of the
    value of the total. A subclass defines the sums (:meth:`sums`) and their value (:meth:`value`).

    Attributes:
        num_sums: The number of sums.
        expects_logits: Whether the model's output is logits; null to find out by trying.
    """

    num_sums: ClassVar[int]
    expects_logits: bool | None = None

    @abstractmethod
    def sums(self, output: Tensor, target: Tensor, labelled: Tensor | None) -> list[Tensor]:
        """The sums of one batch.

        Args:
            output: The model's output, ``(B, C, H, W)``.
            target: The truth in {0, 1}, same shape.
            labelled: Same shape, ``bool``, true = counts; ``None`` counts all.

        Returns:
            ``num_sums`` scalars; all 0 without labelled pixels.
        """

    @abstractmethod
    def value(self, count: Tensor, sums: Tensor) -> Tensor:
        """The loss of all pixels in the sums.

        Args:
            count: The number of labelled pixels, at least 1.
            sums: Their sums, ``(num_sums,)``.
        """

    def forward(self, output: Tensor, target: Tensor, labelled: Tensor | None = None) -> Tensor:
        """The loss of one batch, a scalar; 0 without labelled pixels."""
        count = num_labelled(target, labelled).clamp(min=1)
        return self.value(count, torch.stack(self.sums(output, target, labelled)))


class DiceLoss(SumLoss):
    """One minus a smoothed Dice of the labelled pixels, ``dice_loss`` of LIS².

    ``1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth)``, p the probabilities, t the target
    (Milletari et al. 2016, "V-Net", without squares).

    The sums run over all labelled pixels of the effective batch (all processes, all accumulated
    batches), so that the gradient does not depend on how pixels are distributed. This costs one
    more small all-reduce per step of several processes, and two backward passes instead of one for
    each accumulated batch but the last. Logged values are over all labelled pixels of the epoch.

    Args:
        smooth: Added to numerator and denominator, so that two empty maps have zero loss.
        from_logits: Whether the model's output is logits, which then pass a sigmoid.

    >>> DiceLoss()(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]))
    tensor(0.2500)
    """

    num_sums = 3  # p t, p, t

    def __init__(self, *, smooth: float = 1.0, from_logits: bool = False) -> None:
        super().__init__()
        if not 0 <= smooth < math.inf:
            raise ConfigError(f"smooth must be at least 0 and finite, got {smooth}")
        self.smooth = smooth
        self.expects_logits = from_logits

    def sums(
        self,
        output: Tensor,
        target: Tensor,
        labelled: Tensor | None,
        weight: Tensor | None = None,
    ) -> list[Tensor]:
        """The sums of ``p t``, p and t, see :meth:`SumLoss.sums`; each pixel by its weight."""
        kept, truth = only_labelled(output, target, labelled, _neutral(self))
        probs = kept.sigmoid() if self.expects_logits else kept
        return _overlap_sums(probs, truth, _kept_weight(weight, target, labelled))

    def value(self, count: Tensor, sums: Tensor) -> Tensor:  # noqa: ARG002 - one signature
        """In [0, 1], see :meth:`SumLoss.value`."""
        overlap, predicted, positive = sums.unbind()
        return _rest_of(2 * overlap + self.smooth, predicted + positive + self.smooth)


class TverskyLoss(DiceLoss):
    """One minus a Dice in which false positives and false negatives weigh differently.

    ``1 - (tp + smooth) / (tp + alpha fp + beta fn + smooth)``, with the sums over probabilities and
    the cost of :class:`DiceLoss` (Salehi et al. 2017, "Tversky loss function for image segmentation
    using 3D fully convolutional deep networks"). A `beta` above `alpha` finds more and is wrong
    more often; with 0.5 for both it is Dice.

    Args:
        alpha: The weight of false positives, at least 0.
        beta: The weight of false negatives, at least 0.
        smooth: Added to numerator and denominator.
        from_logits: See :class:`DiceLoss`.

    >>> TverskyLoss()(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]))  # 1 - 2 / (2 + 0.7)
    tensor(0.2593)
    """

    def __init__(
        self,
        *,
        alpha: float = 0.3,
        beta: float = 0.7,
        smooth: float = 1.0,
        from_logits: bool = False,
    ) -> None:
        super().__init__(smooth=smooth, from_logits=from_logits)
        for name, weight in (("alpha", alpha), ("beta", beta)):
            if not 0 <= weight < math.inf:
                raise ConfigError(f"{name} must be at least 0 and finite, got {weight}")
        self.alpha = alpha
        self.beta = beta

    def value(self, count: Tensor, sums: Tensor) -> Tensor:  # noqa: ARG002 - one signature
        """In [0, 1], see :meth:`SumLoss.value`."""
        overlap, predicted, positive = sums.unbind()
        false = self.alpha * (predicted - overlap) + self.beta * (positive - overlap)
        return _rest_of(overlap + self.smooth, overlap + false + self.smooth)


class BceDiceLoss(SumLoss):
    """``alpha`` times the binary cross-entropy plus ``1 - alpha`` times :class:`DiceLoss`.

    ``bce_dice_loss`` of LIS². Both terms are over all labelled pixels of the effective batch, at
    the cost described for :class:`DiceLoss` (here three backward passes).

    Args:
        alpha: The weight of the cross-entropy, in [0, 1].
        smooth: See :class:`DiceLoss`.
        from_logits: See :class:`DiceLoss`.
        pos_weight: How much a positive pixel counts in the cross-entropy, more than 0; with
            ``alpha`` 1 this is torch's ``pos_weight`` for networks that end in a sigmoid.
    """

    num_sums = 4  # cross-entropy, and those of DiceLoss

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        smooth: float = 1.0,
        from_logits: bool = False,
        pos_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ConfigError(f"alpha must lie in [0, 1], got {alpha}")
        if not 0 < pos_weight < math.inf:
            raise ConfigError(f"pos_weight must be more than 0 and finite, got {pos_weight}")
        self.alpha = alpha
        self.pos_weight = pos_weight
        self.dice_loss = DiceLoss(smooth=smooth, from_logits=from_logits)
        self.expects_logits = from_logits

    def sums(
        self,
        output: Tensor,
        target: Tensor,
        labelled: Tensor | None,
        weight: Tensor | None = None,
    ) -> list[Tensor]:
        """The sums of the cross-entropy, ``p t``, p and t, see :meth:`DiceLoss.sums`."""
        kept_weight = _kept_weight(weight, target, labelled)
        output, target = only_labelled(output, target, labelled, _neutral(self))
        values = cross_entropy(output, target, from_logits=bool(self.expects_logits))
        if self.pos_weight != 1:
            values = values * (1 + (self.pos_weight - 1) * target)
        if kept_weight is not None:
            values = values * kept_weight
        probs = output.sigmoid() if self.expects_logits else output
        return [values.sum(), *_overlap_sums(probs, target, kept_weight)]

    def value(self, count: Tensor, sums: Tensor) -> Tensor:
        """At least 0, see :meth:`SumLoss.value`."""
        mean, dice = sums[0] / count, self.dice_loss.value(count, sums[1:])
        return self.alpha * mean + (1 - self.alpha) * dice


def _rest_of(part: Tensor, whole: Tensor) -> Tensor:
    """One minus a share; 0 for 0 / 0 without smoothing: two empty maps, which agree."""
    safe = torch.where(whole > 0, whole, 1.0)
    return torch.where(whole > 0, 1 - part / safe, 0.0 * part)


def _overlap_sums(probs: Tensor, target: Tensor, weight: Tensor | None) -> list[Tensor]:
    parts = [probs * target, probs, target]
    return [(part if weight is None else part * weight).sum() for part in parts]


def _kept_weight(weight: Tensor | None, target: Tensor, labelled: Tensor | None) -> Tensor | None:
    return None if weight is None else only_labelled(weight, target, labelled, 0.0)[0]


def _neutral(loss: SumLoss) -> float:
    return NEUTRAL[nn.BCEWithLogitsLoss if loss.expects_logits else nn.BCELoss]
