"""What a scanning instrument adds to a map: uneven coverage, stripes, and pixels without data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data.filaments import STEP, Floats, swings

NUM_DRIFTS = 3  # stripes of one direction are a sum of this many, each with its own stretches


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """Two crossed scans of a field, ``(H, W)`` each.

    Attributes:
        coverage: Time spent on a pixel, relative to the median, positive.
        stripes: Drifts of the detectors along the scans, standard deviation 1.
        lost: Where a scan line was lost, in pixels that the other scan hardly saw.
    """

    coverage: Floats
    stripes: Floats
    lost: NDArray[np.bool_]


def scan(rng: np.random.Generator, shape: tuple[int, int]) -> Scan:
    """Scan a field of a height and width in two directions, about at right angles."""
    first = rng.uniform(0.15, 0.6)
    coverage, stripes = np.full(shape, 0.04), np.zeros(shape)
    lost = np.zeros(shape, dtype=np.bool_)
    for angle in (first, first + rng.uniform(1.3, 1.7)):
        across, along = _coordinates(shape, angle)
        num_across, num_along = int(across.max()) + 1, int(along.max()) + 1
        legs = _stretch(rng, num_across) * np.exp(0.5 * swings(rng, num_across, 18))
        seen = legs[across] * _stretch(rng, num_along)[along]
        coverage += seen
        for _ in range(NUM_DRIFTS):
            drift = swings(rng, num_across, 1.5) + 0.7 * swings(rng, num_across, 5)
            strength = np.clip(swings(rng, num_along, 90), 0, None)
            stripes += drift[across] * strength[along] * (seen > 0.05)
        lines = rng.random(num_across) < 0.004
        parts = swings(rng, num_along, 60) > 0.8
        lost |= lines[across] & parts[along]
    return Scan(coverage / np.median(coverage), stripes / stripes.std(), lost)


def _coordinates(
    shape: tuple[int, int], angle: float
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Across and along a scan, in steps of ``STEP`` px from the field's corner, ``(H, W)`` each."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    pair = []
    for turn in (angle, angle + np.pi / 2):
        steps = (rows * np.cos(turn) + columns * np.sin(turn)) / STEP
        pair.append((steps - steps.min()).astype(np.int32))
    return pair[0], pair[1]


def _stretch(rng: np.random.Generator, count: int) -> Floats:
    """1 over most of a range, falling to 0 towards its ends, ``(count,)``."""
    at = np.linspace(0, 1, count)
    begin, end = rng.uniform(0.05, 0.25), rng.uniform(0.75, 0.95)
    return np.clip(np.minimum(at - begin, end - at) / 0.06, 0, 1)
