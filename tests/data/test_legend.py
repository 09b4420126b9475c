"""What the values of a target mean, as a user says it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lis2_lightning.data import TileDataset
from lis2_lightning.errors import ConfigError, DataError

IMAGE = np.random.default_rng(0).random((2, 32, 32)) + 1


def stored(objects, elsewhere, unknown):
    """A target of three values, and where it holds which."""
    where = np.random.default_rng(1).integers(0, 3, (32, 32))
    return np.choose(where, [elsewhere, objects, unknown]), where == 1, where == 2


@pytest.mark.parametrize(
    ("values", "meaning"),
    [
        ((255, 0, 2), {"positive": [255], "ignore": [2]}),
        ((255, 0, 2), {"positive": 255, "ignore": 2}),
        ((7, 0, 255), {"positive": "nonzero", "ignore": [255]}),
        ((1, 0, 255), {"ignore": [255]}),
        ((2, 1, 0), {"positive": [2], "negative": [1], "ignore": [0]}),  # as ilastik writes them
        ((0, 255, np.nan), {"positive": [0], "negative": [255]}),
        ((0.1, 0, 0.3), {"positive": [0.1], "ignore": [0.3]}),
    ],
)
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_values_have_the_meaning_that_they_are_given(values, meaning, kind):
    target, objects, unknown = stored(*values)
    sample = TileDataset(IMAGE, target=target.astype(kind), size=32, **meaning)[0]
    np.testing.assert_array_equal(sample["target"][0].numpy(), objects)
    np.testing.assert_array_equal(sample["labelled"][0].numpy(), ~unknown)


def test_the_meaning_holds_for_every_channel_of_a_target():
    target = np.random.default_rng(1).choice([0, 2, 255], (3, 32, 32)).astype("u1")
    sample = TileDataset(IMAGE, target=target, size=32, positive=[255], ignore=[2])[0]
    np.testing.assert_array_equal(sample["target"].numpy(), target == 255)
    np.testing.assert_array_equal(sample["labelled"].numpy(), target != 2)


@pytest.mark.parametrize(
    ("values", "meaning", "sentence"),
    [
        (
            (255, 0, 2),
            {},
            r"must be 0, 1, or NaN .* by positive: \[2, 255\] \(or positive: nonzero\), "
            r"negative: \[2, 255\] or ignore: \[2, 255\]",
        ),
        ((255, 0, 2), {"positive": [255]}, r"must be 0, 255, or NaN .* positive: \[2\]"),
        ((1, 0, 2), {"positive": [2]}, r"holds 1 at row \d+, column \d+: a target must be 0, 2"),
        ((np.inf, 0, 1), {"positive": "nonzero"}, "must be 0, nonzero, or NaN where unknown$"),
    ],
)
def test_a_value_without_a_meaning_is_refused_with_the_way_to_say_it(values, meaning, sentence):
    target, *_ = stored(*values)
    with pytest.raises(DataError, match=sentence) as caught:
        TileDataset(IMAGE, target=target, **meaning)
    assert "\n" not in str(caught.value)


def test_many_values_are_not_all_listed():
    target = np.arange(1024).reshape(32, 32)
    with pytest.raises(DataError, match=r"it holds 1022 other values \(2, 3, 4, 5, 6, 7, \.\.\.\)"):
        TileDataset(IMAGE, target=target)


@pytest.mark.parametrize(
    ("meaning", "sentence"),
    [
        ({"positive": [1, 2], "ignore": [2]}, "the value 2 of the target has two meanings"),
        ({"positive": "all"}, "positive is one value, a list of values or nonzero, not 'all'"),
    ],
)
def test_a_contradiction_is_refused(meaning, sentence):
    with pytest.raises(ConfigError, match=sentence):
        TileDataset(IMAGE, target=np.eye(32), **meaning)


def test_an_area_is_counted_by_the_meaning_of_its_values():
    target = np.zeros((32, 64), "u1")
    target[:, :32] = 255
    image = np.ones((32, 64))
    options: dict[str, Any] = {"size": 8, "area_size": 32, "num_folds": 2, "positive": [255]}
    found = [TileDataset(image, target=target, folds=[fold], **options) for fold in (0, 1)]
    assert sorted(dataset.has_positive for dataset in found) == [False, True]
