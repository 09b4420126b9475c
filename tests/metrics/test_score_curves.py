from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from lis2_lightning.metrics import BestThreshold, RocAuc
from lis2_lightning.metrics.histogram import confusion
from lis2_lightning.metrics.score_curves import score_curves

Pixels = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(params=[0, 1])
def pixels(request: pytest.FixtureRequest) -> Pixels:
    """Scores with ties, of which each has a code of its own; truth; and their histogram."""
    rng = np.random.default_rng(request.param)
    truth = rng.random(4000) < 0.2
    scores = rng.normal(truth * 0.6, 0.5, 4000).clip(0.001, 0.49).astype(np.float16)
    metric = RocAuc()
    metric.update(torch.from_numpy(scores), torch.from_numpy(truth.astype(np.float32)))
    return scores.astype(np.float64), truth, metric.sums.numpy()


def test_precision_and_recall_are_those_of_scikit_learn(pixels: Pixels) -> None:
    scores, truth, histogram = pixels
    precision, recall, thresholds = precision_recall_curve(truth, scores)
    curves = score_curves(histogram)
    np.testing.assert_allclose(curves.threshold[::-1], thresholds)
    np.testing.assert_allclose(curves.precision[::-1], precision[:-1])
    np.testing.assert_allclose(curves.recall[::-1], recall[:-1])


def test_the_roc_curve_is_that_of_scikit_learn(pixels: Pixels) -> None:
    scores, truth, histogram = pixels
    false_rate, recall, thresholds = roc_curve(truth, scores, drop_intermediate=False)
    curves = score_curves(histogram)
    np.testing.assert_allclose(curves.threshold, thresholds[1:])  # the first selects nothing
    np.testing.assert_allclose(curves.false_rate, false_rate[1:])
    np.testing.assert_allclose(curves.recall, recall[1:])


def test_the_counts_at_a_threshold_are_those_of_scikit_learn(pixels: Pixels) -> None:
    scores, truth, histogram = pixels
    metric = BestThreshold()
    metric.update(torch.from_numpy(scores), torch.from_numpy(truth.astype(np.float32)))
    for threshold in (0.0, 0.25, float(metric.compute()), 1.0):
        (tn, fp), (fn, tp) = confusion_matrix(truth, scores >= threshold, labels=[False, True])
        assert confusion(histogram, threshold) == (tp, fp, fn, tn)


def test_curves_without_positive_pixels_have_no_recall() -> None:
    metric = RocAuc()
    metric.update(torch.tensor([0.25, 0.125]), torch.zeros(2))
    curves = score_curves(metric.sums.numpy())
    assert np.isnan(curves.recall).all()
    assert curves.precision.tolist() == [0, 0]
    assert curves.false_rate.tolist() == [0.5, 1]
