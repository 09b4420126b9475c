"""Losses of sums: those that are no mean of pixels, and yet exact over any number of processes."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from lis2_lightning.base.labelled import num_labelled, only_labelled
from lis2_lightning.errors import ConfigError
from lis2_lightning.losses.entropy import COSTS_NOTHING, binary_cross_entropy


class SumLoss(nn.Module):
    """A loss that is a function of a few sums over labelled pixels.

    Sums add up over batches and processes, so the value of all of them together needs no pixel
    twice: the trainer adds the sums of every process and of every accumulated batch, and takes the
    gradient of the value of the total. A subclass says which sums there are (:meth:`sums`) and
    what they come to (:meth:`value`).

    Attributes:
        num_sums: How many sums there are.
        expects_logits: Whether the model's output is logits.
    """

    num_sums: ClassVar[int]
    expects_logits: bool = False

    @abstractmethod
    def sums(self, output: Tensor, target: Tensor, labelled: Tensor | None) -> list[Tensor]:
        """Sum up one batch.

        Args:
            output: What the model gave, ``(B, C, H, W)``.
            target: The truth in {0, 1}, same shape.
            labelled: Same shape, ``bool``, true = counts; everywhere if it is ``None``.

        Returns:
            ``num_sums`` scalars, 0 each without any labelled pixel.
        """

    @abstractmethod
    def value(self, count: Tensor, sums: Tensor) -> Tensor:
        """The loss of all pixels that were summed up.

        Args:
            count: How many labelled pixels there are, at least 1.
            sums: Their sums, ``(num_sums,)``.
        """

    def forward(self, output: Tensor, target: Tensor, labelled: Tensor | None = None) -> Tensor:
        """The loss of one batch, or of a whole data set given at once.

        Args:
            output: Probabilities, or logits if so asked for, ``(B, C, H, W)``.
            target: The truth in {0, 1}, same shape.
            labelled: Same shape, ``bool``, true = counts; everywhere if it is not given.

        Returns:
            A scalar; 0 without any labelled pixel.

        Raises:
            ConfigError: A probability lies outside [0, 1] where a cross-entropy needs one (on a
                GPU the value is NaN instead).
            DataError: A target does.
        """
        count = num_labelled(target, labelled).clamp(min=1)
        return self.value(count, torch.stack(self.sums(output, target, labelled)))


class DiceLoss(SumLoss):
    """One minus a smoothed Dice of the labelled pixels, ``dice_loss`` of LIS².

    ``1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth)``, p the probabilities, t the target
    (Milletari et al. 2016, "V-Net", without squares).

    It is no mean of pixels. The sums run over the labelled pixels of the whole effective batch:
    those of every process and of every accumulated batch. So the gradient does not depend on how
    pixels are dealt out. Its price: one more small exchange in each step of several processes, and
    two backward passes instead of one for each accumulated batch but the last. In the log and in
    results it is that of all labelled pixels of the epoch or the data set.

    Args:
        smooth: Added above and below, so that two empty maps cost nothing.
        from_logits: The model gives logits: a sigmoid comes first.

    >>> DiceLoss()(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]))
    tensor(0.2500)
    """

    num_sums = 3  # p t, p, t

    def __init__(self, *, smooth: float = 1.0, from_logits: bool = False) -> None:
        super().__init__()
        self.smooth = smooth
        self.expects_logits = from_logits

    def sums(self, output: Tensor, target: Tensor, labelled: Tensor | None) -> list[Tensor]:
        """The sums of ``p t``, p and t, see :meth:`SumLoss.sums`."""
        output, target = only_labelled(output, target, labelled, _nothing(self))
        return overlap_sums(output.sigmoid() if self.expects_logits else output, target)

    def value(self, count: Tensor, sums: Tensor) -> Tensor:  # noqa: ARG002 - the same for all
        """In [0, 1], see :meth:`SumLoss.value`."""
        overlap, predicted, positive = sums.unbind()
        return 1 - (2 * overlap + self.smooth) / (predicted + positive + self.smooth)


class BceDiceLoss(SumLoss):
    """``alpha`` times the binary cross-entropy plus ``1 - alpha`` times :class:`DiceLoss`.

    ``bce_dice_loss`` of LIS². Over several processes and accumulated batches the cross-entropy is
    the mean over all their labelled pixels, and the Dice that of all of them; see there for what
    that costs (here it is three backward passes).

    Args:
        alpha: The weight of the cross-entropy, in [0, 1].
        smooth: See :class:`DiceLoss`.
        from_logits: The model gives logits: a sigmoid comes first.

    Raises:
        ConfigError: ``alpha`` lies outside [0, 1].
    """

    num_sums = 4  # cross-entropy, and those of DiceLoss

    def __init__(
        self, *, alpha: float = 0.5, smooth: float = 1.0, from_logits: bool = False
    ) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ConfigError(f"alpha must lie in [0, 1], got {alpha}")
        self.alpha = alpha
        self.dice_loss = DiceLoss(smooth=smooth, from_logits=from_logits)
        self.expects_logits = from_logits

    def sums(self, output: Tensor, target: Tensor, labelled: Tensor | None) -> list[Tensor]:
        """The sums of the cross-entropy, ``p t``, p and t, see :meth:`SumLoss.sums`.

        Raises:
            ConfigError: A probability lies outside [0, 1] (on a GPU the sum is NaN instead).
            DataError: A target does.
        """
        output, target = only_labelled(output, target, labelled, _nothing(self))
        if self.expects_logits:
            values = F.binary_cross_entropy_with_logits(output, target, reduction="none")
            return [values.sum(), *overlap_sums(output.sigmoid(), target)]
        values = binary_cross_entropy(output, target, None)
        return [values.sum(), *overlap_sums(output, target)]

    def value(self, count: Tensor, sums: Tensor) -> Tensor:
        """At least 0, see :meth:`SumLoss.value`."""
        mean, dice = sums[0] / count, self.dice_loss.value(count, sums[1:])
        return self.alpha * mean + (1 - self.alpha) * dice


def overlap_sums(probs: Tensor, target: Tensor) -> list[Tensor]:
    """The sums of ``p t``, p and t."""
    return [(probs * target).sum(), probs.sum(), target.sum()]


def _nothing(loss: SumLoss) -> float:
    return COSTS_NOTHING[nn.BCEWithLogitsLoss if loss.expects_logits else nn.BCELoss]
