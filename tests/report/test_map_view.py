from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lis2_lightning import DataError, SegmentationData, TileDataset
from lis2_lightning.data import open_raster
from lis2_lightning.report import map_view, tile_scores
from lis2_lightning.report.map_view import VIEW, MapView, view_of
from lis2_lightning.report.pictures import stretched
from lis2_lightning.report.tile_scores import as_bytes, best_and_worst
from lis2_lightning.tiling import Tile

SHAPE = (150, 221)


class Watched:
    """An image that notes the rows of each read."""

    source = "watched"

    def __init__(self, values: np.ndarray) -> None:
        self._raster = open_raster(values)
        self.shape = self._raster.shape
        self.heights: list[int] = []

    def read(self, tile: Tile) -> np.ndarray:
        self.heights.append(tile.height)
        return self._raster.read(tile)

    def read_many(self, tops: np.ndarray, lefts: np.ndarray, size: int) -> np.ndarray:
        return self._raster.read_many(tops, lefts, size)


def fields() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image with gaps, its target with unknown pixels, and a map with gaps."""
    rng = np.random.default_rng(0)
    image = rng.lognormal(0, 1, SHAPE).astype(np.float32)
    image[20:30, 40:60] = np.nan
    target = (rng.random(SHAPE) < 0.3).astype(np.float32)
    target[100:, :50] = np.nan
    probs = rng.random((1, *SHAPE)).astype(np.float32)
    probs[0, :3] = np.nan
    return image, target, probs


def tiles(image: object, target: np.ndarray, *folds: int) -> TileDataset:
    return TileDataset(image, target=target, size=16, stride=8, num_folds=3, folds=folds)  # type: ignore[arg-type]


def data_of(image: object, target: np.ndarray) -> SegmentationData:
    test = tiles(image, target, 2)
    return SegmentationData(
        train=tiles(image, target, 0),
        val=tiles(image, target, 1),
        test=test,
        predict=test.whole_image(),
        batch_size=4,
    )


@pytest.fixture
def view(monkeypatch: pytest.MonkeyPatch) -> MapView:
    monkeypatch.setattr(map_view, "MAX_SIDE", 100)  # every third pixel
    image, target, probs = fields()
    view = view_of(data_of(image, target), probs, 0.4)
    assert view is not None
    return view


def test_a_view_has_every_third_pixel(view: MapView) -> None:
    image, target, probs = fields()
    labelled = np.isfinite(target) & np.isfinite(image)
    truth = np.where(labelled, np.where(target > 0.5, 2, 1), 0)
    assert view.step == 3
    np.testing.assert_array_equal(view.truth, truth[::3, ::3])
    np.testing.assert_array_equal(view.probability, as_bytes(probs[0, ::3, ::3]))
    np.testing.assert_array_equal(view.image, as_bytes(stretched(image[::3, ::3])))


def test_a_view_shows_whose_areas_its_pixels_lie_in(view: MapView) -> None:
    _, target, _ = fields()
    image = fields()[0]
    for number in range(3):
        data = tiles(image, target, number)
        inside = np.zeros(SHAPE, bool)
        for top, left in data.corners:
            inside[top : top + 16, left : left + 16] = True
        assert (view.splits[inside[::3, ::3]] == number + 1).all()


def test_a_large_image_is_read_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_view, "MAX_SIDE", 20)
    image, target, _ = fields()
    watched = Watched(image)
    data = data_of(watched, target)
    watched.heights.clear()
    view = view_of(data, None, None)
    assert view is not None
    assert max(watched.heights) == 1
    np.testing.assert_array_equal(
        view.image, as_bytes(stretched(image[:: view.step, :: view.step]))
    )
    assert not view.has_map
    assert view.worst == view.best == ()


def test_best_and_worst_tiles_are_those_of_a_slow_count(view: MapView) -> None:
    image, target, probs = fields()
    size, scored = 16, []
    for top, left in tiles(image, target, 2).corners.tolist():
        part = np.s_[top : top + size, left : left + size]
        counts = [0, 0, 0, 0]
        for value, truth, prob in zip(
            image[part].flat, target[part].flat, probs[0][part].flat, strict=True
        ):
            if np.isfinite([value, truth, prob]).all():
                is_right = (prob >= np.float32(0.4)) == (truth == 1)
                place = (0 if truth == 1 else 3) if is_right else (2 if truth == 1 else 1)
                counts[place] += 1
        scored.append((top, left, tuple(counts)))

    def first_apart(ranked: list[tuple[int, int, tuple[int, ...]]]) -> list[object]:
        chosen: list[tuple[int, int, tuple[int, ...]]] = []
        for tile in ranked:
            if all(max(abs(tile[0] - c[0]), abs(tile[1] - c[1])) >= size for c in chosen):
                chosen.append(tile)
        return list(chosen[:4])

    worst = first_apart(sorted(scored, key=lambda t: -(t[2][1] + t[2][2])))
    assert [(crop.top, crop.left, crop.counts) for crop in view.worst] == worst
    right = [t for t in scored if t[2][0] - t[2][1] - t[2][2] > 0]
    best = first_apart(sorted(right, key=lambda t: -(t[2][0] - t[2][1] - t[2][2])))
    assert [(crop.top, crop.left, crop.counts) for crop in view.best] == best
    assert (view.scored, view.num_tiles, view.num_scored) == ("test", len(scored), len(scored))


def test_of_very_many_tiles_some_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_scores, "MAX_TILES", 10)
    image, target, probs = fields()
    data = tiles(image, target, 2)
    chosen = best_and_worst(data, open_raster(probs), 0.4)
    assert (chosen["num_tiles"], chosen["num_scored"]) == (len(data), 10)
    allowed = data.corners[np.linspace(0, len(data) - 1, 10).astype(int)].tolist()
    assert all([crop.top, crop.left] in allowed for crop in chosen["worst"])


def test_a_view_comes_back_from_its_file(view: MapView, tmp_path: Path) -> None:
    view.save(tmp_path)
    again = MapView.load(tmp_path)
    assert again is not None
    assert (again.shape, again.step, again.threshold, again.source) == (SHAPE, 3, 0.4, view.source)
    np.testing.assert_array_equal(again.probability, view.probability)
    assert len(again.worst) == len(view.worst) > 0
    for crop, other in zip(again.worst, view.worst, strict=True):
        assert (crop.top, crop.left, crop.counts) == (other.top, other.left, other.counts)
        np.testing.assert_array_equal(crop.truth, other.truth)


def test_a_damaged_view_is_refused_by_name(view: MapView, tmp_path: Path) -> None:
    view.save(tmp_path)
    path = tmp_path / VIEW
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"{VIEW} is damaged"):
        MapView.load(tmp_path)


def test_a_run_about_several_images_has_no_view() -> None:
    image, target, _ = fields()
    both = TileDataset([image, image + 1], target=[target, target], size=16)
    assert view_of(SegmentationData(train=both, predict=both, batch_size=4), None, None) is None
