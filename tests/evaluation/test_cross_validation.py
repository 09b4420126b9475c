"""Cross-validation as its users see it: runs of folds, killed, side by side, as an array."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lis2_lightning import ConfigError, CrossValidation
from lis2_lightning.__main__ import main
from lis2_lightning.evaluation.filters import Filter
from tests.conftest import TINY
from tests.evaluation.commands import kill_once_there, started

Typed = Callable[..., tuple[int, str, str]]
CONFIG = Path(__file__).parents[2] / "configs" / "cross_validate.yaml"


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "folds.yaml"
    config = {**deepcopy(TINY), "output_dir": str(folder / "runs"), "save_last": True, **changes}
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def few_filters(_: Any) -> list[Filter]:
    return [Filter("brightness"), Filter("Sato", 2.0)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folds as tasks of a SLURM array train and collect them; never write to it."""
    folder = tmp_path_factory.mktemp("array")
    config = str(written(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lis2"])
        patch.setattr("lis2_lightning.report.run_pictures.draw_curves", lambda *_: None)
        patch.setattr("lis2_lightning.report.run_pictures.is_drawn", lambda _: False)
        patch.setattr("lis2_lightning.evaluation.baselines.grid", few_filters)
        for fold in (2, 0, 1):
            words = ["cross-validate", "--config", config, "--fold", str(fold)]
            assert main(words) == 0
        assert main(["cross-validate", "--config", config, "--collect"]) == 0
    return folder / "runs" / "tiny"


def test_each_fold_is_an_ordinary_run_and_all_of_them_come_to_one_answer(trained: Path) -> None:
    for fold in range(3):
        own = json.loads((trained / f"fold_{fold}" / "result.json").read_text())["info"]
        assert (own["run_name"], own["epochs_run"]) == (f"fold_{fold}", 2)
    answer = json.loads((trained / "cross_validation.json").read_text())
    assert answer["num_folds"] == 3
    assert {"network", "brightness", "Sato"} <= set(answer["methods"])
    pixels = {method["num_pixels"] for method in answer["methods"].values()}
    assert len(pixels) == 1  # all of them are scored on the same
    assert (trained / "folds.png").stat().st_size > 10_000
    with (trained / "cross_validation.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["fold"] for row in rows if row["method"] == "network"} == {"all", "0", "1", "2"}


def test_each_pixel_of_the_map_is_of_the_run_that_is_tested_on_it(trained: Path) -> None:
    map_ = np.load(trained / "out_of_fold.npy")
    maps = [np.load(trained / f"fold_{fold}" / "prediction.npy") for fold in range(3)]
    runs = CrossValidation.from_config(trained / "config.yaml", num_folds=3)
    (field,) = runs.fields
    fold = field.of_pixels(field.folds, field.band(0, 128))
    np.testing.assert_array_equal(map_, np.choose(fold, maps))


def test_a_finished_cross_validation_trains_nothing(
    trained: Path,
    typed: Typed,
    said: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lis2_lightning.evaluation.baselines.grid", few_filters)
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*.pt")}
    code, output, _ = typed("cross-validate", "--config", trained, "--folds", "3")
    assert code == 0
    assert output.splitlines()[1].startswith("network")
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*.pt")} == before
    assert said.text.count("nothing is left to train") == 3


def test_what_is_not_finished_cannot_be_collected(tmp_path: Path, typed: Typed) -> None:
    code, output, error = typed("cross-validate", "--config", written(tmp_path), "--collect")
    assert (code, output) == (2, "")
    assert "fold_0 is not finished, with 0 epochs trained of 2, and every fold is ne" in error
    assert "train it with --fold 0" in error


@pytest.mark.parametrize("trained_rows", [2, 3], ids=["before", "after"])
def test_a_run_that_was_killed_after_epochs_were_raised_is_not_finished(
    trained: Path, tmp_path: Path, typed: Typed, trained_rows: int
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "runs" / "tiny"))
    log = folder / "fold_1" / "logs_train.csv"
    rows = log.read_text().splitlines()
    log.write_text("\n".join([*rows, *rows[-1:]][: trained_rows + 1]) + "\n")
    epochs = "3" if trained_rows == 2 else "2"  # its own rows tell where the patience was raised
    words = ["--output_dir", str(tmp_path / "runs"), "--epochs", epochs, "--folds", "3"]
    code, output, error = typed(
        "cross-validate", "--config", folder / "config.yaml", *words, "--collect"
    )
    assert (code, output) == (2, "")
    fold = 0 if trained_rows == 2 else 1
    assert f"fold_{fold} is not finished, with {trained_rows} epochs trained of {epochs}" in error


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--folds", "2"], "folds must be at least 3, for training, validation and test, not 2"),
        (["--folds", "five"], "folds must be a whole number of at least 0, not 'five'"),
        (["--fold", "3"], "fold must be from 0 to 2, not 3"),
        (["--fold", "1", "--collect"], "--fold and --collect exclude each other"),
        (["--jobs", "0"], "jobs must be at least 1, not 0"),
        (["--seeds", "0"], "seeds must be at least 1, not 0"),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path, typed: Typed, words: list[str], sentence: str
) -> None:
    code, output, error = typed("cross-validate", "--config", written(tmp_path), *words)
    assert (code, output) == (2, "")
    assert sentence in error
    assert error.count("\n") == 1


def test_a_folder_of_other_folds_or_of_a_single_run_is_left_alone(
    trained: Path, finished: tuple[Path, Any]
) -> None:
    with pytest.raises(ConfigError, match="a cross-validation of other data, folds or seeds"):
        CrossValidation.from_config(trained / "config.yaml", num_folds=4).run_fold(0)
    with pytest.raises(ConfigError, match="holds a single run: choose another run_name"):
        CrossValidation.from_config(
            finished[0], num_folds=3, output_dir=str(finished[0].parent)
        ).collect()


def test_objects_that_runs_would_share_are_refused(tmp_path: Path) -> None:
    from torch import nn

    with pytest.raises(ConfigError, match="builds a trainer for each fold, and model is an object"):
        CrossValidation.from_config(written(tmp_path), model=nn.Conv2d(1, 1, 1))


@pytest.mark.slow
def test_the_shipped_configuration_trains_folds(tmp_path: Path, typed: Typed) -> None:
    small = ["--data.height", "160", "--data.width", "160", "--model.features", "2"]
    quick = ["--epochs", "1", "--num_workers", "0", "--output_dir", str(tmp_path), "--folds", "3"]
    code, output, error = typed("cross-validate", "--config", CONFIG, *small, *quick)
    assert code == 0, error
    assert "network - Sato" in output
    assert (tmp_path / "folds" / "out_of_fold.npy").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_several_images_and_several_seeds_come_to_one_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lis2_lightning.data import synthetic_maps

    monkeypatch.setattr("lis2_lightning.evaluation.baselines.grid", few_filters)
    tiles: dict[str, Any] = {"type": "TileDataset", "size": 16, "stride": 16, "area_size": 16}
    truths = []
    for number, shape in enumerate([(64, 48), (48, 80)]):
        maps = synthetic_maps(*shape, seed=number)
        for name in ("image", "target", "background"):
            path = tmp_path / f"{name}_{number}.npy"
            np.save(path, getattr(maps, name))
            tiles.setdefault(name, []).append(str(path))
        truths.append(maps)
    changes = {"epochs": 1, "report": False, "val_dataset": None, "test_dataset": None}
    config = {**deepcopy(TINY), **changes, "train_dataset": tiles, "output_dir": str(tmp_path)}
    runs = CrossValidation.from_config(config, num_folds=3, seeds=2)
    summary = runs.run()
    folder = tmp_path / "tiny"
    for number, field in enumerate(runs.fields):
        fold = field.of_pixels(field.folds, field.band(0, field.shape[0]))
        of_seeds = [
            np.choose(
                fold,
                [np.load(folder / f"fold_{k}/seed_{s}/prediction_{number}.npy") for k in range(3)],
            )
            for s in runs.seeds
        ]
        map_ = np.load(folder / f"out_of_fold_{number}.npy")
        expected = np.mean(of_seeds, axis=0, dtype=np.float64).astype(np.float32)
        np.testing.assert_array_equal(map_, expected)
    num_labelled = sum(int(maps.labelled.sum()) for maps in truths)
    row, spread = summary.row("network"), summary.spread("network")["dice_at_threshold"]
    assert row.num_pixels == num_labelled
    assert spread["std_over_seeds"] is not None


@pytest.mark.slow
def test_a_killed_cross_validation_goes_on_to_the_same_result(
    trained: Path, tmp_path: Path
) -> None:
    config = written(tmp_path)
    folder = tmp_path / "runs" / "tiny"
    process = started("cross-validate", config)
    kill_once_there(process, folder / "fold_1" / "last.pt")  # in the second fold
    assert not (folder / "fold_1" / "result.json").exists()
    first = (folder / "fold_0" / "best.pt").stat().st_mtime_ns
    again = started("cross-validate", config, "--jobs", "2")
    _, error = again.communicate()
    assert again.returncode == 0, error
    assert (folder / "fold_0" / "best.pt").stat().st_mtime_ns == first
    assert "resumed" in (folder / "fold_1.log").read_text()
    assert "nothing is left to train" in (folder / "fold_0.log").read_text()
    for name in ("out_of_fold.npy", *(f"fold_{fold}/logs_train.csv" for fold in range(3))):
        assert (folder / name).read_bytes() == (trained / name).read_bytes(), name
    figures = [
        json.loads((path / "cross_validation.json").read_text())["methods"]["network"]
        for path in (folder, trained)
    ]
    assert figures[0] == figures[1]
