"""The base of the pixel metrics: integer sums, divided once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from lis2_lightning.base.labelled import checked_mask


class PixelMetric(Metric):
    """One number over all labelled pixels, from integer sums that add up over batches.

    A subclass defines how a batch is counted (:meth:`count`) and the value of the sums
    (:meth:`evaluate`). Metrics of one :attr:`family` share one state. The sums are ``int64``, so
    that the value does not depend on how pixels are split over batches and processes, bit for bit.

    Attributes:
        name: The key of its value in results, files and trackers.
        needs_maps: Whether :meth:`count` depends on the positions of pixels.
        sums: The state, ``int64`` on the device of the metric.
    """

    name: ClassVar[str]
    needs_maps: ClassVar[bool] = False
    is_differentiable = False
    higher_is_better: bool | None = True
    full_state_update = False
    sums: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        # one zero for all places: most metrics of a family never count, and need no memory
        zeros = torch.zeros((), dtype=torch.int64).expand(shape)
        self.add_state("sums", zeros, dist_reduce_fx="sum")

    @property
    @abstractmethod
    def family(self) -> Hashable:
        """Equal for metrics with the same :meth:`count`."""

    @abstractmethod
    def count(self, probs: Tensor, target: Tensor, labelled: Tensor | None = None) -> Tensor:
        """Count one batch: ``int64`` of the shape of :attr:`sums`, to be added to them.

        Args:
            probs: Probabilities in [0, 1], ``(B, C, H, W)``, of any float type; or, unless the
                metric :attr:`needs_maps`, flat pixels.
            target: The truth, same shape; a pixel is positive where it is at least 0.5.
            labelled: Same shape, ``bool``, true = counts; all count by default. Other pixels, even
                NaN, have no influence.
        """

    def count_alone(self, probs: Tensor, target: Tensor, labelled: Tensor | None = None) -> Tensor:
        """Count one batch, not to be added to others; arguments as for :meth:`count`."""
        return self.count(probs, target, labelled)

    @abstractmethod
    def evaluate(self, sums: Tensor) -> Tensor:
        """The metric's value for sums, or for a batch alone: a ``float64`` scalar on the CPU."""

    def update(self, probs: Tensor, target: Tensor, labelled: Tensor | None = None) -> None:
        """Add one batch to the state; arguments as for :meth:`count`.

        ``labelled`` may hold 0 and 1, or 0 and 255, of any type; NaN counts as 0.
        """
        labelled = checked_mask(probs, target, labelled)
        # not in place, which a state reset inside torch.inference_mode would refuse later
        self.sums = self.sums + self.count(probs, target, labelled)

    def compute(self) -> Tensor:
        """The value since the last reset: a ``float64`` scalar on the CPU."""
        return self.evaluate(self.sums)
