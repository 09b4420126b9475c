"""``lis2 baseline``: filters beside a run's network, on the areas that the run is tested on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from lis2_lightning.data import SyntheticDataset
from lis2_lightning.evaluation.filters import Filter
from lis2_lightning.snapshots.describe import summary
from tests.conftest import FIELD

Typed = Callable[..., tuple[int, str, str]]
Finished = tuple[Path, dict[str, Any]]


def few_filters(_: Any) -> list[Filter]:
    return [Filter("brightness"), Filter("Sato", 2.0)]


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lis2_lightning.evaluation.baselines.grid", few_filters)


def test_network_and_baselines_are_scored_on_the_same_test_pixels(
    finished: Finished, typed: Typed
) -> None:
    code, output, _ = typed("baseline", "--config", finished[0], "--json")
    assert code == 0
    methods = json.loads(output)["methods"]
    assert list(methods) == ["network", "brightness", "Sato"]
    tiles = SyntheticDataset(**{k: v for k, v in FIELD.items() if k != "type"}, folds=[2])  # type: ignore[arg-type]
    (tiled,) = tiles.tiled_images
    tested = tiled.areas.spread(tiled.used, np.arange(128), np.arange(128))
    target, labelled = (part[0] for part in tiles.read_maps()[1:])
    pixels = labelled & tested
    assert {method["num_pixels"] for method in methods.values()} == {pixels.sum()}
    map_ = np.load(finished[0] / "prediction.npy")
    cut = map_ >= np.float32(summary(finished[0] / "best.pt")["threshold"])
    expected = f1_score(target[pixels], cut[pixels])
    assert methods["network"]["dice_at_threshold"] == pytest.approx(expected, abs=1e-12)


def test_without_a_run_the_baselines_stand_alone(
    tiny: Callable[..., dict[str, Any]], tmp_path: Path, typed: Typed
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps(tiny()), encoding="utf-8")
    code, output, _ = typed("baseline", "--config", path)
    assert code == 0
    assert [line.split()[0] for line in output.splitlines()[1:3]] == ["brightness", "Sato"]
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").glob("tiny*"))
    code, output, _ = typed("baseline", "--config", path, "--folds", "4", "--json")
    assert (code, json.loads(output)["num_folds"]) == (0, 4)


def test_data_without_an_image_are_refused(
    tiny: Callable[..., dict[str, Any]], tmp_path: Path, typed: Typed
) -> None:
    import h5py

    with h5py.File(tmp_path / "patches.h5", "w") as file:
        file["patches"] = file["spines"] = np.ones((4, 16, 16, 1), np.float32)
    data = {"type": "PatchDataset", "dataset_path": str(tmp_path / "patches.h5")}
    config = tiny(train_dataset=data, val_dataset=None, test_dataset=None)
    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")
    code, _, error = typed("baseline", "--config", path)
    assert (code, error.count("\n")) == (2, 1)
    assert "baselines filter an image, which" in error
