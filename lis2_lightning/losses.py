"""Losses over the labelled pixels: a sum and a count, divided by whoever knows all of them."""

from __future__ import annotations

import copy
import inspect
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from lis2_lightning.errors import ConfigError, DataError

# Losses that look at each pixel alone, and an output that costs them exactly nothing beside a
# target of 0, with a gradient of exactly 0: put in place of unlabelled outputs it saves masking the
# result again. (exp(-1000) is 0 in float32.)
_COSTS_NOTHING = MappingProxyType(
    {
        nn.BCELoss: 0.0,
        nn.BCEWithLogitsLoss: -1000.0,
        nn.HuberLoss: 0.0,
        nn.L1Loss: 0.0,
        nn.MSELoss: 0.0,
        nn.SmoothL1Loss: 0.0,
    }
)


class MaskedLoss(nn.Module):
    """Any loss, as a sum over the labelled pixels and their number.

    The sum is part of the graph; what lies on unlabelled pixels, NaN among them, changes neither it
    nor a gradient. Nothing is read back from a GPU, except for the third kind below.
    Everything is computed in ``float32`` outside autocast, so that a cross-entropy of probabilities
    works with mixed precision.

    Three kinds of loss are told apart when this is built:

    - one with an argument ``labelled`` gets it, and its value is taken as the mean;
    - one with a ``reduction`` attribute, as all of torch's have, is evaluated pixel by pixel
      (``reduction="none"``, on a private copy) and masked;
    - any other is called with the labelled pixels only, flat, and its value is taken as the mean.

    Args:
        loss: The loss; ``loss(output, target)``.

    Raises:
        ConfigError: The loss asks for another reduction than the mean.

    >>> loss = MaskedLoss(nn.L1Loss())
    >>> output, target = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([0.0, 0.0, float("nan")])
    >>> loss(output, target, torch.tensor([True, True, False]))
    (tensor(3.), tensor(2))
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = copy.deepcopy(loss)
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

    def forward(
        self, output: Tensor, target: Tensor, labelled: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Sum up the loss of one batch.

        Args:
            output: What the model gave, ``(B, C, H, W)``, of any float type.
            target: The truth, same shape.
            labelled: Same shape, ``bool``, true = counts; everywhere if it is not given.

        Returns:
            The sum, ``float32`` (0 without any labelled pixel), and the number of labelled pixels,
            ``int64``: scalars on the device.

        Raises:
            ConfigError: The output has another shape than the target; it lies outside [0, 1] under
                ``BCELoss`` (on a GPU the sum is NaN instead, and :meth:`check` tells why); or a
                loss with a ``reduction`` does not give a value a pixel.
            DataError: ``labelled`` has another shape than the target, or under ``BCELoss`` a target
                lies outside [0, 1].
        """
        _check_shapes(output, target, labelled)
        with torch.autocast(output.device.type, enabled=False):
            output, target = output.float(), target.float()
            if labelled is None:
                count = torch.full((), output.numel(), dtype=torch.int64, device=output.device)
            else:
                labelled = labelled.bool()
                count = labelled.count_nonzero()
            if self._is_elementwise:
                return self._elementwise(output, target, labelled), count
            if self._takes_labelled:
                return self.loss(output, target, labelled=labelled) * count, count
            return self._of_pixels(output, target, labelled), count

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
            _check_probabilities(output if labelled is None else output[labelled.bool()])

    def _elementwise(self, output: Tensor, target: Tensor, labelled: Tensor | None) -> Tensor:
        nothing = None if self._has_weights else _COSTS_NOTHING.get(type(self.loss))
        if labelled is not None and nothing is None:
            output = torch.where(labelled, output, 0.5)
            target = torch.where(labelled, target, 0.0)
        elif nothing is not None:
            output, target = _only_labelled(output, target, labelled, nothing)
        values = self._pixel_values(output, target)
        if labelled is not None and nothing is None:
            values = torch.where(labelled, values, 0.0)
        return values.sum()

    def _pixel_values(self, output: Tensor, target: Tensor) -> Tensor:
        if type(self.loss) is nn.BCELoss:
            return _binary_cross_entropy(output, target, self.loss.weight)
        values: Tensor = self.loss(output, target)
        if values.shape != output.shape:
            raise ConfigError(
                f"{type(self.loss).__name__} must give one value a pixel for a mask, got "
                f"{tuple(values.shape)} for {tuple(output.shape)}: take a pixel-wise loss, or one "
                f"with an argument 'labelled'"
            )
        return values

    def _of_pixels(self, output: Tensor, target: Tensor, labelled: Tensor | None) -> Tensor:
        if labelled is None:
            labelled = torch.ones_like(target, dtype=torch.bool)
        kept, truth = output[labelled], target[labelled]
        if kept.numel() == 0:  # its mean would be NaN
            return kept.sum()
        value: Tensor = self.loss(kept, truth)
        return value * kept.numel()


class DiceLoss(nn.Module):
    """One minus a smoothed Dice of all labelled pixels of the batch, ``dice_loss`` of LIS².

    ``1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth)``, p the probabilities, t the target
    (Milletari et al. 2016, "V-Net", without squares). It is no mean over pixels: over several
    batches or processes each has its own Dice, and the mean of these is weighted by their labelled
    pixels; so the value depends on how pixels are dealt out.

    Args:
        smooth: Added above and below, so that two empty maps cost nothing.
        from_logits: The model gives logits: a sigmoid comes first.

    >>> DiceLoss()(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]))
    tensor(0.2500)
    """

    def __init__(self, *, smooth: float = 1.0, from_logits: bool = False) -> None:
        super().__init__()
        self.smooth = smooth
        self.expects_logits = from_logits

    def forward(self, output: Tensor, target: Tensor, labelled: Tensor | None = None) -> Tensor:
        """The loss of one batch.

        Args:
            output: Probabilities, or logits if so asked for, ``(B, C, H, W)``.
            target: The truth in {0, 1}, same shape.
            labelled: Same shape, ``bool``, true = counts; everywhere if it is not given.

        Returns:
            A scalar in [0, 1]; 0 without any labelled pixel.
        """
        nothing = _COSTS_NOTHING[nn.BCEWithLogitsLoss if self.expects_logits else nn.BCELoss]
        output, target = _only_labelled(output, target, labelled, nothing)
        probs = output.sigmoid() if self.expects_logits else output
        overlap = 2 * (probs * target).sum()
        dice: Tensor = (overlap + self.smooth) / (probs.sum() + target.sum() + self.smooth)
        return 1 - dice


class BceDiceLoss(nn.Module):
    """``alpha`` times the binary cross-entropy plus ``1 - alpha`` times :class:`DiceLoss`.

    ``bce_dice_loss`` of LIS². The cross-entropy is a mean over the labelled pixels; the Dice part
    is not, see there for what that means over several processes.

    Args:
        alpha: The weight of the cross-entropy, in [0, 1].
        smooth: See :class:`DiceLoss`.
        from_logits: The model gives logits: a sigmoid comes first.

    Raises:
        ConfigError: ``alpha`` lies outside [0, 1].
    """

    def __init__(
        self, *, alpha: float = 0.5, smooth: float = 1.0, from_logits: bool = False
    ) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ConfigError(f"alpha must lie in [0, 1], got {alpha}")
        self.alpha = alpha
        self.dice_loss = DiceLoss(smooth=smooth, from_logits=from_logits)
        self.expects_logits = from_logits

    def forward(self, output: Tensor, target: Tensor, labelled: Tensor | None = None) -> Tensor:
        """The loss of one batch.

        Args:
            output: Probabilities, or logits if so asked for, ``(B, C, H, W)``.
            target: The truth in {0, 1}, same shape.
            labelled: Same shape, ``bool``, true = counts; everywhere if it is not given.

        Returns:
            A scalar, at least 0; 0 without any labelled pixel.

        Raises:
            ConfigError: A probability lies outside [0, 1] (on a GPU the value is NaN instead).
            DataError: A target lies outside [0, 1].
        """
        nothing = _COSTS_NOTHING[nn.BCEWithLogitsLoss if self.expects_logits else nn.BCELoss]
        num = output.numel() if labelled is None else labelled.count_nonzero().clamp(min=1)
        output, target = _only_labelled(output, target, labelled, nothing)
        if self.expects_logits:
            values = F.binary_cross_entropy_with_logits(output, target, reduction="none")
        else:
            values = _binary_cross_entropy(output, target, None)
        mean, dice = values.sum() / num, self.dice_loss(output, target)
        value: Tensor = self.alpha * mean + (1 - self.alpha) * dice
        return value


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


def _on_cpu(tensor: Tensor) -> bool:
    """Whether reading a size from this tensor's values costs no wait for a device."""
    return tensor.device.type == "cpu"


def _only_labelled(
    output: Tensor, target: Tensor, labelled: Tensor | None, nothing: float
) -> tuple[Tensor, Tensor]:
    """What a sum over labelled pixels needs: on a CPU those, flat; on a GPU all, the rest muted.

    Gathering a fifth of the pixels takes a third of the time of the whole loss; on a GPU it would
    wait for the device. Multiplying by the mask would let NaN through, ``0 * NaN`` being NaN.
    """
    if labelled is None:
        return output, target
    if not _on_cpu(output):
        return torch.where(labelled, output, nothing), torch.where(labelled, target, 0.0)
    # on 262,144 pixels a quarter of the time of torch.nonzero, a sixth of boolean indexing
    kept = torch.from_numpy(np.flatnonzero(labelled.numpy()))
    if kept.numel() == labelled.numel():
        return output, target
    return output.reshape(-1).index_select(0, kept), target.reshape(-1).index_select(0, kept)


def _binary_cross_entropy(output: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """Torch's own per pixel, but NaN is NaN and what lies outside [0, 1] is a sentence."""
    if not _on_cpu(output):
        return _unchecked_cross_entropy(output, target, weight)
    try:
        return F.binary_cross_entropy(output, target, weight=weight, reduction="none")
    except RuntimeError:
        _check_probabilities(output)
        _check_target(target)
        if not output.isnan().any() and not target.isnan().any():
            raise  # torch means something else
        return _unchecked_cross_entropy(output, target, weight)


def _unchecked_cross_entropy(output: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """NaN where output or target are no probabilities: on a GPU torch's check ends the process."""
    inside = (output >= 0) & (output <= 1) & (target >= 0) & (target <= 1)
    safe, truth = torch.where(inside, output, 0.5), torch.where(inside, target, 0.0)
    values = F.binary_cross_entropy(safe, truth, weight=weight, reduction="none")
    return torch.where(inside, values, float("nan"))


def _check_probabilities(output: Tensor) -> None:
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
