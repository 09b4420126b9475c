"""LIS2's own k-fold keys: one file, every run that LIS2 makes of it, and one answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from sklearn.metrics import f1_score

from lis2_lightning import CrossValidation
from lis2_lightning.snapshots.describe import summary

Typed = Callable[..., tuple[int, str, str]]
SIDE, PATCH, AREA, NUM_FOLDS = 96, 16, 32, 4


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A file as LIS2's pipeline has them, with patches that overlap by half."""
    rng, steps = np.random.default_rng(0), range(0, SIDE - PATCH + 1, PATCH // 2)
    truth = rng.random((SIDE, SIDE)) < 0.3
    image = (truth + 0.4 * rng.random((SIDE, SIDE))).astype(np.float32) / 1.4
    labelled = rng.random((SIDE, SIDE)) < 0.8
    truth[:AREA, :AREA] = False  # patches of one value, which training leaves out
    corners = np.array([(row, column) for row in steps for column in steps])
    cut = {
        name: np.stack([values[r : r + PATCH, c : c + PATCH] for r, c in corners])[..., None]
        for name, values in (("patches", image), ("spines", truth), ("labelled", labelled))
    }
    with h5py.File(tmp_path / "patches.h5", "w") as file:
        for name, values in cut.items():
            file[name] = values.astype(np.float32)
        file["positions"] = np.stack((corners, corners + PATCH), axis=-1)[..., None]
    np.savez(tmp_path / "truth.npz", truth=truth, labelled=labelled)
    config: dict[str, Any] = {
        "run_name": "theirs",
        "train_output_dir": str(tmp_path / "runs"),
        "data": {
            "dataset_path": str(tmp_path / "patches.h5"),
            "type": "FilamentsDataset",
            "controller": {
                "type": "RandomController",
                "nb_folds": NUM_FOLDS,
                "train_ratio": 0.5,
                "area_size": AREA,
                "patch_size": PATCH,
                "overlap": 0,
            },
            **{split: {"stride": 1} for split in ("trainset", "validset", "testset")},
        },
        "trainer": {
            "model": {"type": "unet", "features": 2, "num_blocks": 1},
            "optimizer": {"type": "Adam", "lr": 0.02},
            "epochs": 2,
            "batch_size": 8,
            "num_workers": 0,
            "seed": 1,
        },
    }
    path = tmp_path / "pipeline.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_each_fold_is_tested_once_and_trained_as_train_ratio_says(
    pipeline: Path, split: str
) -> None:
    runs = CrossValidation.from_config(pipeline)
    assert runs.num_folds == NUM_FOLDS
    lists = [
        runs.run_config(fold, 1)[f"{split}_dataset"]["init_args"]["fold_list"]
        for fold in range(NUM_FOLDS)
    ]
    assert (
        lists
        == {
            "train": [[2, 3], [0, 3], [0, 1], [1, 2]],
            "val": [[1], [2], [3], [0]],
            "test": [[0], [1], [2], [3]],
        }[split]
    )


@pytest.mark.slow
def test_a_file_of_lis2_gives_one_map_of_all_areas_and_figures_on_every_labelled_pixel(
    pipeline: Path, typed: Typed, said: pytest.LogCaptureFixture
) -> None:
    code, _, error = typed("cross-validate", "--config", pipeline)
    assert code == 0, error
    assert "no baselines: baselines filter an image, and stored patches have none" in said.text
    folder = pipeline.parent / "runs" / "theirs"
    map_, known = np.load(folder / "out_of_fold.npy"), np.load(pipeline.parent / "truth.npz")
    assert map_.shape == (SIDE, SIDE)
    assert np.isfinite(map_).all()
    # nine areas are dealt in turn, in the order of their first patches
    thresholds = [summary(folder / f"fold_{k}" / "best.pt")["threshold"] for k in range(NUM_FOLDS)]
    fold = np.kron(np.arange(9).reshape(3, 3) % NUM_FOLDS, np.ones((AREA, AREA), int))
    labelled = known["labelled"]
    cut = map_ >= np.choose(fold, thresholds).astype(np.float32)
    network = json.loads((folder / "cross_validation.json").read_text())["methods"]["network"]
    assert network["num_pixels"] == labelled.sum()
    expected = f1_score(known["truth"][labelled], cut[labelled])
    assert network["dice_at_threshold"] == pytest.approx(expected, abs=1e-12)
    assert (folder / "folds.png").is_file()
    assert not (folder / "fold_0" / "patches.npy").exists()
