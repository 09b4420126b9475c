from __future__ import annotations

import numpy as np
import pytest

from lis2_lightning.tiling import Areas, Blocks


def blocks_of(shape: tuple[int, int], size: int, stride: int, batch_size: int) -> Blocks:
    return Blocks(Areas.cut(shape, size=None).lattice(size, stride), batch_size)


@pytest.mark.parametrize("seed", range(20))
def test_processes_share_the_rows_and_see_every_tile_of_theirs_in_the_same_batches(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 20))
    height, width = (int(side) for side in rng.integers(size, 200, 2))
    stride, batch_size = int(rng.integers(1, size + 1)), int(rng.integers(1, 60))
    blocks = blocks_of((height, width), size, stride, batch_size)
    alone = blocks.batches(0, height)
    assert np.concatenate(alone).tolist() == list(range(len(blocks.lattice)))
    assert max(map(len, alone)) <= batch_size
    tops = np.repeat(blocks.lattice.tops, len(blocks.lattice.lefts))
    end = 0
    for rank in range(num := int(rng.integers(1, 6))):
        begin, bottom = blocks.share(rank, num)
        assert begin == end
        end = bottom
        for top in {begin, int(rng.integers(begin, bottom + 1))}:  # or where it was interrupted
            mine = blocks.batches(top, bottom)
            assert set(mine) <= set(alone)
            needed = np.flatnonzero((top < bottom) & (tops < bottom) & (tops + size > top))
            assert set(needed.tolist()) <= {tile for batch in mine for tile in batch}
            # nothing begins below its rows, and nothing but its first block is above them
            assert all(tops[batch.start] < bottom for batch in mine)
            too_many = [b for b in mine if tops[b[-1]] + size <= top]
            assert len(too_many) * batch_size <= 2 * blocks.rows * len(blocks.lattice.lefts)
            assert not mine or blocks.top_of(mine[0]) == tops[mine[0].start]
    assert end == height


def test_a_batch_holds_several_rows_of_a_narrow_image():
    blocks = blocks_of((100, 20), 10, 10, 5)
    assert (blocks.rows, blocks.num) == (3, 4)
    assert [len(batch) for batch in blocks.batches(0, 100)] == [5, 1, 5, 1, 5, 1, 2]


def test_more_processes_than_blocks_leave_some_without_rows():
    blocks = blocks_of((20, 20), 10, 10, 64)
    assert [blocks.share(rank, 3) for rank in range(3)] == [(0, 0), (0, 0), (0, 20)]
    assert blocks.batches(0, 0) == []
