from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from lis2_lightning.errors import ConfigError
from lis2_lightning.metrics import Dice, IoU, Precision, Recall
from lis2_lightning.metrics.counts import CountMetric

METRICS: list[type[CountMetric]] = [Dice, IoU, Precision, Recall]
REFERENCES = {Dice: f1_score, IoU: jaccard_score, Precision: precision_score, Recall: recall_score}


@pytest.mark.parametrize("metric_class", METRICS)
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_values_agree_with_scikit_learn_over_the_labelled_pixels(metric_class, threshold):
    rng = torch.Generator().manual_seed(0)
    probs = torch.rand(3, 1, 8, 8, generator=rng).round(decimals=1)
    target = (torch.rand(probs.shape, generator=rng) < 0.4).float()
    labelled = torch.rand(probs.shape, generator=rng) < 0.5
    metric = metric_class(threshold=threshold)
    for probs_part, target_part, labelled_part in zip(probs, target, labelled, strict=True):
        metric.update(probs_part, target_part, labelled_part)
    predicted = probs[labelled] >= threshold
    expected = REFERENCES[metric_class](target[labelled], predicted, zero_division=0)
    assert metric.compute().item() == pytest.approx(expected, abs=1e-12)


def test_the_four_counts_by_hand():
    probs = torch.tensor([0.9, 0.5, 0.49, 0.2, 0.6, math.nan])
    target = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, math.nan])
    metric = Dice()
    labelled = torch.tensor([True, True, True, True, True, False])
    assert metric.count(probs, target, labelled).tolist() == [2, 1, 1, 1]
    assert metric.count(probs[:5], target[:5]).tolist() == [2, 1, 1, 1]
    assert metric.family == IoU().family != IoU(threshold=0.4).family


def test_counting_under_a_mask_as_on_a_gpu_gives_the_same_counts(monkeypatch):
    rng = torch.Generator().manual_seed(2)
    probs, target = torch.rand(100, generator=rng), torch.rand(100, generator=rng)
    labelled = torch.rand(100, generator=rng) < 0.5
    expected = Dice().count(probs, target, labelled)
    monkeypatch.setattr(
        "lis2_lightning.metrics.counts.labelled_pixels", lambda *_: pytest.fail("gathered")
    )
    monkeypatch.setattr("lis2_lightning.metrics.counts.on_cpu", lambda _: False)
    assert torch.equal(Dice().count(probs, target, labelled), expected)


@pytest.mark.parametrize(
    ("probs", "target", "expected"),
    [
        ([0.1, 0.1], [0.0, 0.0], 1),  # two empty maps
        ([0.9, 0.1], [0.0, 0.0], 0),  # nothing to be found, something predicted
        ([0.1, 0.1], [1.0, 0.0], 0),  # something to be found, nothing predicted
        ([0.9, 0.9], [1.0, 1.0], 1),
    ],
)
def test_empty_maps(probs, target, expected):
    for metric_class in METRICS:
        metric = metric_class()
        metric.update(torch.tensor(probs), torch.tensor(target))
        assert metric.compute().item() == expected


def test_no_labelled_pixel_counts_as_two_empty_maps():
    for metric_class in METRICS:
        metric = metric_class()
        metric.update(torch.ones(2), torch.zeros(2), torch.zeros(2, dtype=torch.bool))
        assert metric.compute().item() == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_type_of_scores_does(dtype):
    metric = Dice()
    metric.update(torch.tensor([0.25, 0.5, 0.75], dtype=dtype), torch.tensor([0, 1, 1]))
    assert metric.compute().item() == 1


def test_a_threshold_outside_zero_and_one_is_refused():
    with pytest.raises(ConfigError, match=r"threshold must lie in \[0, 1\], got 50"):
        Dice(threshold=50)
