"""The order in which an image is mapped: batches of tiles, from top to bottom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lis2_lightning.tiling.grid import Lattice


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """The tiles of an image in blocks: whole rows of tiles, as many as a batch at least.

    No batch crosses a block. So the batches are the same whichever block a process begins with, and
    with them the last bit of what a network says about a tile.

    >>> lattice = Lattice(np.array([0, 8, 12]), np.array([0, 4, 8]), size=8)
    >>> blocks = Blocks(lattice, batch_size=4)
    >>> blocks.batches(0, 20)
    [range(0, 4), range(4, 6), range(6, 9)]
    >>> blocks.share(0, 2), blocks.share(1, 2)  # of two processes
    ((0, 12), (12, 20))
    >>> blocks.batches(12, 20)  # the second begins with the tiles that reach into its rows
    [range(0, 4), range(4, 6), range(6, 9)]
    """

    lattice: Lattice
    batch_size: int

    @property
    def rows(self) -> int:
        """The rows of tiles in a block; the last block may have fewer."""
        return -(-self.batch_size // len(self.lattice.lefts))

    @property
    def num(self) -> int:
        """The number of blocks."""
        return -(-len(self.lattice.tops) // self.rows)

    def share(self, rank: int, num_processes: int) -> tuple[int, int]:
        """The rows of pixels that one of several processes maps, half-open; they may be none."""
        first, last = (self.num * i // num_processes for i in (rank, rank + 1))
        return self._top(first), self._top(last)

    def batches(self, top: int, bottom: int) -> list[range]:
        """Indices of the tiles of all blocks that reach into these rows of pixels, by batches.

        No later tile reaches above ``bottom`` if that is an edge of :meth:`share`.
        """
        if top >= bottom:
            return []
        tops = self.lattice.tops
        first = int(np.searchsorted(tops + self.lattice.size, top, side="right")) // self.rows
        last = -(-int(np.searchsorted(tops, bottom)) // self.rows)
        return [batch for number in range(first, last) for batch in self._batches(number)]

    def top_of(self, batch: range) -> int:
        """The first row of pixels of a batch."""
        return int(self.lattice.tops[batch.start // len(self.lattice.lefts)])

    def _batches(self, number: int) -> list[range]:
        tiles = self.rows * len(self.lattice.lefts)
        begin, end = number * tiles, min((number + 1) * tiles, len(self.lattice))
        return [
            range(start, min(start + self.batch_size, end))
            for start in range(begin, end, self.batch_size)
        ]

    def _top(self, number: int) -> int:
        """Where a block begins; the bottom of the image for the one after the last."""
        tops = self.lattice.tops
        first = number * self.rows
        return int(tops[first]) if first < len(tops) else int(tops[-1]) + self.lattice.size
