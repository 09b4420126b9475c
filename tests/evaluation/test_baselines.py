"""Baselines against scikit-image itself, and against a slow search of their parameters."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from lis2_lightning import ConfigError, DataError, TileDataset
from lis2_lightning.data import SyntheticDataset
from lis2_lightning.evaluation import filters
from lis2_lightning.evaluation.baselines import best_threshold, score_baselines
from lis2_lightning.evaluation.fields import fields_of
from lis2_lightning.evaluation.filters import Filter, grid, read_filled

skimage_filters = pytest.importorskip("skimage.filters")


@pytest.fixture(scope="module")
def fields():
    tiles = SyntheticDataset(height=96, width=96, seed=3, size=16, num_folds=3)
    return fields_of(tiles)


def test_the_filters_are_those_of_scikit_image():
    rng = np.random.default_rng(0)
    image = (1 + rng.random((40, 50))).astype(np.float32)
    pairs = {
        Filter("brightness", is_dark=True): -image,
        Filter("high-pass", 4.0): image - skimage_filters.gaussian(image, 4.0),
        Filter("Sato", 2.0, is_dark=True): skimage_filters.sato(
            -image, sigmas=[2.0], black_ridges=False
        ),
        Filter("Frangi", 1.5, is_log=True): skimage_filters.frangi(
            np.log(image), sigmas=[1.5], black_ridges=False
        ),
    }
    for filter_, expected in pairs.items():
        np.testing.assert_allclose(filter_.respond(image), expected, rtol=1e-5, atol=1e-7)
    # dark ridges are what scikit-image calls black
    dark = Filter("Sato", 2.0, is_dark=True).respond(image)
    np.testing.assert_allclose(dark, skimage_filters.sato(image, sigmas=[2.0]), atol=1e-6)


def test_the_best_threshold_is_found_among_ties():
    rng = np.random.default_rng(1)
    values = np.sort(rng.integers(0, 12, 300).astype(np.float32))[::-1]
    positive = rng.random(300) < values / 12
    threshold, dice = best_threshold(values, positive)
    by_hand = {v: f1_score(positive, values >= v) for v in np.unique(values).tolist()}
    assert dice == pytest.approx(max(by_hand.values()))
    assert by_hand[threshold] == pytest.approx(dice)


def test_parameters_come_from_the_other_folds_and_are_scored_on_the_held_out_one(
    fields, monkeypatch
):
    few = [Filter("Sato", s, is_dark=d) for s in (1.0, 3.0) for d in (False, True)]
    monkeypatch.setattr("lis2_lightning.evaluation.baselines.grid", lambda _: iter(few))
    scores, chosen = score_baselines(fields, tested=[0, 1, 2])
    (field,) = fields
    image, whole = read_filled(field)[0], field.band(0, 96)
    target, labelled = (part[0] for part in field.read(whole))
    fold = field.of_pixels(field.folds, whole)
    decided = np.zeros((96, 96), np.bool_)
    for held_out in range(3):
        train, test = labelled & (fold != held_out), labelled & (fold == held_out)
        options = []
        for filter_ in few:
            response = filter_.respond(image)
            for threshold in np.unique(response[train])[::7]:
                dice = dice_of(target[train] > 0, response[train] >= threshold)
                options.append((dice, filter_, threshold))
        dice, filter_, _ = max(options, key=lambda option: option[0])
        text = chosen["Sato", held_out, None]
        assert text.startswith(f"{filter_}, from ")
        threshold = float(text.split("from ")[1].split()[0])
        response = filter_.respond(image)
        assert dice_of(target[train] > 0, response[train] >= threshold) > dice - 2e-3
        exact = best_threshold(*_descending(response[train], target[train] > 0))[0]
        decided[test] = response[test] >= exact
    assert set(scores) == {"Sato"}
    found = scores["Sato"].figures(np.ones(field.folds.size, np.int64))
    assert found["dice_at_threshold"] == pytest.approx(
        f1_score(target[labelled], decided[labelled]), abs=1e-12
    )


def dice_of(positive, predicted):
    return 2 * (positive & predicted).sum() / (positive.sum() + predicted.sum())


def _descending(values, positive):
    order = np.argsort(-values, kind="stable")
    return values[order], positive[order]


def test_labels_of_the_held_out_fold_decide_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    image = 1 + rng.random((64, 64))
    target = (image > 1.7).astype(np.float32)
    few = [Filter("brightness"), Filter("brightness", is_dark=True)]
    monkeypatch.setattr("lis2_lightning.evaluation.baselines.grid", lambda _: iter(few))
    honest = _scored(image, target)
    fold_0 = np.zeros((64, 64), np.bool_)
    fold_0[:32, :32] = True  # areas of 32 px, dealt by hand below
    changed = _scored(image, np.where(fold_0, 1 - target, target))
    assert changed[1]["brightness", 0, None] == honest[1]["brightness", 0, None]
    assert changed[1]["brightness", 1, None] != honest[1]["brightness", 1, None]


def _scored(image, target):
    from dataclasses import replace

    (field,) = fields_of(TileDataset(image, target=target, size=16, area_size=32, num_folds=4))
    field = replace(field, folds=np.arange(4).reshape(2, 2))
    return score_baselines([field], tested=[0, 1, 2, 3])


def test_gaps_are_filled_from_beside_them_and_count_nowhere():
    image = np.ones((40, 40))
    image[:, 20:] = 3
    image[10:20, 5:15] = np.nan
    image[30, 30] = np.inf
    missing = np.ones((40, 40))
    missing[:5] = 0
    image[:5] = -999  # what an instrument may write where it has nothing
    tiles = TileDataset(image, target=image > 2, missing=missing, size=8)
    (field,) = fields_of(tiles)
    filled = read_filled(field)[0]
    assert set(np.unique(filled)) == {filled[20, 0], filled[20, 39]}
    scores, _ = score_baselines([field], tested=[0])
    labelled = 40 * 35 - 100 - 1
    assert all(own.num_pixels.sum() == labelled for own in scores.values())


def test_logarithms_are_of_positive_images_only():
    positive, negative = np.ones((1, 4, 4), np.float32), np.zeros((1, 4, 4), np.float32)
    assert any(filter_.is_log for filter_ in grid([positive]))
    assert not any(filter_.is_log for filter_ in grid([positive, negative]))


def test_an_image_that_is_too_large_is_refused_in_one_sentence(fields, monkeypatch):
    monkeypatch.setattr(filters, "MOST_PIXELS", 9000)
    with pytest.raises(DataError, match=r"has 96 x 96 px, and baselines .* at most 9,000 px"):
        read_filled(fields[0])


def test_without_scikit_image_one_sentence_says_what_to_install(fields, monkeypatch):
    monkeypatch.setattr(filters, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r'pip install "lis2-lightning\[baselines\]"'):
        read_filled(fields[0])
