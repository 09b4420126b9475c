from __future__ import annotations

import numpy as np
import pytest

from lis2_lightning.data.normalize import check_normalization, normalize
from lis2_lightning.errors import ConfigError


def slow(patch, mode):
    """One channel of one tile after the other, in double precision."""
    result = np.zeros(patch.shape)
    for place in np.ndindex(patch.shape[:2]):
        values = patch[place].astype(float)
        valid = np.isfinite(values) & (values > 0)
        if valid.any():
            kept = np.log10(values[valid]) if mode == "log" else values[valid]
            kept = kept - kept.min()
            result[place][valid] = kept / kept.max() if kept.max() > 0 else kept
    return result


@pytest.fixture
def patches():
    """Tiles of a column density, with all that can be wrong with them."""
    generator = np.random.default_rng(0)
    patches = (5e21 * 10 ** generator.random((40, 2, 7, 7))).astype(np.float32)
    for value in (0, -1e20, np.nan, np.inf, -np.inf):
        patches[10:30][generator.random((20, 2, 7, 7)) < 0.1] = value
    patches[0] = 3e21
    patches[1] = 0
    patches[2] = np.nan
    patches[3, :, 1:] = -1
    return patches


@pytest.mark.parametrize("mode", ["direct", "log"])
def test_tiles_equal_those_of_a_loop_in_double_precision(patches, mode):
    expected = slow(patches, mode)
    scaled = normalize(patches.copy(), mode)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, expected, atol=3e-6)
    assert scaled.min() == 0
    assert scaled.max() == 1


@pytest.mark.parametrize("mode", ["direct", "log", "none"])
def test_a_tile_does_not_depend_on_the_others(patches, mode):
    together = normalize(patches.copy(), mode)
    for index in range(len(patches)):
        assert (normalize(patches[index : index + 1].copy(), mode)[0] == together[index]).all()


def test_none_changes_only_what_is_not_finite(patches):
    finite = np.isfinite(patches)
    scaled = normalize(patches.copy(), "none")
    assert (scaled[finite] == patches[finite]).all()
    assert (scaled[~finite] == 0).all()


def test_the_extreme_numbers_of_float32_stay_finite():
    numbers = np.array([[[[1e-45, 1e-30, 1.0, 3e38]]]], dtype=np.float32)
    for mode in ("direct", "log"):
        scaled = normalize(numbers.copy(), mode)
        assert np.isfinite(scaled).all()
        assert (np.diff(scaled.ravel()) >= 0).all()


def test_an_unknown_normalization_is_refused():
    with pytest.raises(ConfigError, match="unknown normalization 'lgo': did you mean 'log'"):
        check_normalization("lgo")
