from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.metrics import MaskedSSIM


def slow_ssim(
    predicted: NDArray[np.float64],
    truth: NDArray[np.float64],
    labelled: NDArray[np.bool_],
    size: int,
) -> float:
    """Window by window, from the definition."""
    small, values, half = 1e-10, [], size // 2
    for centre in np.argwhere(labelled):
        window = tuple(slice(at - half, at + half + 1) for at in centre)
        if any(
            at < half or at + half >= side for at, side in zip(centre, labelled.shape, strict=True)
        ):
            continue
        x, y = predicted[window][labelled[window]], truth[window][labelled[window]]
        covariance = ((x - x.mean()) * (y - y.mean())).mean()
        values.append(
            (2 * x.mean() * y.mean() + small)
            * (2 * covariance + small)
            / ((x.mean() ** 2 + y.mean() ** 2 + small) * (x.var() + y.var() + small))
        )
    return float(np.mean(values)) if values else math.nan


@pytest.mark.parametrize("share", [1.1, 0.7, 0.1])
@pytest.mark.parametrize(("shape", "size"), [((40,), 7), ((15, 12), 7), ((8, 9, 7), 5)])
def test_it_equals_a_loop_over_the_windows(shape, size, share):
    rng = np.random.default_rng(0)
    truth = rng.random(shape) < 0.3
    probs = np.clip(truth * 0.5 + rng.random(shape) * 0.6, 0, 1)
    labelled = rng.random(shape) < share
    metric = MaskedSSIM(win_size=size)
    metric.update(*(torch.tensor(part)[None, None] for part in (probs, truth, labelled)))
    expected = slow_ssim((probs >= 0.5) * 1.0, truth * 1.0, labelled, size)
    assert metric.compute().item() == pytest.approx(expected, abs=1e-6)


def test_without_a_mask_all_pixels_count():
    rng = torch.Generator().manual_seed(0)
    probs = torch.rand(2, 1, 9, 9, generator=rng)
    target = (torch.rand(2, 1, 9, 9, generator=rng) < 0.5).float()
    metric = MaskedSSIM()
    everywhere = metric.count(probs, target, torch.ones(2, 1, 9, 9, dtype=torch.bool))
    assert torch.equal(metric.count(probs, target), everywhere)
    assert everywhere[1].item() == 2 * 3 * 3


def test_two_empty_maps_are_alike_and_opposite_maps_are_not():
    blank, full = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    metric = MaskedSSIM()
    metric.update(blank, blank)
    assert metric.compute().item() == 1
    metric.reset()
    metric.update(full, blank)
    assert metric.compute().item() == pytest.approx(0, abs=1e-6)


def test_unlabelled_pixels_have_no_influence_even_as_nan():
    rng = torch.Generator().manual_seed(0)
    probs = torch.rand(2, 1, 12, 12, generator=rng)
    target = (torch.rand(probs.shape, generator=rng) < 0.5).float()
    labelled = torch.rand(probs.shape, generator=rng) < 0.5
    metric = MaskedSSIM()
    dirty = metric.count(
        torch.where(labelled, probs, math.nan), torch.where(labelled, target, math.nan), labelled
    )
    assert torch.equal(metric.count(probs, target, labelled), dirty)


def test_any_split_over_batches_gives_the_same_value():
    rng = torch.Generator().manual_seed(0)
    probs = torch.rand(5, 1, 10, 10, generator=rng)
    target = (torch.rand(probs.shape, generator=rng) < 0.5).float()
    whole, parts = MaskedSSIM(), MaskedSSIM()
    whole.update(probs, target)
    for index in (3, 0, 4, 1, 2):
        parts.update(probs[index : index + 1], target[index : index + 1])
    assert torch.equal(whole.sums, parts.sums)
    assert torch.equal(whole.compute(), parts.compute())


def test_no_labelled_window_gives_nan():
    metric = MaskedSSIM()
    maps = torch.rand(1, 1, 9, 9)
    metric.update(maps, maps, torch.zeros(1, 1, 9, 9, dtype=torch.bool))
    assert math.isnan(metric.compute().item())


def test_bad_sizes_are_one_sentence():
    with pytest.raises(ConfigError, match="win_size must be odd and at least 3 px, got 4"):
        MaskedSSIM(win_size=4)
    with pytest.raises(ConfigError, match=r"threshold must lie in \[0, 1\], got -1"):
        MaskedSSIM(threshold=-1)
    with pytest.raises(DataError, match=r"at least 7 px per side, got \(6, 20\): "):
        MaskedSSIM().update(*torch.rand(2, 1, 1, 6, 20))
