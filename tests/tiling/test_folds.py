from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.tiling import Areas, areas_meet, assign_folds, shared_pixel


@pytest.mark.parametrize("shape", [(64, 64), (100, 300), (129, 65), (10, 200)])
def test_areas_cover_each_side_evenly_and_are_never_too_small(shape):
    areas = Areas.cut(shape, size=32)
    assert areas.image_shape == shape
    for edges, extent in zip((areas.row_edges, areas.column_edges), shape, strict=True):
        sides = np.diff(edges)
        assert edges[0] == 0
        assert sides.sum() == extent
        assert sides.min() >= min(32, extent)
        assert sides.max() - sides.min() <= 1


def test_without_a_size_the_image_is_one_area():
    assert Areas.cut((100, 200), size=None).shape == (1, 1)


@pytest.mark.parametrize("buffer", [0, 1, 4, 5])
def test_tiles_of_different_areas_keep_the_buffer_between_them(buffer):
    areas = Areas.cut((70, 95), size=30, buffer=buffer)
    lattice = areas.lattice(size=8, stride=3)
    row_areas, column_areas = areas.of(lattice)
    for begins, owners in ((lattice.tops, row_areas), (lattice.lefts, column_areas)):
        gaps = [
            abs(int(begin - other_begin)) - 8
            for begin, owner in zip(begins, owners, strict=True)
            for other_begin, other_owner in zip(begins, owners, strict=True)
            if owner != other_owner
        ]
        # tiles reach the shrunk areas' borders, so that the least gap is the buffer itself
        assert min(gaps) == buffer


def test_tiles_lie_inside_their_area():
    areas = Areas.cut((90, 64), size=21)
    lattice = areas.lattice(size=10, stride=4)
    row_areas, _ = areas.of(lattice)
    assert (areas.row_edges[row_areas] <= lattice.tops).all()
    assert (lattice.tops + 10 <= areas.row_edges[row_areas + 1]).all()


def test_the_buffer_does_not_shrink_a_single_area():
    lattices = [Areas.cut((50, 61), size=None, buffer=px).lattice(16, 5) for px in (0, 6)]
    assert lattices[0].corners().tolist() == lattices[1].corners().tolist()


def test_an_area_that_cannot_hold_a_tile_is_refused():
    with pytest.raises(ConfigError, match="use an area_size of at least 40"):
        Areas.cut((96, 96), size=32, buffer=8).lattice(size=32, stride=16)


def test_a_tile_larger_than_the_image_is_refused():
    with pytest.raises(DataError, match="a tile of 32 px does not fit an image of 20 x 400 px"):
        Areas.cut((20, 400), size=64).lattice(size=32, stride=16)


@pytest.mark.parametrize("num_folds", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("seed", [0, 1])
def test_folds_are_balanced_by_everything_that_areas_hold(num_folds, seed):
    generator = np.random.default_rng(7)
    labelled = generator.integers(0, 1000, 200) * (generator.random(200) < 0.6)
    weights = np.stack((labelled, (labelled * generator.random(200)).astype(int)), axis=1)

    folds = assign_folds(weights, num_folds=num_folds, seed=seed)

    loads = np.stack([weights[folds == fold].sum(axis=0) for fold in range(num_folds)])
    assert np.abs(loads / loads.mean(axis=0) - 1).max() < 0.05  # dealt at random: about 0.3
    counts = np.bincount(folds, minlength=num_folds)
    assert counts.min() >= 0.5 * counts.mean()


def test_folds_depend_on_the_seed_and_on_nothing_else():
    weights = np.ones((50, 2), dtype=int)
    first = assign_folds(weights, num_folds=5, seed=3)
    assert (first == assign_folds(weights, num_folds=5, seed=3)).all()
    assert (first != assign_folds(weights, num_folds=5, seed=4)).any()
    assert np.bincount(first).tolist() == [10] * 5


@pytest.mark.parametrize(
    "weights", [np.zeros((3, 2)), np.eye(3), [[1, 0], [0, 1], [0, 0]], np.ones((3, 1))]
)
def test_no_fold_is_without_an_area(weights):
    assert sorted(assign_folds(np.asarray(weights), num_folds=3)) == [0, 1, 2]


def test_more_folds_than_areas_are_refused():
    with pytest.raises(DataError, match="5 folds need at least 5 areas, the image has 4"):
        assign_folds(np.ones((4, 2)), num_folds=5)


def test_no_fold_at_all_is_refused():
    with pytest.raises(ConfigError, match="num_folds must be at least 1"):
        assign_folds(np.ones((4, 2)), num_folds=0)


def covered(corners, size, extent=40):
    image = np.zeros((extent, extent), dtype=bool)
    for top, left in corners:
        image[top : top + size, left : left + size] = True
    return image


@pytest.mark.parametrize("cells", [1, 7, 1 << 22])
def test_a_shared_pixel_is_found_exactly_where_boolean_maps_share_one(monkeypatch, cells):
    monkeypatch.setattr("lis2_lightning.tiling.folds.CELLS", cells)
    generator = np.random.default_rng(0)
    outcomes = []
    for _ in range(150):
        first = generator.integers(0, 30, (generator.integers(1, 6), 2))
        second = generator.integers(0, 30, (generator.integers(1, 6), 2))
        sizes = generator.integers(1, 10, 2).tolist()
        shared = covered(first, sizes[0]) & covered(second, sizes[1])

        pixel = shared_pixel(first, sizes[0], second, sizes[1])

        outcomes.append(pixel is not None)
        assert outcomes[-1] == shared.any()
        if pixel is not None:
            assert shared[pixel]
    assert 0.1 < np.mean(outcomes) < 0.9


def test_sets_without_tiles_share_no_pixel():
    nothing = np.zeros((0, 2), dtype=np.int64)
    assert shared_pixel(nothing, 4, np.array([[0, 0]]), 4) is None
    assert shared_pixel(nothing, 4, nothing, 4) is None


def test_a_leak_is_looked_for_in_little_memory():
    corners = Areas.cut((20_000, 20_000), size=None).lattice(32, 32).corners()  # 4e8 pixels
    first, second = corners[::2], corners[1::2]
    tracemalloc.start()
    assert shared_pixel(first, 32, second, 32) is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6  # a map of the pixels alone would take 400 MB


def test_areas_meet_exactly_where_boolean_maps_share_a_pixel():
    generator = np.random.default_rng(2)
    for _ in range(50):
        shape = tuple(generator.integers(10, 40, size=2).tolist())
        cuts = [Areas.cut(shape, size=int(size)) for size in generator.integers(3, 12, size=2)]
        used = [generator.random(cut.shape) < 0.15 for cut in cuts]
        images = [np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)]
        for cut, chosen, image in zip(cuts, used, images, strict=True):
            for row, column in np.argwhere(chosen):
                rows = slice(*cut.row_edges[row : row + 2])
                image[rows, slice(*cut.column_edges[column : column + 2])] = True
        expected = bool((images[0] & images[1]).any())
        assert areas_meet(cuts[0], used[0], cuts[1], used[1]) is expected
