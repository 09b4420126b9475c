from __future__ import annotations

import numpy as np
import pytest

from lis2_lightning.data.filaments import tangle
from lis2_lightning.data.scanning import Scan, scan
from lis2_lightning.data.synthetic import synthetic_maps
from lis2_lightning.errors import ConfigError

SHAPE = (200, 240)


@pytest.fixture(scope="module")
def seen() -> Scan:
    return scan(np.random.default_rng(0), SHAPE)


def test_the_coverage_is_positive_of_median_1_and_uneven(seen):
    assert seen.coverage.shape == SHAPE
    assert np.median(seen.coverage) == 1
    low, high = np.quantile(seen.coverage, (0.05, 0.95))
    assert 0 < seen.coverage.min() <= low < 0.5
    assert high > 1.5


def test_stripes_are_lines_not_blobs(seen):
    """Along a scan their neighbours are alike, so that their spectrum lies on two lines."""
    assert abs(seen.stripes.std() - 1) < 1e-9
    power = np.sort(np.abs(np.fft.fft2(seen.stripes)).ravel() ** 2)[::-1]
    white = np.sort(np.abs(np.fft.fft2(np.random.default_rng(1).normal(size=SHAPE))).ravel() ** 2)
    most = len(power) // 50
    assert power[:most].sum() / power.sum() > 0.6 > 2 * white[-most:].sum() / white.sum()


def test_lost_lines_are_few_pixels():
    lost = [scan(np.random.default_rng(seed), SHAPE).lost.mean() for seed in range(4)]
    assert 0 < max(lost) < 0.02


def test_filaments_cross_and_change_along_their_length():
    filaments = tangle(np.random.default_rng(0), (300, 300), count=60)
    crossings = 0
    for number, filament in enumerate(filaments):
        inner = filament.points[5:-5]
        earlier = [other.points for other in filaments[:number]]
        if earlier and len(inner):
            gaps = np.hypot(*(inner[:, None] - np.concatenate(earlier)[None]).transpose(2, 0, 1))
            crossings += gaps.min() < 1
    assert crossings > 25
    spread = [filament.widths.max() / filament.widths.min() for filament in filaments]
    assert np.median(spread) > 1.8


def test_noise_is_larger_where_less_was_scanned():
    """The two fields differ by their noise alone."""
    calm, noisy = (
        synthetic_maps(256, 256, seed=2, noise=noise, difficulty="hard").image / 1.2e22
        for noise in (0.0, 0.02)
    )
    errors = noisy - calm
    parts = [
        np.nanstd(errors[top : top + 32, left : left + 32])
        for top in range(0, 256, 32)
        for left in range(0, 256, 32)
    ]
    assert max(parts) > 2.5 * min(parts)


def test_many_bright_peaks_of_the_hard_field_are_labelled_as_background():
    """Pixels above all within 4 px and twice as bright as those at that distance."""
    counts = {}
    for difficulty in ("easy", "hard"):
        maps = synthetic_maps(256, 256, seed=2, difficulty=difficulty)
        image = np.nan_to_num(maps.image)
        around = [
            np.roll(image, step, axis=(0, 1))
            for step in ((4, 0), (-4, 0), (0, 4), (0, -4), (3, 3), (-3, -3), (3, -3), (-3, 3))
        ]
        is_peak = image > 2 * np.max(around, axis=0)
        counts[difficulty] = int((is_peak & (maps.background == 1)).sum())
    assert counts["hard"] > 10 * (counts["easy"] + 1)


def test_an_unknown_difficulty_is_one_sentence():
    with pytest.raises(ConfigError, match="difficulty must be easy or hard, not 'mild'"):
        synthetic_maps(64, 64, difficulty="mild")
