from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from lis2_lightning.errors import DataError
from lis2_lightning.tiling import Areas, Tile
from lis2_lightning.tiling.rows import Band, Blend, RowStitcher

BLENDS: list[Blend] = ["hann", "mean"]


def grid(shape: tuple[int, int], *, size: int, stride: int) -> NDArray[np.int64]:
    """The corners of the tiles of a whole image."""
    return Areas.cut(shape, size=None).lattice(size, stride).corners()


def image(channels: int = 1, shape: tuple[int, int] = (45, 70)) -> NDArray[np.float32]:
    return np.random.default_rng(0).random((channels, *shape), dtype=np.float32)


def cut(source: NDArray[np.float32], corners: NDArray[np.int64], size: int) -> NDArray[np.float32]:
    tiles = (Tile(int(top), int(left), size, size) for top, left in corners)
    return np.stack([source[:, tile.rows, tile.columns] for tile in tiles])


def joined(bands: list[Band], top: int = 0) -> NDArray[np.float32]:
    """The bands as one map; they must follow each other."""
    for first, values in bands:
        assert first == top
        top += values.shape[1]
    return np.concatenate([values for _, values in bands], axis=1)


def stitch(corners, maps, shape, *, blend: Blend = "hann", cuts=()) -> NDArray[np.float32]:
    """All rows, of tiles that come in several batches."""
    stitcher = RowStitcher(shape[1], channels=maps.shape[1], blend=blend)
    bands = []
    for begin, end in pairwise([0, *cuts, len(corners)]):
        bands += stitcher.add(corners[begin:end], maps[begin:end])
    return joined(bands + stitcher.finish(shape[0]))


def slow_stitch(corners, maps, shape, blend: Blend) -> NDArray[np.float64]:
    """Pixel by pixel, as the docstring says it."""
    channels, height, width = maps.shape[1:]

    def weight(i: int, side: int) -> float:
        hann = max(np.sin(np.pi * (i + 0.5) / side) ** 2, 1e-3)
        return float(hann) if blend == "hann" else 1.0

    sums, weights = np.zeros((channels, *shape)), np.zeros(shape)
    for (top, left), values in zip(corners, maps, strict=True):
        for i in range(height):
            for j in range(width):
                w = weight(i, height) * weight(j, width)
                sums[:, top + i, left + j] += w * values[:, i, j]
                weights[top + i, left + j] += w
    return np.where(weights > 0, sums / np.where(weights > 0, weights, 1), np.nan)


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("stride", [1, 5, 8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_cutting_then_stitching_gives_the_image_back(stride, channels, blend):
    source = image(channels)
    corners = grid((45, 70), size=16, stride=stride)
    stitched = stitch(corners, cut(source, corners, 16), (45, 70), blend=blend, cuts=(3, 40))
    assert stitched.dtype == np.float32
    np.testing.assert_array_almost_equal_nulp(stitched, source, nulp=1)


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("seed", range(5))
def test_it_equals_the_slow_way_pixel_by_pixel_also_where_tiles_are_missing(seed, blend):
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, (30 - 5, 17 - 7), size=(6, 2), endpoint=True)
    corners = corners[np.argsort(corners[:, 0], kind="stable")]
    maps = rng.random((len(corners), 2, 5, 7))
    expected = slow_stitch(corners, maps, (30, 17), blend)
    assert np.isnan(expected).any()
    cuts = sorted(rng.integers(0, len(corners), 2).tolist())
    stitched = stitch(corners, maps, (30, 17), blend=blend, cuts=cuts)
    np.testing.assert_allclose(stitched, expected, rtol=1e-6)


@pytest.mark.parametrize("blend", BLENDS)
def test_the_bits_do_not_depend_on_batches_nor_on_the_row_it_begins_with(blend):
    rng = np.random.default_rng(2)
    corners = grid((45, 70), size=16, stride=3)
    maps = rng.random((len(corners), 1, 16, 16), dtype=np.float32)
    at_once = stitch(corners, maps, (45, 70), blend=blend)
    for cuts in ((1,), (7, 8, 100), (57, 114)):
        np.testing.assert_array_equal(
            stitch(corners, maps, (45, 70), blend=blend, cuts=cuts), at_once
        )
    below = corners[:, 0] >= 9
    stitcher = RowStitcher(70, channels=1, blend=blend, top=9)
    lower = joined(stitcher.add(corners[below], maps[below]) + stitcher.finish(45), top=9)
    np.testing.assert_array_equal(lower[:, 16:], at_once[:, 25:])  # tiles above reach row 21


def test_each_row_is_given_away_when_the_next_tile_begins_below_it():
    stitcher = RowStitcher(4, channels=1)
    first, second = np.array([[0, 0]]), np.array([[2, 0], [5, 0]])
    assert stitcher.add(first, np.ones((1, 1, 4, 4))) == []
    bands = stitcher.add(second, np.ones((2, 1, 4, 4)))
    assert [(top, values.shape[1]) for top, values in bands] == [(0, 2), (2, 3)]
    assert [(top, values.shape[1]) for top, values in stitcher.finish(9)] == [(5, 4)]


def test_overlapping_tiles_that_disagree_leave_no_seam():
    # 0 on the left, 1 on the right, overlapping by half; their plain mean would step by 0.5
    maps = np.stack([np.zeros((1, 32, 32)), np.ones((1, 32, 32))])
    steps = np.diff(stitch(np.array([[0, 0], [0, 16]]), maps, (32, 48))[0, 16])
    assert (steps >= -1e-6).all()
    assert steps.max() < 0.12


def test_the_corners_of_the_image_are_covered_under_hann():
    maps = np.full((1, 1, 1024, 1024), 0.7, dtype=np.float32)
    assert (stitch(np.array([[0, 0]]), maps, (1024, 1024)) == np.float32(0.7)).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_values_of_any_type_are_summed_in_full_precision(dtype):
    maps = np.full((1000, 1, 2, 2), 0.3, dtype)
    stitched = stitch(np.zeros((1000, 2), dtype=np.int64), maps, (2, 2))
    assert (stitched == np.float32(dtype(0.3))).all()


def test_no_tile_is_no_error():
    nothing = np.zeros((0, 2), dtype=np.int64)
    assert np.isnan(stitch(nothing, np.zeros((0, 1, 2, 2)), (4, 4))).all()


def test_memory_is_that_of_the_open_rows_however_long_the_image_is():
    maps = np.ones((8, 1, 32, 32), dtype=np.float32)
    lefts = np.arange(8) * 32
    stitcher = RowStitcher(256, channels=1)
    tracemalloc.start()
    for top in range(0, 50_000, 32):
        bands = stitcher.add(np.stack((np.full(8, top), lefts), axis=1), maps)
    # a gap of a million rows
    bands = stitcher.add(np.array([[1_050_000, 0]]), maps[:1])
    assert sum(values.shape[1] for _, values in bands) == 1_050_000 - 49_984
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    held = 2 * 8 * 32 * 256
    assert held < peak < 4 * held


@pytest.mark.parametrize(
    ("corners", "maps", "sentence"),
    [
        ([[0, 5]], (1, 1, 4, 4), "4 x 4 px crosses the sides of an image that is 8 px wide"),
        ([[0, -1]], (1, 1, 4, 4), "crosses the sides"),
        ([[3, 0], [2, 0]], (2, 1, 4, 4), "in the order of their first rows"),
        ([[-1, 0]], (1, 1, 4, 4), "in the order of their first rows"),
        ([[0, 0]], (1, 2, 4, 4), r"must have shape \(N, 1, h, w\), not \(1, 2, 4, 4\)"),
        ([[0, 0]], (1, 4, 4), r"must have shape \(N, 1, h, w\)"),
        ([[0, 0]], (2, 1, 4, 4), r"integers of shape \(2, 2\)"),
        ([[0.5, 0.0]], (1, 1, 4, 4), "integers"),
    ],
)
def test_tiles_that_do_not_fit_are_one_clear_sentence_and_leave_no_trace(corners, maps, sentence):
    stitcher = RowStitcher(8, channels=1)
    with pytest.raises(DataError, match=sentence):
        stitcher.add(np.array(corners), np.ones(maps))
    assert np.isnan(joined(stitcher.finish(8))).all()
