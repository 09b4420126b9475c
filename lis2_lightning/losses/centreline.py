"""A loss of thin structures: how much of one map's centre lines lies in the other map."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from lis2_lightning.errors import ConfigError
from lis2_lightning.losses.overlap import DiceLoss

_POOLS: dict[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


class ClDiceLoss(DiceLoss):
    """``alpha`` times one minus clDice, plus ``1 - alpha`` times :class:`DiceLoss`.

    clDice (Shit et al. 2021, "clDice: a novel topology-preserving loss function for tubular
    structure segmentation") is the harmonic mean of two shares: of the prediction's centre lines
    that lies in the truth, and of the truth's that lies in the prediction.

    Centre lines are those of each tile: soft skeletons of the probabilities and of the truth. A
    pixel without a label is treated like one outside of the tile: it has no part in the minima and
    maxima over neighbours that make a skeleton, of either map, and in no sum. A filament that
    leaves the labelled pixels ends there in both maps.

    The sums run over all labelled pixels of the effective batch, see :class:`DiceLoss`; each batch
    but the last that is accumulated takes five backward passes.

    Args:
        alpha: The weight of clDice, in [0, 1].
        num_erosions: How many pixels a skeleton is deep: the largest half-width of a filament, px.
        smooth: Added to the numerators and denominators of all three fractions.
        from_logits: See :class:`DiceLoss`.
    """

    num_sums = 7  # those of DiceLoss, then skeleton(p) t, skeleton(p), skeleton(t) p, skeleton(t)

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        num_erosions: int = 5,
        smooth: float = 1.0,
        from_logits: bool = False,
    ) -> None:
        super().__init__(smooth=smooth, from_logits=from_logits)
        if not 0 <= alpha <= 1:
            raise ConfigError(f"alpha must lie in [0, 1], got {alpha}")
        if num_erosions < 0:
            raise ConfigError(f"num_erosions must be at least 0, got {num_erosions}")
        self.alpha = alpha
        self.num_erosions = num_erosions

    def sums(
        self,
        output: Tensor,
        target: Tensor,
        labelled: Tensor | None,
        weight: Tensor | None = None,
    ) -> list[Tensor]:
        """The seven sums, see :meth:`SumLoss.sums`; each pixel by its weight.

        Raises:
            ConfigError: The maps are not of shape ``(B, C, *sides)`` with one to three sides.
        """
        if output.ndim - 2 not in _POOLS:
            raise ConfigError(
                f"ClDiceLoss takes maps (B, C, *sides) with one to three sides, got shape "
                f"{tuple(output.shape)}"
            )
        overlap = super().sums(output, target, labelled, weight)
        known = torch.ones_like(target, dtype=torch.bool) if labelled is None else labelled
        probs, truth = output.where(known, 0.0), target.where(known, 0.0)
        if self.expects_logits:
            probs = probs.sigmoid().where(known, 0.0)
        lines = skeleton(probs, known, self.num_erosions)
        true_lines = skeleton(truth, known, self.num_erosions)
        counts = known if weight is None else weight.where(known, 0.0)
        parts = (lines * truth, lines, true_lines * probs, true_lines)
        return [*overlap, *((part * counts).sum() for part in parts)]

    def value(self, count: Tensor, sums: Tensor) -> Tensor:
        """In [0, 1], see :meth:`SumLoss.value`."""
        dice = super().value(count, sums[:3])
        lines_in_truth, lines, true_lines_in, true_lines = sums[3:].unbind()
        precision = self._share(lines_in_truth, lines)
        recall = self._share(true_lines_in, true_lines)
        total = precision + recall
        mean = 2 * precision * recall / total.where(total > 0, 1.0)
        return self.alpha * (1 - mean) + (1 - self.alpha) * dice

    def _share(self, part: Tensor, whole: Tensor) -> Tensor:
        """The smoothed ratio; 1 where there is no line and no smoothing."""
        divisor = whole + self.smooth
        ratio = (part + self.smooth) / divisor.where(divisor > 0, 1.0)
        return ratio.where(divisor > 0, 1.0)


def skeleton(values: Tensor, known: Tensor, num_erosions: int) -> Tensor:
    """The soft skeleton of maps in [0, 1], ``(B, C, *sides)``, made of known pixels alone.

    Erosion is the minimum over the neighbours along each side, and opening an erosion followed by
    the maximum over all neighbours, diagonal ones included. What opening removes is thin; the
    skeleton gathers it from the map and from each of `num_erosions` erosions of it.
    """
    result = (values - _opened(values, known)).relu()
    for _ in range(num_erosions):
        values = _eroded(values, known)
        thin = (values - _opened(values, known)).relu()
        result = result + (thin - result * thin).relu()
    return result.where(known, 0.0)


def _opened(values: Tensor, known: Tensor) -> Tensor:
    eroded = _eroded(values, known).where(known, 0.0)
    num_sides = values.ndim - 2
    return _POOLS[num_sides](eroded, 3, stride=1, padding=1)


def _eroded(values: Tensor, known: Tensor) -> Tensor:
    num_sides = values.ndim - 2
    negative = -values.where(known, 1.0)  # above no other value
    along = []
    for side in range(num_sides):
        window = tuple(3 if other == side else 1 for other in range(num_sides))
        margin = tuple(size // 2 for size in window)
        along.append(_POOLS[num_sides](negative, window, stride=1, padding=margin))
    return -torch.stack(along).amax(0)
