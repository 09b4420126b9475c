"""Any loss as sums over the labelled pixels, from which the value of all of them follows."""

from __future__ import annotations

import copy
import inspect

import torch
from torch import Tensor, nn

from lis2_lightning.base.labelled import labelled_pixels, num_labelled, only_labelled
from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.losses.entropy import (
    COSTS_NOTHING,
    binary_cross_entropy,
    check_probabilities,
)
from lis2_lightning.losses.overlap import BceDiceLoss, SumLoss

Sums = tuple[Tensor, ...]


class MaskedLoss(nn.Module):
    """Any loss, as sums over the labelled pixels and their number.

    The sums are part of the graph; what lies on unlabelled pixels, NaN among them, changes neither
    them nor a gradient. Nothing is read back from a GPU, except for the fourth kind below.
    Everything is computed in ``float32`` (``float64`` where the output is) outside autocast, so
    that a cross-entropy of probabilities works with mixed precision.

    Four kinds of loss are told apart when this is built:

    - a :class:`~lis2_lightning.losses.SumLoss` gives sums of its own, and their value;
    - one with an argument ``labelled`` gets it, and its value is taken as the mean;
    - one with a ``reduction`` attribute, as all of torch's have, is evaluated pixel by pixel
      (``reduction="none"``, on a private copy) and masked;
    - any other is called with the labelled pixels only, flat, and its value is taken as the mean.

    A value that is taken as a mean counts, over several batches and processes, as often as its
    batch has labelled pixels.

    Args:
        loss: The loss; ``loss(output, target)``.

    Attributes:
        num_sums: How many numbers :meth:`forward` gives.
        is_mean: Whether the value is the second sum over the first, the count.

    Raises:
        ConfigError: The loss asks for another reduction than the mean.

    >>> loss = MaskedLoss(nn.L1Loss())
    >>> output, target = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([0.0, 0.0, float("nan")])
    >>> sums = loss(output, target, torch.tensor([True, True, False]))
    >>> [each.item() for each in sums], loss.value(torch.stack(sums)).item()
    ([2.0, 3.0], 1.5)
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = copy.deepcopy(loss)
        self.is_mean = not isinstance(loss, SumLoss)
        self.num_sums = 1 + (loss.num_sums if isinstance(loss, SumLoss) else 1)
        self._takes_labelled = "labelled" in inspect.signature(loss.forward).parameters
        reduction = getattr(loss, "reduction", None)
        self._is_elementwise = not self._takes_labelled and isinstance(reduction, str)
        if self._is_elementwise:
            if reduction not in {"mean", "none"}:
                raise ConfigError(
                    f"the loss is a mean over labelled pixels, {type(loss).__name__} asks for "
                    f"reduction={reduction!r}: leave reduction out"
                )
            # weights are laid out by channel or pixel: they do not fit pixels gathered flat
            self._has_weights = any(True for _ in self.loss.buffers())
            self.loss.reduction = "none"  # type: ignore[assignment]  # modules hold anything

    @property
    def expects_logits(self) -> bool:
        """Whether the model's output is logits, so that metrics need a sigmoid first.

        True for ``BCEWithLogitsLoss`` and for any loss whose attribute ``expects_logits`` is true.
        """
        if isinstance(self.loss, nn.BCEWithLogitsLoss):
            return True
        return bool(getattr(self.loss, "expects_logits", False))

    def forward(self, output: Tensor, target: Tensor, labelled: Tensor | None = None) -> Sums:
        """Sum up one batch.

        Args:
            output: What the model gave, ``(B, C, H, W)``, of any float type.
            target: The truth, same shape.
            labelled: Same shape, ``bool``, true = counts; everywhere if it is not given.

        Returns:
            The number of labelled pixels, then their sums (0 without any labelled pixel):
            ``num_sums`` scalars, ``float64`` on the device.

        Raises:
            ConfigError: The output has another shape than the target; it lies outside [0, 1] under
                ``BCELoss`` (on a GPU the sum is NaN instead, and :meth:`check` tells why); or a
                loss with a ``reduction`` does not give a value a pixel.
            DataError: ``labelled`` has another shape than the target, or under ``BCELoss`` a target
                lies outside [0, 1].
        """
        _check_shapes(output, target, labelled)
        labelled = None if labelled is None else labelled.bool()
        count = num_labelled(target, labelled)
        with torch.autocast(output.device.type, enabled=False):
            output = output if output.dtype == torch.float64 else output.float()
            sums = self._sums(output, target.to(output.dtype), labelled, count)
        return count.double(), *(each.double() for each in sums)

    def value(self, sums: Tensor) -> Tensor:
        """The loss of all pixels whose sums these are; 0 without any, for all sums are 0 then.

        Args:
            sums: What :meth:`forward` gave, added up over batches and processes, ``(num_sums,)``.
        """
        count = sums[0].clamp(min=1)
        if isinstance(self.loss, SumLoss):
            return self.loss.value(count, sums[1:])
        return sums[1] / count

    def check(self, output: Tensor, labelled: Tensor | None = None) -> None:
        """Say what is wrong with a model's output for this loss; waits for the device.

        Args:
            output: What the model gave.
            labelled: Same shape, true = counts.

        Raises:
            ConfigError: The loss is a cross-entropy of probabilities, the output no probability.
        """
        if isinstance(self.loss, nn.BCELoss) or (
            isinstance(self.loss, BceDiceLoss) and not self.expects_logits
        ):
            check_probabilities(output if labelled is None else output[labelled.bool()])

    def _sums(
        self, output: Tensor, target: Tensor, labelled: Tensor | None, count: Tensor
    ) -> list[Tensor]:
        if isinstance(self.loss, SumLoss):
            return self.loss.sums(output, target, labelled)
        if self._is_elementwise:
            return [self._elementwise(output, target, labelled)]
        if self._takes_labelled:
            return [self.loss(output, target, labelled=labelled) * count]
        return [self._of_pixels(output, target, labelled)]

    def _elementwise(self, output: Tensor, target: Tensor, labelled: Tensor | None) -> Tensor:
        nothing = None if self._has_weights else COSTS_NOTHING.get(type(self.loss))
        if labelled is not None and nothing is None:
            output = torch.where(labelled, output, 0.5)
            target = torch.where(labelled, target, 0.0)
        elif nothing is not None:
            output, target = only_labelled(output, target, labelled, nothing)
        values = self._pixel_values(output, target)
        if labelled is not None and nothing is None:
            values = torch.where(labelled, values, 0.0)
        return values.sum()

    def _pixel_values(self, output: Tensor, target: Tensor) -> Tensor:
        if type(self.loss) is nn.BCELoss:
            return binary_cross_entropy(output, target, self.loss.weight)
        values: Tensor = self.loss(output, target)
        if values.shape != output.shape:
            raise ConfigError(
                f"{type(self.loss).__name__} must give one value a pixel for a mask, got "
                f"{tuple(values.shape)} for {tuple(output.shape)}: take a pixel-wise loss, or one "
                f"with an argument 'labelled'"
            )
        return values

    def _of_pixels(self, output: Tensor, target: Tensor, labelled: Tensor | None) -> Tensor:
        kept, truth = labelled_pixels(output, target, labelled)
        if kept.numel() == 0:  # its mean would be NaN
            return kept.sum()
        value: Tensor = self.loss(kept, truth)
        return value * kept.numel()


def _check_shapes(output: Tensor, target: Tensor, labelled: Tensor | None) -> None:
    if output.shape != target.shape:
        raise ConfigError(
            f"the model's output must have the shape of the target {tuple(target.shape)}, got "
            f"{tuple(output.shape)}: take a model that gives one value for each target pixel"
        )
    if labelled is not None and labelled.shape != target.shape:
        raise DataError(
            f"labelled must have the shape of the target {tuple(target.shape)}, got "
            f"{tuple(labelled.shape)}: the data set has to give one value for each target pixel"
        )
