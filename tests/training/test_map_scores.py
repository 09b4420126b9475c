"""The figures of the stitched map, beside scikit-learn on a map that is stitched the slow way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from lis2_lightning import ConfigError, Trainer
from lis2_lightning.data import SyntheticDataset, TileDataset
from lis2_lightning.data.datamodule import collate
from lis2_lightning.metrics.histogram import score_codes
from lis2_lightning.training.map_scores import MapScores

Make = Callable[..., dict[str, Any]]


def hann(side: int) -> np.ndarray:
    weights = np.maximum(np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2, 1e-3)
    return np.outer(weights, weights)


def slow_scores(dataset: SyntheticDataset, probabilities: np.ndarray) -> dict[str, float]:
    """Blend the tiles to a map of the whole image, and score each labelled pixel once."""
    sums, weights = np.zeros(dataset.image_shape), np.zeros(dataset.image_shape)
    truth, labelled = np.zeros(dataset.image_shape), np.zeros(dataset.image_shape, bool)
    for index, tile in enumerate(dataset.tiles):
        sums[tile.rows, tile.columns] += hann(dataset.size) * probabilities[index, 0]
        weights[tile.rows, tile.columns] += hann(dataset.size)
        truth[tile.rows, tile.columns] = dataset[index]["target"][0]
        labelled[tile.rows, tile.columns] = dataset[index]["labelled"][0]
    scores, positive = (sums[labelled] / weights[labelled]).astype(np.float32), truth[labelled] > 0
    mask = scores >= 0.5
    return {
        "map_average_precision": average_precision_score(positive, scores),
        "map_dice": 2 * (mask & positive).sum() / (mask.sum() + positive.sum()),
        "map_roc_auc": roc_auc_score(positive, scores),
    }


@pytest.fixture(scope="module")
def overlapping() -> SyntheticDataset:
    """Tiles of two folds of five, with gaps between them, each pixel in up to nine of them."""
    return SyntheticDataset(
        height=200, width=160, seed=3, size=24, stride=8, num_folds=5, folds=[1, 3]
    )


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_each_labelled_pixel_of_the_blended_map_counts_once(
    overlapping: SyntheticDataset, batch_size: int
) -> None:
    shape = (len(overlapping), 1, overlapping.size, overlapping.size)
    probabilities = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    scores = MapScores([overlapping.image_shape])
    for _ in range(2):  # the second time after a reset
        scores.reset()
        for first in range(0, len(overlapping), batch_size):
            indices = range(first, min(first + batch_size, len(overlapping)))
            batch = collate(overlapping.__getitems__(list(indices)))
            scores.update(batch, probabilities[first : first + batch_size])
        measured = {name: float(value) for name, value in scores.compute().items()}
    expected = slow_scores(overlapping, probabilities.numpy())
    assert measured == pytest.approx(expected, abs=1e-5)  # scores are binned
    assert measured["map_dice"] == pytest.approx(expected["map_dice"], abs=1e-12)


def test_a_test_and_a_validation_score_the_map_that_is_predicted(
    tiny: Make, tmp_path: Path
) -> None:
    field = tiny()["val_dataset"] | {"num_folds": 1, "folds": None, "stride": 4}
    trainer = Trainer.from_config(
        tiny(
            train_dataset=field, val_dataset=field | {"seed": 4}, test_dataset=field | {"seed": 5}
        ),
        validate_on="map",
        monitor="val_map_dice",
        scheduler={"type": "StepLR", "step_size": 1},
    )
    assert trainer.train()["metrics_test"].keys() >= {"map_dice", "map_roc_auc"}
    header = (tmp_path / "runs/tiny/logs_train.csv").read_text().splitlines()[0].split(",")
    assert {"val_map_dice", "val_map_average_precision", "val_map_roc_auc"} <= set(header)

    scores = trainer.test()
    [map_] = trainer.predict()
    test = trainer.data.test
    assert isinstance(test, SyntheticDataset)
    _, target, labelled = test.read_maps()
    truth, values = target[labelled] > 0, map_[labelled]
    mask = values >= 0.5
    dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
    assert scores["test_map_dice"] == pytest.approx(dice, abs=1e-6)
    # of so few epochs the probabilities are close together: in the resolution of the figure
    precision = average_precision_score(truth, score_codes(torch.from_numpy(values)))
    assert scores["test_map_average_precision"] == pytest.approx(precision, abs=1e-6)


def test_best_follows_a_figure_of_the_map_upwards(tiny: Make) -> None:
    trainer = Trainer.from_config(tiny(validate_on="map", monitor="val_map_dice"))
    trainer.check()
    assert trainer._settings.best_mode == "max"


@pytest.mark.parametrize("monitor", ["val_map_dice", "train_map_dice"])
def test_a_figure_of_the_map_that_is_not_measured_cannot_be_followed(
    tiny: Make, monitor: str
) -> None:
    with pytest.raises(ConfigError, match=f"'{monitor}' is not logged"):
        Trainer.from_config(tiny(monitor=monitor)).check()


def test_samples_that_are_no_tiles_of_an_image_have_no_map(tiny: Make) -> None:
    config = tiny(validate_on="map", val_dataset=None)
    with pytest.raises(ConfigError, match=r"validate_on: map needs a val_dataset .* got none"):
        Trainer.from_config(config).check()


def test_each_of_several_images_has_a_map_of_its_own() -> None:
    rng = np.random.default_rng(0)
    shapes = [(40, 60), (24, 24), (50, 30)]
    images = [rng.random(shape) for shape in shapes]
    targets = [rng.random(shape) > 0.6 for shape in shapes]
    several = TileDataset(images, target=targets, size=16, stride=8)
    probabilities = torch.rand(
        (len(several), 1, 16, 16), generator=torch.Generator().manual_seed(0)
    )
    scores = MapScores.of(several)
    assert scores is not None
    for first in range(0, len(several), 13):  # batches that cross from one image to the next
        batch = collate(several.__getitems__(list(range(first, min(first + 13, len(several))))))
        scores.update(batch, probabilities[first : first + 13])
    dice = float(scores.compute()["map_dice"])

    positive, predicted, both, begin = 0, 0, 0, 0
    for whole in several.whole_images():
        sums, weights = np.zeros(whole.image_shape), np.zeros(whole.image_shape)
        for tile, values in zip(whole.tiles, probabilities[begin:].numpy(), strict=False):
            sums[tile.rows, tile.columns] += hann(16) * values[0]
            weights[tile.rows, tile.columns] += hann(16)
        begin += len(whole)
        mask, truth = (sums / weights).astype(np.float32) >= 0.5, whole.read_maps()[1][0] > 0
        positive, predicted = positive + truth.sum(), predicted + mask.sum()
        both += (mask & truth).sum()
    assert dice == pytest.approx(2 * both / (positive + predicted), abs=1e-12)
