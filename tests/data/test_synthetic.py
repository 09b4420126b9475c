from __future__ import annotations

import hashlib
import multiprocessing

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torch.utils.data import Dataset

from lis2_lightning.data.filaments import REACH, Filament, draw, network
from lis2_lightning.data.splits import check_no_shared_pixels
from lis2_lightning.data.synthetic import SyntheticDataset, smooth, spectrum, synthetic_maps
from lis2_lightning.errors import ConfigError
from lis2_lightning.tiling.grid import Tile

NAMES = ("image", "target", "background", "missing", "truth")
BOTH = pytest.mark.parametrize("difficulty", ["easy", "hard"])


@pytest.fixture(scope="module")
def maps():
    return synthetic_maps(384, 448, seed=3, difficulty="easy")


def digest(maps) -> str:
    return hashlib.sha256(b"".join(getattr(maps, name).tobytes() for name in NAMES)).hexdigest()


@BOTH
def test_a_seed_gives_the_same_maps_bit_for_bit(difficulty):
    first = synthetic_maps(96, 128, seed=3, difficulty=difficulty)
    synthetic_maps.cache_clear()
    np.random.seed(99)  # noqa: NPY002 - what others do to the global generator must not matter
    again = synthetic_maps(96, 128, seed=3, difficulty=difficulty)
    assert again is not first
    assert digest(again) == digest(first)


@pytest.mark.slow
def test_a_seed_gives_the_same_maps_in_another_process():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(synthetic_maps, (96, 128, 3))
    assert digest(there) == digest(synthetic_maps(96, 128, seed=3))


def test_another_seed_gives_other_maps(maps):
    other = synthetic_maps(384, 448, seed=4, difficulty="easy")
    assert not np.array_equal(maps.image, other.image, equal_nan=True)
    assert not np.array_equal(maps.target, other.target)


def test_the_maps_are_made_once_and_cannot_be_written_to(maps):
    assert synthetic_maps(384, 448, seed=3, difficulty="easy") is maps
    with pytest.raises(ValueError, match="read-only"):
        maps.image[0, 0] = 1


@BOTH
@pytest.mark.parametrize("seed", range(4))
def test_the_maps_keep_the_convention_of_lis2(seed, difficulty):
    maps = synthetic_maps(256, 320, seed=seed, difficulty=difficulty)
    for name in NAMES:
        values = getattr(maps, name)
        assert values.shape == (256, 320)
        assert values.dtype == np.float32
    for name in NAMES[1:]:
        assert set(np.unique(getattr(maps, name))) == {0, 1}, name
    observed = maps.missing == 1
    assert np.isnan(maps.image[~observed]).all()
    assert (maps.image[observed] > 0).all()
    assert 5e21 < np.nanmedian(maps.image) < 3e22
    assert not (maps.target * maps.background).any()
    np.testing.assert_array_equal(maps.target, maps.truth * maps.labelled)
    np.testing.assert_array_equal(maps.background, (1 - maps.truth) * maps.labelled)
    assert 0.001 < 1 - maps.missing.mean() < 0.06


@BOTH
@pytest.mark.parametrize("seed", range(4))
def test_a_part_of_the_pixels_is_labelled_and_a_part_of_those_is_filament(seed, difficulty):
    maps = synthetic_maps(512, 512, seed=seed, difficulty=difficulty)
    assert 0.2 < maps.labelled.mean() < 0.4
    assert 0.08 < maps.target[maps.labelled].mean() < 0.35
    assert 0.5 < maps.target.sum() / maps.truth.sum() < 0.95  # some filaments nobody labelled


def best_threshold_dice(maps) -> float:
    counts = maps.labelled
    truth, values = maps.target[counts] > 0, maps.image[counts]
    order = np.argsort(-values)
    hits = np.cumsum(truth[order])
    dice = 2 * hits / (np.arange(1, len(order) + 1) + truth.sum())
    return float(dice.max())


@BOTH
@pytest.mark.parametrize("seed", range(4))
def test_no_threshold_on_the_image_finds_the_filaments(seed, difficulty):
    maps = synthetic_maps(512, 512, seed=seed, difficulty=difficulty)
    dice = best_threshold_dice(maps)
    all_positive = maps.target[maps.labelled].mean()
    assert 2 * all_positive / (1 + all_positive) + 0.05 < dice < 0.65


def test_some_filaments_are_fainter_than_bright_clouds(maps):
    filaments = maps.image[maps.target == 1]
    clouds = maps.image[maps.background == 1]
    assert np.median(filaments) < np.quantile(clouds, 0.95)
    assert np.median(filaments) > np.median(clouds)


def test_the_clouds_have_the_slope_asked_for():
    field = spectrum(np.random.default_rng(0), (512, 512), -3.0)
    assert abs(field.mean()) < 1e-9
    assert abs(field.std() - 1) < 1e-9
    window = np.hanning(512)[:, None] * np.hanning(512)
    power = np.abs(np.fft.fft2(field * window)) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(512), np.fft.fftfreq(512)))
    band = (frequency > 0.02) & (frequency < 0.2)
    slope = np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]
    assert abs(slope + 3) < 0.15


def test_smoothing_keeps_the_sum_and_spreads_a_point():
    point = np.zeros((41, 41))
    point[20, 20] = 1
    spread = smooth(point, 1.5)
    assert abs(spread.sum() - 1) < 1e-6
    rows = np.arange(41) - 20
    assert abs(np.sqrt((spread.sum(axis=1) * rows**2).sum()) - 1.5) < 0.01


def test_a_straight_filament_is_drawn_with_its_profile():
    points = np.stack((np.full(200, 20.0), np.linspace(-5, 65, 200)), axis=1)
    drawing = draw(Filament(points, np.full(200, 2.0), np.full(200, 0.8)), (41, 60))
    assert drawing.tile == Tile(10, 0, 21, 60)
    middle = drawing.distance[:, 30]
    np.testing.assert_allclose(middle, np.abs(np.arange(10, 31) - 20) / 2, atol=0.1)
    expected = np.where(middle < REACH, 0.8 / (1 + middle**2), 0)
    np.testing.assert_allclose(drawing.excess[:, 30], expected, atol=0.01)


def test_a_filament_outside_of_the_image_draws_nothing():
    points = np.stack((np.linspace(-90, -40, 99), np.linspace(0, 50, 99)), axis=1)
    drawing = draw(Filament(points, np.full(99, 2.0), np.ones(99)), (41, 60))
    assert drawing.excess.size == 0


def test_filaments_differ_in_width_and_branch():
    filaments = network(np.random.default_rng(0), (300, 300), count=60)
    widths = [filament.widths.mean() for filament in filaments]
    assert min(widths) < 1.3
    assert max(widths) > 2.2
    starts = np.array([filament.points[0] for filament in filaments])
    branches = 0
    for number, start in enumerate(starts):
        earlier = [filament.points for filament in filaments[:number]]
        if earlier and np.hypot(*(np.concatenate(earlier) - start).T).min() < 1.5:
            branches += 1
    assert 10 < branches < 50


@pytest.mark.parametrize(("height", "width", "noise"), [(31, 64, 0.0), (64, 8, 0.0), (64, 64, -1)])
def test_a_field_that_cannot_be_made_is_one_sentence(height, width, noise):
    with pytest.raises(ConfigError, match=f"not {height} x {width} px and {noise}"):
        synthetic_maps(height, width, noise=noise)


def test_more_noise_is_more_noise():
    calm, noisy = (synthetic_maps(64, 64, noise=noise).image / 1e22 for noise in (0.0, 0.5))
    assert np.nanstd(np.diff(noisy)) > 2 * np.nanstd(np.diff(calm))


def test_three_folds_are_training_validation_and_test():
    splits = {
        name: SyntheticDataset(height=256, width=256, seed=1, num_folds=4, folds=folds)
        for name, folds in {"train": [0, 1], "val": [2], "test": [3]}.items()
    }
    check_no_shared_pixels(splits)
    train, val = splits["train"], splits["val"]
    assert train.image is val.image
    assert len(train) > len(val) > 0
    sample = train[0]
    assert sample["patch"].shape == sample["target"].shape == (1, 32, 32)
    assert sample["labelled"].any()


def test_the_tiles_are_cut_from_the_maps():
    dataset = SyntheticDataset(height=128, width=128, size=16, normalization="none")
    maps = dataset.maps
    for index in (0, len(dataset) - 1):
        sample, tile = dataset[index], dataset.tiles[index]
        here = tile.rows, tile.columns
        counts = maps.labelled[here]
        np.testing.assert_array_equal(sample["labelled"][0], counts)
        np.testing.assert_array_equal(sample["target"][0][counts], maps.target[here][counts])
        np.testing.assert_array_equal(sample["patch"][0], np.nan_to_num(maps.image[here]))
    assert torch.isfinite(dataset[0]["patch"]).all()


def test_a_configuration_may_set_what_the_parent_takes_but_no_map():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--dataset", type=Dataset)
    options = {"height": 128, "size": 16, "stride": 16, "num_folds": 2, "folds": [0]}
    class_path = "lis2_lightning.data.SyntheticDataset"
    parsed = parser.parse_object({"dataset": {"class_path": class_path, "init_args": options}})
    assert parser.instantiate(parsed).dataset.size == 16
    for name in ("image", "labelled"):
        assert name not in parsed.dataset.init_args
