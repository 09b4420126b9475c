from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
import torch

from lis2_lightning.errors import DataError
from lis2_lightning.inference.stitch import Stitcher
from lis2_lightning.tiling import Areas, Tile


def grid(shape: tuple[int, int], *, size: int, stride: int) -> np.ndarray:
    """The corners of the tiles of a whole image."""
    return Areas.cut(shape, size=None).lattice(size, stride).corners()


def image(channels: int = 1, shape: tuple[int, int] = (45, 70)) -> np.ndarray:
    return np.random.default_rng(0).random((channels, *shape), dtype=np.float32)


def cut(source: np.ndarray, corners: np.ndarray, size: int) -> np.ndarray:
    tiles = (Tile(int(top), int(left), size, size) for top, left in corners)
    return np.stack([source[:, tile.rows, tile.columns] for tile in tiles])


def slow_stitch(corners, maps, shape) -> np.ndarray:
    """Pixel by pixel, as the docstring says it."""
    channels, height, width = maps.shape[1:]

    def weight(i: int, side: int) -> float:
        return float(max(np.sin(np.pi * (i + 0.5) / side) ** 2, 1e-3))

    sums, weights = np.zeros((channels, *shape)), np.zeros(shape)
    for (top, left), values in zip(corners, maps, strict=True):
        for i in range(height):
            for j in range(width):
                w = weight(i, height) * weight(j, width)
                sums[:, top + i, left + j] += w * values[:, i, j]
                weights[top + i, left + j] += w
    return np.where(weights > 0, sums / np.where(weights > 0, weights, 1), np.nan)


@pytest.mark.parametrize("stride", [1, 5, 8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_cutting_then_stitching_gives_the_image_back(stride, channels):
    source = image(channels)
    corners = grid((45, 70), size=16, stride=stride)
    stitcher = Stitcher((45, 70), channels=channels)
    stitcher.add(corners, cut(source, corners, 16))
    stitched = stitcher.result()
    assert stitched.dtype == np.float32
    np.testing.assert_array_almost_equal_nulp(stitched, source, nulp=1)


def test_it_equals_the_slow_way_pixel_by_pixel():
    rng = np.random.default_rng(1)
    corners = rng.integers(0, (12 - 5, 17 - 7), size=(9, 2), endpoint=True)
    maps = rng.random((9, 2, 5, 7))
    stitcher = Stitcher((12, 17), channels=2)
    stitcher.add(corners, maps)
    expected = slow_stitch(corners, maps, (12, 17))
    np.testing.assert_allclose(stitcher.result(), expected, rtol=1e-6)


def test_neither_the_order_of_tiles_nor_their_batches_are_seen_in_the_result():
    rng = np.random.default_rng(2)
    corners = grid((45, 70), size=16, stride=3)
    maps = rng.random((len(corners), 1, 16, 16), dtype=np.float32)
    at_once, in_batches = (Stitcher((45, 70)) for _ in range(2))
    at_once.add(corners, maps)
    for some in np.array_split(rng.permutation(len(corners)), 7):
        in_batches.add(corners[some], maps[some])
    np.testing.assert_array_almost_equal_nulp(at_once.result(), in_batches.result(), nulp=1)


def test_a_pixel_under_two_tiles_has_their_mean_and_one_under_none_is_nan():
    stitcher = Stitcher((2, 3))
    stitcher.add(np.array([[0, 0], [0, 1]]), np.array([[[[0.0, 0.2]]], [[[0.4, 0.8]]]]))
    np.testing.assert_allclose(stitcher.result(), [[[0.0, 0.3, 0.8], [np.nan] * 3]], rtol=1e-6)


def test_overlapping_tiles_that_disagree_leave_no_seam():
    # 0 on the left, 1 on the right, overlapping by half; their plain mean would step by 0.5
    stitcher = Stitcher((32, 48))
    stitcher.add(
        np.array([[0, 0], [0, 16]]), np.stack([np.zeros((1, 32, 32)), np.ones((1, 32, 32))])
    )
    steps = np.diff(stitcher.result()[0, 16])
    assert (steps >= -1e-6).all()
    assert steps.max() < 0.12


def test_the_corners_of_the_image_are_covered_under_hann():
    stitcher = Stitcher((1024, 1024))
    stitcher.add(np.array([[0, 0]]), np.full((1, 1, 1024, 1024), 0.7, dtype=np.float32))
    assert (stitcher.result() == np.float32(0.7)).all()


def test_more_tiles_may_follow_a_result():
    stitcher = Stitcher((1, 2))
    stitcher.add(np.array([[0, 0]]), np.array([[[[1.0]]]]))
    assert np.isnan(stitcher.result()).tolist() == [[[False, True]]]
    stitcher.add(np.array([[0, 0], [0, 1]]), np.array([[[[0.0]]], [[[0.25]]]]))
    assert stitcher.result().tolist() == [[[0.5, 0.25]]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_tensors_of_any_type_are_summed_in_full_precision(dtype):
    value = torch.tensor(0.3, dtype=dtype)
    maps = value.expand(1000, 1, 2, 2).requires_grad_()
    stitcher = Stitcher((2, 2))
    stitcher.add(np.zeros((1000, 2), dtype=np.int64), maps)
    assert (stitcher.result() == value.float().item()).all()


def test_no_tile_is_no_error():
    stitcher = Stitcher((4, 4))
    stitcher.add(np.zeros((0, 2), dtype=np.int64), np.zeros((0, 1, 2, 2)))
    assert np.isnan(stitcher.result()).all()


@pytest.mark.parametrize(
    ("corners", "maps", "sentence"),
    [
        ([[0, 0], [5, 0]], (2, 1, 4, 4), r"4 x 4 px at row 5, column 0 crosses .* 8 x 8 px"),
        ([[0, -1]], (1, 1, 4, 4), "at row 0, column -1 crosses the border"),
        ([[0, 0]], (1, 2, 4, 4), r"must have shape \(N, 1, h, w\), not \(1, 2, 4, 4\)"),
        ([[0, 0]], (1, 4, 4), r"must have shape \(N, 1, h, w\)"),
        ([[0, 0]], (2, 1, 4, 4), r"integers of shape \(2, 2\)"),
        ([[0.5, 0.0]], (1, 1, 4, 4), "integers"),
    ],
)
def test_tiles_that_do_not_fit_are_one_clear_sentence_and_leave_no_trace(corners, maps, sentence):
    stitcher = Stitcher((8, 8))
    with pytest.raises(DataError, match=sentence):
        stitcher.add(np.array(corners), np.ones(maps))
    assert np.isnan(stitcher.result()).all()


def test_memory_grows_with_the_image_and_not_with_the_tiles():
    corners = np.zeros((64, 2), dtype=np.int64)
    maps = np.ones((64, 1, 32, 32), dtype=np.float32)
    tracemalloc.start()
    stitcher = Stitcher((256, 256))
    for _ in range(50):
        stitcher.add(corners, maps)
    stitcher.result()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    held = 2 * 8 * 256 * 256
    assert held < peak < 3.5 * held


def test_ten_thousand_tiles_take_far_less_than_a_second():
    corners = grid((1632, 1632), size=32, stride=16)
    maps = torch.rand(len(corners), 1, 32, 32)
    seconds = []
    for _ in range(3):  # the best of three: other processes share the machine
        stitcher = Stitcher((1632, 1632))
        begin = time.perf_counter()
        stitcher.add(corners, maps)
        seconds.append(time.perf_counter() - begin)
    assert len(corners) == 10201
    assert min(seconds) < 1.0
