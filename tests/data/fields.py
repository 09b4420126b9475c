"""A small field with gaps, for the tests of tiles."""

from __future__ import annotations

from typing import Any

import numpy as np

from lis2_lightning.data import (
    NoiseDataAugmentation,
    RandomHorizontalFlip,
    RandomRotation,
    ToTensor,
)
from lis2_lightning.data.augment import Augmentation
from lis2_lightning.data.tiles import TileDataset

SHAPE = (70, 93)


def maps(shape: tuple[int, int] = SHAPE, seed: int = 0) -> dict[str, Any]:
    """An image with gaps, and everything that can be said about it."""
    generator = np.random.default_rng(seed)
    image = generator.random(shape) + 0.5
    image[20:30, 40:50] = np.nan
    target = (generator.random(shape) > 0.8).astype(float)
    background = ((generator.random(shape) > 0.8) & (target == 0)).astype(float)
    missing = np.isfinite(image).astype(float)
    background[:, 60:80] = 0
    target[:, 60:80] = 0
    return {"image": image, "target": target, "background": background, "missing": missing}


def every_augmentation() -> list[Augmentation]:
    return [
        ToTensor(),
        RandomHorizontalFlip(),
        RandomRotation(180),
        NoiseDataAugmentation(noise_var=0.1),
    ]


def union(dataset: TileDataset) -> np.ndarray:
    """The pixels of all tiles of a data set."""
    image = np.zeros(dataset.image_shape, dtype=bool)
    for tile in dataset.tiles:
        image[tile.rows, tile.columns] = True
    return image
