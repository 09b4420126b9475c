"""The threshold: chosen on validation pixels, kept in snapshots, told with the test."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lis2_lightning import Trainer
from lis2_lightning.metrics.histogram import RocAuc, best_threshold, code_edges, dice_at
from lis2_lightning.snapshots import read_snapshot, write_snapshot

Make = Callable[..., dict[str, Any]]
Finished = tuple[Path, dict[str, Any]]


def pixels(trainer: Trainer, dataset: Any) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The probabilities and the truth of every labelled pixel of a data set, tile by tile."""
    network = trainer.model.eval()
    samples = []
    for sample in dataset:
        with torch.no_grad():
            probability = network(sample["patch"][None])[0]
        samples.append((probability[sample["labelled"]], sample["target"][sample["labelled"]]))
    probabilities, truth = (
        torch.cat(parts).double().numpy() for parts in zip(*samples, strict=True)
    )
    return probabilities, truth > 0.5


def dice(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """The Dice of two masks."""
    return float(2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()))


def test_the_test_is_measured_at_the_threshold_that_is_best_on_validation_pixels(
    finished: Finished,
) -> None:
    folder, info = finished
    trainer = Trainer.from_snapshot(folder / "best.pt")
    state = read_snapshot(folder / "best.pt")["MODEL"]["MODEL_STATE"]
    trainer.model.load_state_dict(state)

    probabilities, truth = pixels(trainer, trainer.data.val)
    on_val = {t: dice(probabilities >= t, truth) for t in code_edges()[:: 1 << 4].tolist()}
    threshold = info["metrics_test"]["val_threshold"]
    assert dice(probabilities >= threshold, truth) >= max(on_val.values()) - 1e-9

    probabilities, truth = pixels(trainer, trainer.data.test)
    at_threshold = dice(probabilities >= threshold, truth)
    assert info["metrics_test"]["dice_at_val_threshold"] == pytest.approx(at_threshold, abs=1e-6)
    assert at_threshold > info["metrics_test"]["dice"]  # here: few pixels are above 0.5


def test_each_snapshot_has_the_threshold_of_its_own_weights(
    finished: Finished, tmp_path: Path
) -> None:
    copy = shutil.copytree(finished[0], tmp_path / "tiny")
    trainer = Trainer.from_snapshot(copy / "best.pt", output_dir=tmp_path)
    thresholds = set()
    for name in ("save_2.pt", "best.pt"):
        stored = read_snapshot(copy / name)["LIGHTNING"]["checkpoint"]["threshold"]
        assert trainer.test(copy / name)["test_val_threshold"] == pytest.approx(stored, rel=1e-6)
        trainer.validate(copy / name)
        assert trainer.module.threshold == stored
        thresholds.add(stored)
    assert len(thresholds) == 2


def test_a_snapshot_without_a_threshold_is_tested_without_it(
    finished: Finished, tmp_path: Path
) -> None:
    copy = shutil.copytree(finished[0], tmp_path / "tiny")
    snapshot = read_snapshot(copy / "best.pt")
    del snapshot["LIGHTNING"]["checkpoint"]["threshold"]  # as it was written before
    write_snapshot(snapshot, copy / "old.pt")
    trainer = Trainer.from_snapshot(copy / "best.pt", output_dir=tmp_path)
    assert "test_val_threshold" in trainer.test(copy / "best.pt")
    assert "test_val_threshold" not in trainer.test(copy / "old.pt")


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("changes", [{"metrics": ["dice"]}, {"val_dataset": None}])
def test_without_scores_of_validation_pixels_there_is_no_threshold(
    tiny: Make, changes: dict[str, Any], tmp_path: Path
) -> None:
    info = Trainer.from_config(tiny(epochs=1, **changes)).train()
    assert "val_threshold" not in info["metrics_test"]
    checkpoint = read_snapshot(tmp_path / "runs/tiny/best.pt")["LIGHTNING"]["checkpoint"]
    assert checkpoint["threshold"] is None


@pytest.mark.usefixtures("no_pictures")
def test_the_table_shows_both_dice_scores_and_where_the_threshold_comes_from(
    tiny: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lis2_lightning")
    scores = Trainer.from_config(tiny(epochs=1)).train()["metrics_test"]
    lines = [line.split("  ") for line in caplog.text.splitlines() if line.startswith("test ")]
    shown = {name: value.strip() for name, *_, value in lines}
    name = f"test dice at {scores['val_threshold']:.3f}, best on val"
    assert list(shown)[2:4] == ["test dice", name]
    assert shown[name] == f"{scores['dice_at_val_threshold']:.4f}"
    assert "test val_threshold" not in shown


def test_the_dice_of_empty_maps_is_1_and_that_of_no_pixels_unknown() -> None:
    metric = RocAuc()
    metric.update(torch.tensor([0.125, 0.25]), torch.tensor([0.0, 0.0]))
    histogram = metric.sums.numpy()
    assert best_threshold(histogram) is None
    assert (dice_at(histogram, 0.25), dice_at(histogram, 0.5)) == (0, 1)
    assert np.isnan(dice_at(np.zeros_like(histogram), 0.5))
