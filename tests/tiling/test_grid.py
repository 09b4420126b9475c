from __future__ import annotations

import numpy as np
import pytest

from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.tiling import Areas, Lattice, Tile
from lis2_lightning.tiling.grid import starts


def grid(shape: tuple[int, int], *, size: int, stride: int) -> np.ndarray:
    """The corners of the tiles of a whole image."""
    return Areas.cut(shape, size=None).lattice(size, stride).corners()


@pytest.mark.parametrize("extent", [7, 8, 31, 32, 33, 100])
@pytest.mark.parametrize("size", [1, 4, 7])
@pytest.mark.parametrize("stride", [1, 2, 3, 50])
def test_starts_equal_a_loop_that_moves_the_last_tile_back(extent, size, stride):
    expected, start = [], 0
    while start + size < extent:
        expected.append(start)
        start += stride
    expected.append(extent - size)

    firsts = starts(extent, size, stride)

    if stride <= size:
        assert firsts.tolist() == expected
    assert firsts[-1] + size == extent
    assert (np.diff(firsts) > 0).all()


@pytest.mark.parametrize("stride", [1, 3, 5])
def test_every_pixel_is_in_a_tile_and_no_tile_passes_the_border(stride):
    covered = np.zeros((17, 23), dtype=int)
    for top, left in grid(covered.shape, size=5, stride=stride):
        tile = Tile(int(top), int(left), 5, 5)
        assert tile.bottom <= 17
        assert tile.right <= 23
        covered[tile.rows, tile.columns] += 1
    assert covered.min() >= 1


def test_the_grid_is_in_reading_order():
    assert grid((8, 12), size=4, stride=4).tolist() == [
        [0, 0],
        [0, 4],
        [0, 8],
        [4, 0],
        [4, 4],
        [4, 8],
    ]


def test_a_tile_as_large_as_the_image_is_the_image():
    assert grid((6, 6), size=6, stride=3).tolist() == [[0, 0]]


def test_a_tile_larger_than_the_image_is_refused():
    with pytest.raises(DataError, match="a tile of 32 px does not fit an image of 20 x 400 px"):
        grid((20, 400), size=32, stride=16)


@pytest.mark.parametrize(("size", "stride"), [(0, 1), (-1, 1), (4, 0)])
def test_a_size_or_stride_below_one_is_refused(size, stride):
    with pytest.raises(ConfigError, match="at least 1 px"):
        starts(10, size, stride)


def test_a_lattice_gives_single_corners_as_it_gives_all():
    lattice = Lattice(np.array([0, 3, 9]), np.array([1, 5]), size=4)
    assert len(lattice) == 6
    for index, corner in enumerate(lattice.corners()):
        assert lattice.corners(np.array([index])).tolist() == [corner.tolist()]
