"""Counting labelled pixels: against a loop over pixels, and what a user sees of it."""

from __future__ import annotations

import numpy as np
import pytest

from lis2_lightning.data import census
from lis2_lightning.data.open_raster import open_raster
from lis2_lightning.data.truth import Truth
from lis2_lightning.tiling import Areas
from tests.data.fields import SHAPE, maps


@pytest.mark.parametrize("channels", [1, 3])
def test_tiles_and_areas_are_counted_as_by_a_loop(monkeypatch, channels):
    monkeypatch.setattr(census, "BLOCK", (13, 31))
    monkeypatch.setattr(census, "TILES_A_STEP", 40)
    generator = np.random.default_rng(channels)
    target = (generator.random((channels, *SHAPE)) > 0.9).astype(np.float32)
    known = (generator.random((channels, *SHAPE)) > 0.98) & (np.arange(SHAPE[1]) < 60)
    image = maps()["image"]
    areas = Areas.cut(SHAPE, size=15)
    lattice = areas.lattice(8, 4)
    truth = Truth(open_raster(image), target=target, labelled=known)
    result = census.count(truth, areas, lattice)

    counts = known & np.isfinite(image)
    pair = np.stack((counts, counts & (target > 0))).sum(axis=1)
    for row, column in np.ndindex(areas.shape):
        here = np.s_[
            :,
            areas.row_edges[row] : areas.row_edges[row + 1],
            areas.column_edges[column] : areas.column_edges[column + 1],
        ]
        assert result.areas[row, column].tolist() == pair[here].sum(axis=(1, 2)).tolist()
    for rows, labelled, positive in result.rows(len(lattice.lefts)):
        for row, top in enumerate(lattice.tops[rows]):
            for column, left in enumerate(lattice.lefts):
                tile = pair[:, top : top + 8, left : left + 8].any(axis=(1, 2))
                assert [labelled[row, column], positive[row, column]] == tile.tolist()
    assert result.without_data == (known & ~np.isfinite(image)).any(axis=0).sum()


@pytest.mark.parametrize(("delay", "shows"), [(0, True), (60, False)])
def test_a_scan_that_takes_long_shows_how_far_it_is(monkeypatch, capsys, delay, shows):
    monkeypatch.setattr(census, "DELAY_S", delay)
    monkeypatch.setattr(census, "BLOCK", (8, 8))
    areas = Areas.cut(SHAPE, size=None)
    census.count(
        Truth(open_raster(maps()["image"]), target=maps()["target"]), areas, areas.lattice(8, 4)
    )
    output = capsys.readouterr()
    assert ("looking for labels in an array in memory" in output.err) is shows
    assert output.out == ""
