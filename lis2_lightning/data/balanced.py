"""Drawing training samples so that a share of them holds positive pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset, Dataset, Subset

from lis2_lightning.data.sampling import KeyedPermutation, combine
from lis2_lightning.data.tiles import TileDataset
from lis2_lightning.errors import ConfigError, DataError


@dataclass(frozen=True)
class BalancedSampler:
    """Draws tiles with and without positive pixels in a fixed proportion.

    An epoch has as many samples as the data set. A share of them, rounded to whole samples, has a
    positive pixel. Within its kind, every tile is drawn equally often, to within one.

    Attributes:
        positive_share: Share of the samples of an epoch with a positive pixel, in (0, 1).

    Raises:
        ConfigError: The share is not inside (0, 1).
    """

    positive_share: float = 0.5

    def __post_init__(self) -> None:
        """Check the share."""
        if not 0 < self.positive_share < 1:
            raise ConfigError(
                f"positive_share must lie between 0 and 1, not {self.positive_share}: 0.5 draws as "
                "many tiles with positive pixels as without"
            )

    def pools(self, dataset: Dataset[Any]) -> Pools:
        """The samples of both kinds.

        Raises:
            ConfigError: The data set does not know which samples hold positive pixels.
            DataError: There are no samples of one kind.
        """
        positive = with_positive(dataset)
        missing = [
            kind for kind, any_ in (("with", positive), ("without", ~positive)) if not any_.any()
        ]
        if missing:
            raise DataError(
                "a balanced sampler draws training tiles with and without positive pixels, and "
                f"there is none {missing[0]}: choose other folds, or leave sampler out"
            )
        num_drawn = round(len(positive) * self.positive_share)
        return Pools(
            np.flatnonzero(positive),
            np.flatnonzero(~positive),
            min(max(num_drawn, 1), len(positive) - 1),
        )


@dataclass(frozen=True, eq=False)
class Pools:
    """The indices of the samples of both kinds, and how many with a positive pixel are drawn."""

    positive: NDArray[np.int64]
    negative: NDArray[np.int64]
    num_drawn: int

    def draw(self, slots: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
        """The samples of some slots of an epoch, which are numbered from 0.

        A sample that is drawn again is told apart by adding the number of all samples to its index
        each time: its augmentation is another one.
        """
        items = np.empty_like(slots)
        is_positive = slots < self.num_drawn
        for stream, (pool, here, first) in enumerate(
            ((self.positive, is_positive, 0), (self.negative, ~is_positive, self.num_drawn))
        ):
            rounds, places = np.divmod(slots[here] - first, len(pool))
            drawn = np.empty_like(places)
            for number in np.unique(rounds).tolist():
                order = KeyedPermutation(len(pool), combine(seed, epoch, stream, number))
                drawn[rounds == number] = pool[order(places[rounds == number])]
            items[here] = drawn + rounds * (len(self.positive) + len(self.negative))
        return items


def with_positive(dataset: Dataset[Any]) -> NDArray[np.bool_]:
    """Which samples of tiles, also inside ``Subset`` and ``ConcatDataset``, hold positive pixels.

    Raises:
        ConfigError: The data set does not know it.
    """
    if isinstance(dataset, Subset):
        return with_positive(dataset.dataset)[np.asarray(dataset.indices, np.int64)]
    if isinstance(dataset, ConcatDataset):
        return np.concatenate([with_positive(part) for part in dataset.datasets])
    if isinstance(dataset, TileDataset):
        parts = [tiled.with_positive() for tiled in dataset.tiled_images]
        known = [part for part in parts if part is not None]
        if len(known) == len(parts):
            return np.concatenate(known)
    raise ConfigError(
        f"{type(dataset).__name__} does not know which samples hold positive pixels, which a "
        "balanced sampler needs: use a TileDataset with a target, or leave sampler out"
    )
