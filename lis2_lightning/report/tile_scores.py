"""The best and the worst tiles of a map, by their right and wrong pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data import Raster, TileDataset
from lis2_lightning.inference import map_files
from lis2_lightning.report.pictures import stretched
from lis2_lightning.tiling import Tile

MAX_TILES: Final = 20_000  # scored; of more, as many are taken at equal distances
NUM_SHOWN: Final = 4  # best and worst tiles, each
NO_DATA: Final = 255  # among bytes
UNLABELLED, NEGATIVE, POSITIVE = 0, 1, 2
_CHUNK: Final = 256  # tiles read at once
Bytes = NDArray[np.uint8]


class Crop(NamedTuple):
    """A tile: image, truth and probability as in :class:`MapView`, and its counts."""

    top: int
    left: int
    counts: tuple[int, int, int, int]  # right and wrong positives, wrong and right negatives
    image: Bytes
    truth: Bytes
    probability: Bytes


def best_and_worst(tiles: TileDataset, probability: Raster, threshold: float) -> dict[str, Any]:
    """The best and the worst tiles of a data set of one image, of which none overlaps another.

    The worst have most wrong labelled pixels; the best most right positive pixels, less the wrong
    ones.

    Returns:
        `worst` and `best`, tuples of :class:`Crop`; `num_tiles`, and `num_scored` of them.
    """
    indices = np.arange(len(tiles), dtype=np.int64)
    if len(indices) > MAX_TILES:
        indices = np.linspace(0, len(tiles) - 1, MAX_TILES).astype(np.int64)
    parts = [_counts(tiles, probability, chunk, threshold) for chunk in _chunks(indices)]
    counts = np.concatenate(parts)
    corners = tiles.tiled_images[0].corners(indices)
    right, wrong = counts[:, 0], counts[:, 1] + counts[:, 2]

    def crops(scores: NDArray[np.int64]) -> tuple[Crop, ...]:
        chosen = apart(scores, corners, tiles.size)
        return tuple(_crop(tiles, probability, int(indices[i]), counts[i]) for i in chosen)

    return {
        "num_tiles": len(tiles),
        "num_scored": len(indices),
        "worst": crops(wrong),
        "best": crops(right - wrong),
    }


def as_bytes(values: NDArray[np.floating[Any]]) -> Bytes:
    """Numbers in [0, 1] as 0 to 254, NaN as 255.

    >>> as_bytes(np.array([0, 0.5, 1, np.nan])).tolist()
    [0, 127, 254, 255]
    """
    return map_files.as_bytes(np.clip(values, 0, 1).astype(np.float32))


def codes(target: NDArray[Any], labelled: NDArray[np.bool_]) -> Bytes:
    """0 where nothing is known, 1 on negative and 2 on positive pixels."""
    return np.where(labelled, np.where(target >= 0.5, POSITIVE, NEGATIVE), UNLABELLED).astype(
        np.uint8
    )


def _chunks(indices: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    return (indices[start : start + _CHUNK] for start in range(0, len(indices), _CHUNK))


def _cut(
    tiles: TileDataset, probability: Raster, indices: NDArray[np.int64]
) -> tuple[Bytes, NDArray[np.float32]]:
    """Codes of the truth and probabilities of tiles, first channels, `(N, s, s)` each."""
    tiled = tiles.tiled_images[0]
    parts: dict[str, NDArray[Any]] = {**tiled.read(indices, "none")}
    tops, lefts = np.ascontiguousarray(tiled.corners(indices).T)
    probs = probability.read_many(tops, lefts, tiles.size)
    return codes(parts["target"][:, 0], parts["labelled"][:, 0]), probs[:, 0]


def _counts(
    tiles: TileDataset, probability: Raster, indices: NDArray[np.int64], threshold: float
) -> NDArray[np.int64]:
    """Right and wrong positives, wrong and right negatives of each tile, `(N, 4)`."""
    truth, probs = _cut(tiles, probability, indices)
    is_chosen, is_counted = probs >= np.float32(threshold), np.isfinite(probs)
    maps = [
        (truth == kind) & (is_chosen == chosen) & is_counted
        for kind, chosen in (
            (POSITIVE, True),
            (NEGATIVE, True),
            (POSITIVE, False),
            (NEGATIVE, False),
        )
    ]
    return np.stack([np.count_nonzero(part, axis=(1, 2)) for part in maps], axis=1)


def _crop(tiles: TileDataset, probability: Raster, index: int, counts: NDArray[np.int64]) -> Crop:
    own = np.array([index])
    truth, probs = _cut(tiles, probability, own)
    top, left = tiles.tiled_images[0].corners(own)[0].tolist()
    image = tiles.image.read(Tile(top, left, tiles.size, tiles.size))[0]
    num = (int(counts[0]), int(counts[1]), int(counts[2]), int(counts[3]))
    return Crop(top, left, num, as_bytes(stretched(image)), truth[0], as_bytes(probs[0]))


def apart(scores: NDArray[np.integer[Any]], corners: NDArray[np.int64], size: int) -> list[int]:
    """The tiles of the highest scores above 0, of which none overlaps a better one.

    >>> corners = np.array([[0, 0], [0, 8], [0, 16]])
    >>> apart(np.array([5, 6, 1]), corners, 16), apart(np.array([6, 5, 1]), corners, 16)
    ([1], [0, 2])
    """
    chosen: list[int] = []
    for number in np.argsort(-scores, kind="stable").tolist():
        if scores[number] <= 0 or len(chosen) == NUM_SHOWN:
            break
        distances = np.abs(corners[chosen] - corners[number]).max(axis=1, initial=0)
        if (distances >= size).all():
            chosen.append(number)
    return chosen
