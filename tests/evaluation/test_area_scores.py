"""Figures of areas, and their bootstrap, against slow and obvious references."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from lis2_lightning.evaluation import area_scores
from lis2_lightning.evaluation.area_scores import FIGURES, AreaScores, draw_areas

NUM_AREAS, NUM_PIXELS, CUT = 6, 200_000, np.float32(0.3)


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    areas = rng.integers(1, NUM_AREAS, 4000)  # area 0 has no labelled pixel
    positive = rng.random(4000) < 0.1 * areas
    probs = (0.4 * rng.random(4000) + 0.5 * positive * rng.random(4000)).astype(np.float16)
    return areas, probs.astype(np.float32), positive  # half precision: codes are exact


@pytest.fixture(scope="module")
def scores(pixels):
    areas, probs, positive = pixels
    made = AreaScores(NUM_AREAS)
    for part in np.array_split(np.arange(len(areas)), 7):  # as bands of rows come
        made.add(areas[part], probs[part], probs[part] >= CUT, positive[part])
    return made


def reference(probs, positive):
    """What scikit-learn says of these pixels."""
    return {
        "dice": f1_score(positive, probs >= 0.5),
        "dice_at_threshold": f1_score(positive, probs >= CUT),
        "average_precision": average_precision_score(positive, probs),
        "roc_auc": roc_auc_score(positive, probs),
    }


def test_the_figures_are_those_of_scikit_learn(pixels, scores):
    areas, probs, positive = pixels
    assert scores.figures(np.ones(NUM_AREAS, np.int64)) == pytest.approx(
        reference(probs, positive), abs=1e-9
    )
    only = np.array([0, 0, 1, 0, 0, 1])
    chosen = only[areas] > 0
    assert scores.figures(only) == pytest.approx(
        reference(probs[chosen], positive[chosen]), abs=1e-9
    )
    assert scores.num_pixels.tolist() == np.bincount(areas, minlength=NUM_AREAS).tolist()
    assert scores.num_positive.sum() == positive.sum()


def test_the_bootstrap_is_that_of_the_pixels_of_drawn_areas(pixels, scores):
    areas, probs, positive = pixels
    draws = draw_areas(scores.num_pixels > 0, num_draws=20, seed=5)
    rows = []
    for draw in draws:
        pixels_drawn = np.concatenate(
            [np.flatnonzero(areas == area) for area, times in enumerate(draw) for _ in range(times)]
        )
        rows.append(reference(probs[pixels_drawn], positive[pixels_drawn]))
    intervals = scores.intervals(draws)
    for name in FIGURES:
        expected = np.percentile([row[name] for row in rows], [2.5, 97.5])
        assert intervals[name] == pytest.approx(tuple(expected), abs=1e-9), name


def logistic(values):
    return 1 / (1 + np.exp(-values))


# scores from noise and a truth, and the share of positive pixels
KINDS = {
    "undecided": (lambda noise, truth: 0.5 + 0.01 * (noise + truth), 0.3),
    "near 0": (lambda noise, truth: np.exp(8 * (noise + truth) - 40), 0.3),
    "near 1": (lambda noise, truth: 1 - np.exp(noise - truth - 10), 0.3),
    "sure": (lambda noise, truth: logistic(9 * (noise + 2 * truth - 1)), 0.3),
    "tied": (lambda noise, truth: logistic(noise + truth).round(2), 0.3),
    "rare": (lambda noise, truth: logistic(noise + 3 * truth - 4), 1e-4),
}


def of_kind(kind):
    rng = np.random.default_rng(1)
    score, share = KINDS[kind]
    positive = rng.random(NUM_PIXELS) < share
    probs = score(rng.standard_normal(NUM_PIXELS), positive).clip(0, 1).astype(np.float32)
    return rng.integers(0, 3, NUM_PIXELS), probs, positive


def scores_of(areas, probs, positive):
    made = AreaScores(3)
    for part in np.array_split(np.arange(len(areas)), 3):
        made.add(areas[part], probs[part], probs[part] >= CUT, positive[part])
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_every_score_counts_as_it_is(kind):
    areas, probs, positive = of_kind(kind)
    figures = scores_of(areas, probs, positive).figures(np.ones(3, np.int64))
    expected = average_precision_score(positive, probs), roc_auc_score(positive, probs)
    assert (figures["average_precision"], figures["roc_auc"]) == pytest.approx(expected, abs=1e-9)


def test_above_so_many_cells_scores_are_rounded_and_dice_stays_exact(monkeypatch):
    areas, probs, positive = of_kind("rare")
    exact = scores_of(areas, probs, positive)
    assert len(exact._merge().keys) > 150_000
    monkeypatch.setattr(area_scores, "MOST_CELLS", 120_000)
    rounded = scores_of(areas, probs, positive)
    assert len(rounded._merge().keys) < 120_000
    figures, expected = (scores.figures(np.ones(3, np.int64)) for scores in (rounded, exact))
    assert figures == pytest.approx(expected, abs=1e-3)
    assert figures["average_precision"] != expected["average_precision"]
    assert figures["dice_at_threshold"] == expected["dice_at_threshold"]
    draws = draw_areas(exact.num_pixels > 0, num_draws=5, seed=0)
    assert rounded.intervals(draws) == exact.intervals(draws)  # of rounded scores anyway


def test_zeros_of_both_signs_are_tied_and_what_is_no_score_counts_as_the_nearest():
    probs = np.array([0.0, -0.0, np.nan, -1.0, 0.5, 1.0, 1.5], np.float32)
    positive = np.array([True, False, False, False, False, True, True])
    scores = scores_of(np.zeros(7, np.int64), probs, positive)
    figures = scores.figures(np.ones(3, np.int64))
    expected = roc_auc_score(positive, [0, 0, 0, 0, 0.5, 1, 1])
    assert figures["roc_auc"] == pytest.approx(expected, abs=1e-12)


def test_draws_are_of_labelled_areas_and_follow_from_the_seed():
    has_labels = np.array([True, False, True, True])
    draws = draw_areas(has_labels, num_draws=200, seed=3)
    assert (draws.sum(axis=1) == 3).all()
    assert not draws[:, 1].any()
    assert draws[:, 0].mean() == pytest.approx(1, abs=0.2)
    assert (draws == draw_areas(has_labels, num_draws=200, seed=3)).all()
    assert (draws != draw_areas(has_labels, num_draws=200, seed=4)).any()


def test_without_pixels_there_are_no_figures():
    empty = AreaScores(2)
    figures = empty.figures(np.ones(2, np.int64))
    assert np.isnan([figures["average_precision"], figures["roc_auc"]]).all()
    draws = draw_areas(empty.num_pixels > 0, num_draws=5, seed=0)
    assert np.isnan(empty.intervals(draws)["roc_auc"]).all()
