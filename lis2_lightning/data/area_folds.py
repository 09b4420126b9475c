"""Folds of stored patches by where they lie in the image, as LIS²'s controllers assign them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.errors import ConfigError


@dataclass(frozen=True)
class AreaFolds:
    """Deals square areas of the image to folds, each with all its patches.

    A patch belongs to the area that its first pixel lies in, and to none if it reaches further
    than `overlap` beyond it. Areas count in the order of their first patches.

    Attributes:
        num_folds: Number of folds; their names are 0, 1 and so on.
        area_size: Side of an area, px.
        patch_size: Side of a patch, px; by default that of the file's patches.
        overlap: How far a patch may reach into the next area, px; with 0 no two folds share a
            pixel.
        dealing: Areas one by one to each fold (`in_turn`, LIS²'s ``RandomController``), or as many
            areas as a fold has at once (`in_blocks`, its ``NaiveController``).
    """

    num_folds: int
    area_size: int = 64
    patch_size: int | None = None
    overlap: int = 0
    dealing: Literal["in_turn", "in_blocks"] = "in_turn"

    def __post_init__(self) -> None:
        """Check the numbers."""
        if min(self.num_folds, self.area_size, self.patch_size or 1) < 1:
            raise ConfigError(
                "num_folds, area_size and patch_size of area_folds must be at least 1, not "
                f"{self.num_folds}, {self.area_size} and {self.patch_size}"
            )
        if not 0 <= self.overlap < self.area_size:
            raise ConfigError(
                f"overlap of area_folds must be from 0 to below area_size {self.area_size} px, not "
                f"{self.overlap}"
            )

    def deal(
        self, corners: NDArray[np.int64], patch_size: int
    ) -> dict[str | int, NDArray[np.int64]]:
        """The patch numbers of each fold, area by area.

        Args:
            corners: First row and column of each patch, px, `(N, 2)`.
            patch_size: The side of the file's patches, px.

        >>> corners = np.array([[0, 0], [0, 5], [0, 8], [8, 0], [0, 1]])
        >>> {k: v.tolist() for k, v in AreaFolds(num_folds=2, area_size=8).deal(corners, 4).items()}
        {0: [0, 4, 3], 1: [2]}
        """
        areas = corners // self.area_size
        ends = corners + (self.patch_size or patch_size)
        inside = (ends <= (areas + 1) * self.area_size + self.overlap).all(axis=1)
        numbers = np.flatnonzero(inside)
        _, first, area = np.unique(areas[numbers], axis=0, return_index=True, return_inverse=True)
        # by first patch, not by place
        rank = np.argsort(np.argsort(first))[area.reshape(-1)]
        order = np.argsort(rank, kind="stable")
        numbers, rank = numbers[order], rank[order]
        if self.dealing == "in_turn":
            folds = rank % self.num_folds
        else:
            # the last fold also gets what is left over
            size = len(first) // self.num_folds
            last = self.num_folds - 1
            folds = np.minimum(rank // size, last) if size else np.full_like(rank, last)
        return {fold: numbers[folds == fold] for fold in range(self.num_folds)}
