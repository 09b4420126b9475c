"""Any loss, expressed as sums over labelled pixels."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from lis2_lightning.base.labelled import (
    as_mask,
    checked_mask,
    labelled_pixels,
    only_labelled,
    total_weight,
)
from lis2_lightning.errors import ConfigError
from lis2_lightning.losses.entropy import NEUTRAL, binary_cross_entropy, check_probabilities
from lis2_lightning.losses.focal import FocalLoss
from lis2_lightning.losses.overlap import BceDiceLoss, DiceLoss, SumLoss

Sums = tuple[Tensor, ...]
_MARGIN: Final = 1e-3  # of a loss, far below that of any uncertain pixel


class MaskedLoss(nn.Module):
    """Any loss, as the number of labelled pixels and sums over them.

    Unlabelled pixels, even NaN, influence neither the sums nor their gradient. Nothing is read back
    from a GPU, except for the last kind below. Everything is computed in ``float32`` (``float64``
    if the output is) outside autocast, so that a cross-entropy of probabilities works with mixed
    precision.

    - a :class:`~lis2_lightning.losses.SumLoss` defines its sums and their value;
    - a loss with an argument ``labelled`` receives it and returns the mean;
    - a loss with an attribute ``reduction``, such as torch's, is evaluated per pixel
      (``reduction="none"``, on a private copy) and masked;
    - any other loss receives the labelled pixels only, flat, and returns the mean.

    Over several batches and processes, a mean is weighted by its number of labelled pixels.

    A loss of logits says so by an attribute ``expects_logits = True``: metrics and maps are of
    probabilities, and logits pass a sigmoid first. A loss of the user's own that does not say it
    is tried. ``weight`` and ``pos_weight`` of torch's losses hold one value, or one for each
    channel.

    Attributes:
        num_sums: How many numbers :meth:`forward` returns.
        is_mean: Whether the value is the second sum divided by the first, the count.
        expects_logits: Whether the model's output is logits.
        is_declared: Whether the loss itself says so, or is torch's.

    >>> loss = MaskedLoss(nn.L1Loss())
    >>> output, target = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([0.0, 0.0, float("nan")])
    >>> sums = loss(output, target, torch.tensor([True, True, False]))
    >>> [number.item() for number in sums], loss.value(torch.stack(sums)).item()
    ([2.0, 3.0], 1.5)
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        _check_kind(loss)
        self.loss = copy.deepcopy(loss)
        self.is_mean = not isinstance(loss, SumLoss)
        self.num_sums = 1 + (loss.num_sums if isinstance(loss, SumLoss) else 1)
        self._takes_labelled = "labelled" in inspect.signature(loss.forward).parameters
        reduction = getattr(loss, "reduction", None)
        self._is_elementwise = not self._takes_labelled and isinstance(reduction, str)
        if self._is_elementwise:
            if reduction not in {"mean", "none"}:
                raise ConfigError(
                    f"the loss must be a mean over labelled pixels, {type(loss).__name__} has "
                    f"reduction={reduction!r}: omit reduction"
                )
            # weights per channel or pixel do not fit flat pixels
            self._has_weights = any(True for _ in self.loss.buffers())
            self.loss.reduction = "none"  # type: ignore[assignment]  # attributes may be anything
        for name, weight in self._weights():
            if weight.ndim == 1 and len(weight) > 1:  # torch would take them for columns
                setattr(self.loss, name, weight.reshape(-1, 1, 1))
        declared = _declared_logits(loss)
        self.is_declared = declared is not None
        self.expects_logits = self._behaves_as_of_logits() if declared is None else declared

    def forward(
        self,
        output: Tensor,
        target: Tensor,
        labelled: Tensor | None = None,
        weight: Tensor | None = None,
        count: Tensor | None = None,
    ) -> Sums:
        """The number of labelled pixels of one batch, then their sums; all 0 without any.

        With weights, a pixel of weight 2 counts as two pixels in all of them. Output, target,
        ``labelled`` (true = counts) and ``weight`` (at least 0) have one shape. ``count`` is their
        total weight, if it is known already. The ``num_sums`` scalars are ``float64`` on the
        device.

        Raises:
            ConfigError: Output and target differ in shape; under ``BCELoss`` an output is outside
                [0, 1] (on a GPU the sum is NaN instead, see :meth:`check`); a loss with a
                ``reduction`` does not return one value per pixel; or the loss takes no weights.
            DataError: ``labelled`` and target differ in shape, ``labelled`` holds something else
                than zeros and ones, or under ``BCELoss`` a target lies outside [0, 1].
        """
        labelled = checked_mask(output, target, labelled)
        count = total_weight(target, labelled, weight) if count is None else count
        with torch.autocast(output.device.type, enabled=False):
            output = output if output.dtype == torch.float64 else output.float()
            target = target.to(output.dtype)
            if weight is None:
                sums = self._sums(output, target, labelled, count)
            else:
                sums = self._weighted(output, target, labelled, weight.to(output.dtype))
        return count.double(), *(number.double() for number in sums)

    def value(self, sums: Tensor | Sequence[Tensor]) -> Tensor:
        """The loss of added results of :meth:`forward`, ``(num_sums,)``; 0 without pixels.

        A sequence will do for a loss that is a mean.
        """
        count = sums[0].detach()  # no output changes it
        count = count.where(count > 0, 1.0)  # weights may add up to less than 1
        if isinstance(self.loss, SumLoss) and isinstance(sums, Tensor):
            return self.loss.value(count, sums[1:])
        return sums[1] / count

    def check(self, output: Tensor, labelled: Tensor | None = None) -> None:
        """Check that the output is probabilities if the loss needs them; waits for the device."""
        if self.needs_probabilities:
            check_probabilities(output if labelled is None else output[as_mask(labelled)])

    @property
    def needs_probabilities(self) -> bool:
        """Whether the loss is wrong or fails where an output lies outside [0, 1]."""
        kinds = nn.BCELoss | FocalLoss | DiceLoss | BceDiceLoss
        return isinstance(self.loss, kinds) and not self.expects_logits

    def check_weights(self, target: Tensor) -> None:
        """Check that weights are one value or one for each channel of ``(B, C, H, W)``.

        Raises:
            ConfigError: They are not.
        """
        for name, weight in self._weights():
            fits = weight.ndim <= target.ndim and all(
                mine in {1, its}
                for mine, its in zip(reversed(weight.shape), reversed(target.shape), strict=False)
            )
            if not fits:
                raise ConfigError(
                    f"{name} of {type(self.loss).__name__} has {weight.numel()} values, the target "
                    f"has {target.shape[1]} channel(s): give one value, or one for each channel"
                )

    def _weights(self) -> list[tuple[str, Tensor]]:
        return list(self.loss.named_buffers()) if type(self.loss) in NEUTRAL else []

    def _behaves_as_of_logits(self) -> bool:
        """Whether large logits cost less than a perfect map of probabilities.

        A loss of probabilities costs least there, fails outside [0, 1] or knows no bounds.
        """
        truth = torch.zeros(1, 1, 8, 8)
        truth[..., ::4] = 1
        tried = copy.deepcopy(self)
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                perfect, large, larger = (
                    float(tried.value(torch.stack(tried(output, truth, truth >= 0))))
                    for output in (truth, 40 * truth - 20, 80 * truth - 40)
                )
        except Exception:  # noqa: BLE001 - a user's code may raise anything; it is tried again
            return False
        return large < perfect - _MARGIN and abs(large - larger) < _MARGIN

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

    def _weighted(
        self, output: Tensor, target: Tensor, labelled: Tensor | None, weight: Tensor
    ) -> list[Tensor]:
        if isinstance(self.loss, DiceLoss | BceDiceLoss):
            return self.loss.sums(output, target, labelled, weight)
        if self._is_elementwise:
            return [self._elementwise(output, target, labelled, weight)]
        raise ConfigError(
            f"{type(self.loss).__name__} takes no weights of pixels: leave weight out of the data "
            "set, or use dice_loss, bce_dice_loss or a loss that has a reduction"
        )

    def _elementwise(
        self,
        output: Tensor,
        target: Tensor,
        labelled: Tensor | None,
        weight: Tensor | None = None,
    ) -> Tensor:
        neutral = None if self._has_weights else NEUTRAL.get(type(self.loss))
        if labelled is not None and neutral is None:
            safe, truth = torch.where(labelled, output, 0.5), torch.where(labelled, target, 0.0)
            values = self._pixel_values(safe, truth)
            return torch.where(labelled, values if weight is None else values * weight, 0.0).sum()
        kept, truth = only_labelled(output, target, labelled, neutral or 0.0)
        values = self._pixel_values(kept, truth)
        if weight is not None:
            values = values * only_labelled(weight, target, labelled, 0.0)[0]
        return values.sum()

    def _pixel_values(self, output: Tensor, target: Tensor) -> Tensor:
        if type(self.loss) is nn.BCELoss:
            return binary_cross_entropy(output, target, self.loss.weight)
        values: Tensor = self.loss(output, target)
        if values.shape != output.shape:
            raise ConfigError(
                f"{type(self.loss).__name__} must return one value per pixel, got shape "
                f"{tuple(values.shape)} for {tuple(output.shape)}: use a pixel-wise loss, or one "
                f"with an argument 'labelled'"
            )
        return values

    def _of_pixels(self, output: Tensor, target: Tensor, labelled: Tensor | None) -> Tensor:
        kept, truth = labelled_pixels(output, target, labelled)
        if kept.numel() == 0:  # its mean would be NaN
            return kept.sum()
        value: Tensor = self.loss(kept, truth)
        return value * kept.numel()


def _check_kind(loss: nn.Module) -> None:
    """Refuse torch's losses of class numbers, of targets of -1 and 1, and of several inputs."""
    if type(loss).__module__ == nn.BCELoss.__module__ and type(loss) not in NEUTRAL:
        raise ConfigError(
            f"{type(loss).__name__} does not fit a target that is 0 or 1 in each pixel: use one of "
            f"{', '.join(kind.__name__ for kind in NEUTRAL)}, dice_loss or bce_dice_loss"
        )


def _declared_logits(loss: nn.Module) -> bool | None:
    """Whether a loss expects logits; null where one of the user's own does not say."""
    if isinstance(loss, nn.BCEWithLogitsLoss):
        return True
    declared = getattr(loss, "expects_logits", None)
    return False if declared is None and type(loss) in NEUTRAL else declared
