from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve as sklearn_calibration_curve
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.metrics import (
    AveragePrecision,
    BestDice,
    BestThreshold,
    CalibrationError,
    RocAuc,
    calibration_curve,
)
from lis2_lightning.metrics.histogram import (
    KEPT_BITS,
    NUM_CODES,
    ScoreMetric,
    code_edges,
    score_codes,
)

NAN = float("nan")
METRICS: list[type[ScoreMetric]] = [
    AveragePrecision,
    RocAuc,
    BestDice,
    BestThreshold,
    CalibrationError,
]


def outputs(kind: str, num: int = 20_000) -> tuple[Tensor, Tensor]:
    """Scores and truth as networks give them."""
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(num, generator=rng)
    logits = {
        "uniform": torch.logit(torch.rand(num, generator=rng)),
        "saturated": noise * 12 - 4,
        "near one": noise * 2 + 8,
        "narrow": noise * 0.05 - 2,
        "tied": (noise * 2).round() / 2,
        "constant": torch.zeros(num),
    }[kind]
    truth = torch.rand(num, generator=rng) < torch.sigmoid(logits * 0.3 - 0.5 + 0.1 * noise)
    return torch.sigmoid(logits), truth.float()


def value(
    metric: ScoreMetric, probs: Tensor, target: Tensor, labelled: Tensor | None = None
) -> float:
    metric.update(probs, target, labelled)
    return float(metric.compute())


KINDS = ["uniform", "saturated", "near one", "narrow", "tied", "constant"]


@pytest.mark.parametrize("kind", KINDS)
def test_average_precision_and_roc_auc_agree_with_scikit_learn(kind):
    probs, target = outputs(kind)
    expected = average_precision_score(target, probs), roc_auc_score(target, probs)
    off = 5e-5 if kind == "narrow" else 1e-5  # where nearly all scores are equal, more are tied
    assert value(AveragePrecision(), probs, target) == pytest.approx(expected[0], abs=off)
    assert value(RocAuc(), probs, target) == pytest.approx(expected[1], abs=5e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores_are_exact(kind, dtype):
    probs, target = outputs(kind)
    half = probs.to(dtype)
    exact = half.double().numpy()
    got = value(AveragePrecision(), half, target)
    assert got == pytest.approx(average_precision_score(target, exact), abs=1e-12)
    assert value(RocAuc(), half, target) == pytest.approx(roc_auc_score(target, exact), abs=1e-12)


def test_average_precision_and_roc_auc_equal_a_loop_over_tied_scores():
    rng = np.random.default_rng(1)
    scores, truth = rng.integers(1, 8, 200) / 8, rng.random(200) < 0.3
    precision_sum = 0.0
    for threshold in np.unique(scores):
        tied = (scores == threshold) & truth
        precision_sum += tied.sum() * truth[scores >= threshold].mean()
    pairs = [
        1.0 if up > down else 0.5 if up == down else 0.0
        for up in scores[truth]
        for down in scores[~truth]
    ]
    batch = torch.tensor(scores), torch.tensor(truth).double()
    assert value(AveragePrecision(), *batch) == pytest.approx(
        precision_sum / truth.sum(), abs=1e-12
    )
    assert value(RocAuc(), *batch) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_degenerate_input_gives_what_scikit_learn_gives_without_its_warnings():
    probs = torch.tensor([0.2, 0.7, 0.9])
    nothing, everything = torch.zeros(3), torch.ones(3)
    nowhere = torch.zeros(3, dtype=torch.bool)
    assert value(AveragePrecision(), probs, nothing) == 0
    assert value(AveragePrecision(), probs, everything) == 1
    assert value(BestDice(), probs, everything) == 1
    assert value(CalibrationError(), probs, nothing) == pytest.approx(1.8 / 3, abs=1e-3)
    undefined = [
        value(RocAuc(), probs, nothing),
        value(RocAuc(), probs, everything),
        value(BestDice(), probs, nothing),
        value(BestThreshold(), probs, nothing),
        *(value(metric(), probs, everything, nowhere) for metric in METRICS),
    ]
    assert all(map(math.isnan, undefined))


def test_codes_ascend_with_the_score_over_all_floats_near_the_borders():
    bits = torch.arange(0, 0x3F800001, 4099, dtype=torch.int32)  # 0 to 1
    near_one = torch.arange(0x3F800000 - 3000, 0x3F800001, dtype=torch.int32)
    near_half = torch.arange(0x3F000000 - 3000, 0x3F000000 + 3000, dtype=torch.int32)
    probs = torch.cat([bits, near_one, near_half]).view(torch.float32).sort().values
    codes = score_codes(probs)
    assert torch.all(codes.diff() >= 0)
    assert codes[0] == 0
    assert codes[-1] == NUM_CODES - 1
    # one step of the kept bits or one float32: whatever is coarser
    resolution = torch.minimum(probs, 1 - probs).clamp(min=2.0**-41) / 2**KEPT_BITS
    apart = probs.double().diff() > 2 * resolution[1:].double() + 2**-24
    assert torch.all(codes.diff()[apart] > 0)


def test_the_edge_of_a_code_is_its_smallest_score():
    edges = torch.from_numpy(code_edges().copy())
    every_code = torch.arange(NUM_CODES, dtype=torch.int32)
    just_below = torch.nextafter(edges[1:], torch.tensor(-1.0))
    # near 1 there are fewer float32 than codes, and some codes have no score of their own
    assert torch.all(score_codes(edges) >= every_code)
    assert torch.all(score_codes(just_below) < every_code[1:])
    assert torch.equal(score_codes(edges)[: NUM_CODES * 3 // 4], every_code[: NUM_CODES * 3 // 4])


def test_scores_outside_zero_and_one_stay_inside_the_histogram():
    codes = score_codes(torch.tensor([-0.0, -1, 2, NAN, -NAN, math.inf, -math.inf, 1e-45, -1e-45]))
    assert torch.all((codes >= 0) & (codes < NUM_CODES))
    assert codes[[1, 2]].tolist() == [0, NUM_CODES - 1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_threshold_gives_the_best_dice(kind):
    probs, target = outputs(kind, 2000)
    probs = probs.to(torch.bfloat16).float()  # few enough to try them all
    threshold, dice = value(BestThreshold(), probs, target), value(BestDice(), probs, target)

    def dice_at(score: float) -> float:
        predicted, positive = probs >= score, target == 1
        overlap = (predicted & positive).sum().item()
        return 2 * overlap / (predicted.sum() + positive.sum()).item()

    assert dice == pytest.approx(max(map(dice_at, probs.unique().tolist())), abs=1e-12)
    assert dice_at(threshold) == pytest.approx(dice, abs=1e-12)


def test_the_calibration_curve_agrees_with_scikit_learn():
    probs, target = outputs("uniform")
    metric = CalibrationError(num_bins=10)
    error = value(metric, probs, target)
    mean, share, num = calibration_curve(metric.sums.numpy(), num_bins=10)
    expected_share, expected_mean = sklearn_calibration_curve(target, probs, n_bins=10)
    # pixels whose code straddles a bin's edge, at most one code in thousands
    assert mean == pytest.approx(expected_mean, abs=2e-3)
    assert share == pytest.approx(expected_share, abs=2e-3)
    assert num.sum() == len(probs)
    by_hand = np.abs(expected_share - expected_mean) @ num / num.sum()
    assert error == pytest.approx(by_hand, abs=2e-3)


def test_calibration_without_a_bin_is_refused():
    with pytest.raises(ConfigError, match="at least 1 bin, got num_bins=0"):
        CalibrationError(num_bins=0)


@pytest.mark.parametrize("metric_class", METRICS)
def test_any_split_over_batches_and_processes_gives_the_same_value(metric_class):
    probs, target = outputs("saturated", 3001)
    labelled = torch.rand(3001, generator=torch.Generator().manual_seed(3)) < 0.6
    whole = value(metric_class(), probs, target, labelled)
    processes = [metric_class() for _ in range(3)]
    for number in range(7):
        part = slice(number, None, 7)
        processes[number % 3].update(probs[part], target[part], labelled[part])
    together = torch.stack([process.sums for process in processes]).sum(dim=0)
    assert float(processes[0].evaluate(together)) == whole
    for process in processes[1:]:
        processes[0].merge_state(process)
    assert float(processes[0].compute()) == whole


def test_unlabelled_pixels_have_no_influence_even_as_nan():
    probs, target = outputs("uniform", 1000)
    labelled = torch.arange(1000) % 3 > 0
    for metric_class in METRICS:
        expected = value(metric_class(), probs[labelled], target[labelled])
        dirty = torch.where(labelled, probs, NAN), torch.where(labelled, target, NAN), labelled
        assert value(metric_class(), *dirty) == expected


def test_counting_with_weights_as_on_a_gpu_gives_the_same_histogram(monkeypatch):
    probs, target = outputs("saturated", 1000)
    labelled = torch.arange(1000) % 3 > 0
    expected = AveragePrecision().count(probs, target, labelled)
    monkeypatch.setattr("lis2_lightning.metrics.histogram.on_cpu", lambda _: False)
    assert torch.equal(AveragePrecision().count(probs, target, labelled), expected)


def test_the_state_stays_eight_megabytes_and_reset_empties_it():
    metric = AveragePrecision()
    probs, target = outputs("uniform")
    metric.update(probs, target)
    assert metric.sums.shape == (2, NUM_CODES)
    assert metric.sums.nbytes < 8.3e6
    assert metric.sums.sum().item() == len(probs)
    metric.reset()
    assert metric.sums.sum().item() == 0


def test_a_state_that_was_reset_in_inference_mode_can_be_updated_outside():
    metric = RocAuc()
    with torch.inference_mode():
        metric.reset()
        metric.update(*outputs("uniform", 100))
    metric.update(*outputs("uniform", 100))
    assert metric.sums.sum().item() == 200


def test_other_shapes_are_one_sentence():
    metric = RocAuc()
    with pytest.raises(ConfigError, match=r"shape of the target \(4,\), got \(3,\): "):
        metric.update(torch.rand(3), torch.rand(4))
    with pytest.raises(
        DataError, match=r"labelled must have the shape of the target \(4,\), got \(1, 4\): "
    ):
        metric.update(torch.rand(4), torch.rand(4), torch.ones(1, 4, dtype=torch.bool))


def test_many_pixels_do_not_overflow_the_sums():
    histogram = np.array([[3, 1], [1, 3]]) * 2**40
    assert RocAuc().value(histogram) == pytest.approx(0.75)
    assert AveragePrecision().value(histogram) == pytest.approx(0.75 * 0.75 + 0.25 * 0.5)
    assert BestDice().value(histogram) == 0.75
