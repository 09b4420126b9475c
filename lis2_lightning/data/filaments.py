"""Random filaments: their curves, widths, brightness and pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.tiling.grid import Tile

Floats = NDArray[np.float64]
STEP = 0.7  # px between points of a curve; less than 1, so that there are no gaps
REACH = 5.0  # drawn distance from the curve, in widths


@dataclass(frozen=True, slots=True, eq=False)
class Filament:
    """A curve with a width and a contrast at each of its P points."""

    points: Floats  # row and column, px, (P, 2); possibly outside the image
    widths: Floats  # radius at half of the excess, px
    contrast: Floats  # excess relative to the cloud behind it


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """The pixels of one filament, ``(h, w)``."""

    tile: Tile  # the part of the image that the arrays cover
    excess: Floats  # column density relative to the cloud behind it
    distance: Floats  # from the curve, in widths, at most REACH


def network(rng: np.random.Generator, shape: tuple[int, int], *, count: int) -> list[Filament]:
    """`count` filaments 1 to 3 px wide over an image; almost half branch off earlier filaments."""
    filaments: list[Filament] = []
    for _ in range(count):
        length = log_uniform(rng, 25, 220)
        start, heading = rng.uniform((0, 0), shape), float(rng.uniform(0, 2 * np.pi))
        width = log_uniform(rng, 1.0, 2.8)
        if filaments and rng.random() < 0.45:
            sizes = np.array([len(parent.points) for parent in filaments], dtype=np.float64)
            parent = filaments[int(rng.choice(len(filaments), p=sizes / sizes.sum()))]
            at = int(rng.integers(len(parent.points) - 1))
            along = parent.points[at + 1] - parent.points[at]
            side = float(rng.choice((-1, 1)) * rng.uniform(0.5, 1.3))
            start, heading = parent.points[at], float(np.arctan2(along[0], along[1])) + side
            length, width = 0.7 * length, max(0.9, 0.75 * float(parent.widths.mean()))
        points = walk(rng, start, heading, length)
        widths = width * np.exp(0.2 * swings(rng, len(points), 12))
        filaments.append(Filament(points, widths, brightness(rng, len(points))))
    return filaments


def tangle(rng: np.random.Generator, shape: tuple[int, int], *, count: int) -> list[Filament]:
    """`count` filaments 1 to 4 px wide, of which about two in three cross an earlier one.

    Width and contrast vary along each of them by a factor of several.
    """
    filaments: list[Filament] = []
    uncrossed: list[Filament] = []
    for _ in range(count):
        length, width = log_uniform(rng, 50, 250), log_uniform(rng, 1.2, 3.2)
        centre, heading = rng.uniform((0, 0), shape), float(rng.uniform(0, 2 * np.pi))
        if uncrossed and rng.random() < 0.6:  # each but once, so that they do not pile up
            crossed = uncrossed.pop(int(rng.integers(len(uncrossed)))).points
            at = int(rng.integers(len(crossed) - 1))
            centre, along = crossed[at], crossed[at + 1] - crossed[at]
            side = float(rng.choice((-1, 1)) * rng.uniform(0.7, 1.5))
            heading = float(np.arctan2(along[0], along[1])) + side
        share = rng.uniform(0.2, 0.8)
        back = walk(rng, centre, heading + np.pi, share * length)[::-1]
        points = np.concatenate((back, walk(rng, centre, heading, (1 - share) * length)))
        widths = np.clip(width * np.exp(0.4 * swings(rng, len(points), 45)), 1.0, 4.5)
        fading = np.exp(0.35 * swings(rng, len(points), 60))
        contrast = 0.4 + 1.1 * fading * brightness(rng, len(points))
        # points half a width apart do: wide filaments are the slow ones to draw
        kept = np.unique((2 * STEP / widths).cumsum().astype(np.int64), return_index=True)[1]
        filament = Filament(points[kept], widths[kept], contrast[kept])
        filaments.append(filament)
        uncrossed.append(filament)
    return filaments


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A log-uniform number."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def walk(rng: np.random.Generator, start: Floats, heading: float, length: float) -> Floats:
    """A curve from a point, ``(P, 2)``, that bends at several scales."""
    count = max(8, int(length / STEP))
    turn = np.zeros(count)
    for size, scale_px in ((0.45, 70), (0.4, 22), (0.6, 6)):
        turn += size * swings(rng, count, scale_px)
    angle = heading + turn - turn[:8].mean()
    steps = STEP * np.stack((np.sin(angle), np.cos(angle)), axis=1)
    return np.asarray(start + np.cumsum(steps, axis=0))


def brightness(rng: np.random.Generator, count: int) -> Floats:
    """A contrast that varies along a curve, with bright cores, and fades at its ends."""
    knots = 0.35 * swings(rng, count, 35) + 0.35 * swings(rng, count, 7)
    ends = np.minimum(np.arange(count), np.arange(count)[::-1]) * STEP
    return np.asarray(log_uniform(rng, 0.35, 1.2) * np.exp(knots) * np.clip(0.35 + ends / 10, 0, 1))


def swings(rng: np.random.Generator, count: int, scale_px: float) -> Floats:
    """A smooth random function of unit standard deviation, ``(count,)``."""
    reach = max(1, int(scale_px / STEP))
    kernel = np.hanning(2 * reach + 3)[1:-1]
    kernel /= np.sqrt((kernel**2).sum())
    return np.convolve(rng.standard_normal(count + 2 * reach), kernel, mode="valid")


def draw(filament: Filament, shape: tuple[int, int]) -> Drawing:
    """Draw one filament on an image of a height and width.

    Across the curve the excess falls off as 1 / (1 + d²), the profile fitted to filaments in
    Herschel maps (Arzoumanian et al. 2011, A&A 529, L6).
    """
    reach = int(np.ceil(REACH * filament.widths.max()))
    centres = np.round(filament.points).astype(np.int64)
    low = np.clip(centres.min(axis=0) - reach, 0, shape)
    high = np.clip(centres.max(axis=0) + reach + 1, low, shape)
    tile = Tile(int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1]))
    # a square around each point: (P, 2 * reach + 1, 2 * reach + 1)
    offsets = np.arange(-reach, reach + 1)
    rows, columns = (centres[:, axis, None] + offsets for axis in (0, 1))
    squared = (
        ((rows - filament.points[:, 0, None]) ** 2)[:, :, None]
        + ((columns - filament.points[:, 1, None]) ** 2)[:, None, :]
    ) / (filament.widths**2)[:, None, None]
    excess = filament.contrast[:, None, None] / (1 + squared)
    drawn = squared < REACH**2
    drawn &= ((rows >= tile.top) & (rows < tile.bottom))[:, :, None]
    drawn &= ((columns >= tile.left) & (columns < tile.right))[:, None, :]
    first = ((rows - tile.top) * tile.width)[:, :, None]
    pixels = np.broadcast_to(first + (columns - tile.left)[:, None, :], drawn.shape)[drawn]
    brightest = np.zeros(tile.height * tile.width)
    np.maximum.at(brightest, pixels, excess[drawn])
    closest = np.full(tile.height * tile.width, REACH**2)
    np.minimum.at(closest, pixels, squared[drawn])
    sides = (tile.height, tile.width)
    return Drawing(tile, brightest.reshape(sides), np.sqrt(closest).reshape(sides))
