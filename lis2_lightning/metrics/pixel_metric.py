"""What the pixel metrics have in common: one state of integer sums, divided once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from lis2_lightning.errors import DataError


class PixelMetric(Metric):
    """One number over all labelled pixels, from integer sums that add up over batches.

    A subclass says how a batch is counted (:meth:`count`) and what the sums mean
    (:meth:`evaluate`); metrics that count alike (the same :attr:`family`) can share one state,
    which is what :class:`~lis2_lightning.metrics.PixelMetrics` does. The sums are ``int64``, so any
    split of the pixels over batches and processes gives the same value, bit for bit.

    Attributes:
        name: The key of its value in results, files and trackers.
        needs_maps: Whether :meth:`count` looks at how pixels lie; if not, it is the same for the
            labelled pixels alone, flat.
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
        self.add_state("sums", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    @property
    @abstractmethod
    def family(self) -> Hashable:
        """Equal for metrics whose :meth:`count` gives the same sums."""

    @abstractmethod
    def count(self, probs: Tensor, target: Tensor, labelled: Tensor | None = None) -> Tensor:
        """Count one batch.

        Args:
            probs: Probabilities in [0, 1], ``(B, C, H, W)``, of any float type.
            target: The truth, same shape; a pixel is positive where it is at least 0.5.
            labelled: Same shape, ``bool``, true = counts; everywhere if it is not given. Values of
                other pixels, NaN among them, have no influence.

        Returns:
            ``int64`` of the shape of :attr:`sums`, to be added to them.
        """

    @abstractmethod
    def evaluate(self, sums: Tensor) -> Tensor:
        """The metric's value for these sums: a ``float64`` scalar on the CPU."""

    def update(self, probs: Tensor, target: Tensor, labelled: Tensor | None = None) -> None:
        """Add one batch to the state.

        Args:
            probs: Probabilities in [0, 1], ``(B, C, H, W)``, of any float type.
            target: The truth in {0, 1}, same shape.
            labelled: Same shape, ``bool``, true = counts; everywhere if it is not given.

        Raises:
            DataError: The shapes differ.
        """
        check_shapes(probs, target, labelled)
        # not in place: a state that was reset inside torch.inference_mode could not take it later
        self.sums = self.sums + self.count(probs, target, labelled)

    def compute(self) -> Tensor:
        """The value over all pixels seen since the last reset: a ``float64`` scalar on the CPU."""
        return self.evaluate(self.sums)


def check_shapes(probs: Tensor, target: Tensor, labelled: Tensor | None) -> None:
    """Refuse a batch whose parts do not lie on each other.

    Args:
        probs: Probabilities.
        target: The truth.
        labelled: Where the truth is known, or ``None``.

    Raises:
        DataError: The shapes differ.
    """
    if probs.shape != target.shape:
        raise DataError(
            f"a metric needs probabilities and target of one shape, got {tuple(probs.shape)} and "
            f"{tuple(target.shape)}: reshape one of them"
        )
    if labelled is not None and labelled.shape != target.shape:
        raise DataError(
            f"a metric needs labelled and target of one shape, got {tuple(labelled.shape)} and "
            f"{tuple(target.shape)}: expand labelled to every channel"
        )
