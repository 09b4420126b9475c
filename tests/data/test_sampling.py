from __future__ import annotations

import tracemalloc
from itertools import permutations

import numpy as np
import pytest

from lis2_lightning.data.sampling import (
    KeyedPermutation,
    combine,
    fork,
    normal,
    random_keys,
    uniform,
)


def splitmix64(state: int) -> int:
    """The published generator, in Python integers: the reference for the vectorised mixing."""
    mask = (1 << 64) - 1
    state = (state + 0x9E3779B97F4A7C15) & mask
    mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
    return mixed ^ (mixed >> 31)


def test_forking_equals_splitmix64_in_python_integers():
    # the first number of the published generator seeded with 0
    assert splitmix64(0) == 0xE220A8397B1DCDAF
    for key, stream in [(0, 0), (5, 3), (2**64 - 1, 2)]:
        offset = splitmix64((stream * 0x9E3779B97F4A7C15) & (2**64 - 1))
        expected = splitmix64((key + offset - 0x9E3779B97F4A7C15) & (2**64 - 1))
        assert int(fork(np.array([key], dtype=np.uint64), stream)[0]) == expected


def test_a_key_does_not_depend_on_the_keys_beside_it():
    together = random_keys(3, 4, np.arange(1000))
    for index in (0, 1, 17, 999):
        assert random_keys(3, 4, np.array([index]))[0] == together[index]


def test_keys_differ_by_seed_epoch_and_index():
    keys = [random_keys(seed, epoch, np.arange(1000)) for seed in range(5) for epoch in range(5)]
    assert len(np.unique(np.concatenate(keys))) == 25_000


def test_negative_and_huge_seeds_are_seeds_too():
    keys = [random_keys(seed, 0, np.array([0]))[0] for seed in (-1, 0, 2**64, 2**70 + 1)]
    assert keys[1] == keys[2]  # seeds count modulo 2 to the 64
    assert len(set(keys)) == 3


def test_combining_depends_on_the_order():
    assert len({combine(*numbers) for numbers in permutations((1, 2, 3))}) == 6


def test_uniform_numbers_fill_the_unit_interval_evenly():
    numbers = uniform(random_keys(0, 0, np.arange(100_000)), 0)
    counts = np.histogram(numbers, bins=100, range=(0, 1))[0]
    assert numbers.min() >= 0
    assert numbers.max() < 1
    # chi squared of 99 degrees of freedom: 99 ± 14
    assert ((counts - 1000) ** 2 / 1000).sum() < 99 + 4 * 14


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_streams_and_neighbours_are_not_correlated(shift):
    keys = random_keys(0, 0, np.arange(100_000))
    first, second = uniform(keys, 0), np.roll(uniform(keys, 1), shift)
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(100_000)


def test_normal_numbers_have_the_moments_of_a_normal_distribution():
    numbers = normal(random_keys(0, 0, np.arange(1000)), 0, 1001).astype(float)
    assert abs(numbers.mean()) < 4e-3
    assert abs(numbers.std() - 1) < 4e-3
    assert abs((numbers**3).mean()) < 2e-2
    assert abs((numbers**4).mean() - 3) < 5e-2
    # pairs are made of one radius: they must not be correlated all the same
    assert abs(np.corrcoef(numbers[:, 0], numbers[:, 501])[0, 1]) < 0.15


@pytest.mark.parametrize("count", [1, 7, 1024])
def test_normal_numbers_do_not_depend_on_the_batch(count):
    keys = random_keys(0, 0, np.arange(70))
    together = normal(keys, 0, count)
    assert together.shape == (70, count)
    for index in (0, 33, 69):
        assert (normal(keys[index : index + 1], 0, count)[0] == together[index]).all()


@pytest.mark.parametrize(
    "length", [0, 1, 2, 3, 4, 5, 7, 13, 97, 127, 128, 129, 1000, 65_537, 10**6]
)
@pytest.mark.parametrize("key", [0, 12345])
def test_a_permutation_is_a_bijection(length, key):
    order = KeyedPermutation(length, key)
    assert (np.sort(order(np.arange(length))) == np.arange(length)).all()


def test_every_order_of_three_items_occurs_about_equally_often():
    orders = [tuple(KeyedPermutation(3, key)(np.arange(3)).tolist()) for key in range(3000)]
    counts = [orders.count(order) for order in permutations(range(3))]
    assert sum(counts) == 3000
    assert min(counts) > 400
    assert max(counts) < 600


def test_every_item_comes_first_about_equally_often():
    firsts = [int(KeyedPermutation(11, key)(np.array([0]))[0]) for key in range(3300)]
    counts = np.bincount(firsts, minlength=11)
    assert ((counts - 300) ** 2 / 300).sum() < 10 + 4 * np.sqrt(20)


def test_orders_of_neighbouring_keys_agree_no_more_than_by_chance():
    first, second = (KeyedPermutation(10_000, key)(np.arange(10_000)) for key in (1, 2))
    assert (first == second).sum() < 10
    assert abs(np.corrcoef(first, np.arange(10_000))[0, 1]) < 0.05


def test_single_positions_give_the_order():
    order = KeyedPermutation(1000, key=7)
    positions = np.arange(1000)
    assert [int(order(positions[n : n + 1])[0]) for n in range(0, 1000, 83)] == order(positions)[
        ::83
    ].tolist()


def test_an_order_of_a_trillion_items_takes_no_memory():
    tracemalloc.start()
    order = KeyedPermutation(10**12, key=1)
    items = order(np.arange(10**12 - 1000, 10**12))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
    assert len(np.unique(items)) == 1000
    assert items.min() >= 0
    assert items.max() < 10**12
    assert items.max() - items.min() > 9 * 10**11
