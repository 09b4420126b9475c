"""Tuning as its users see it: a grid, a study that was killed, trials side by side, pruning."""

from __future__ import annotations

import csv
import json
import sqlite3
import sys
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from lis2_lightning import ConfigError, CrossValidation, TrainingError
from lis2_lightning.__main__ import main
from lis2_lightning.evaluation.tuning import Tuning
from tests.conftest import TINY
from tests.evaluation.commands import kill_once_there, started

Typed = Callable[..., tuple[int, str, str]]
CONFIG = Path(__file__).parents[2] / "configs" / "tune.yaml"
LR = {"optimizer.lr": {"low": 1e-3, "high": 1e-1, "log": True}}


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    own = {"output_dir": str(folder), "monitor": "val_loss", "save_last": True, "report": False}
    return {**deepcopy(TINY), **own, **changes}


def study_of(folder: Path) -> Any:
    import optuna

    # an address with the signs of the folder's name is read by new versions of SQLAlchemy only
    connect = partial(sqlite3.connect, folder / "study.db")
    storage = optuna.storages.RDBStorage("sqlite://", engine_kwargs={"creator": connect})
    return optuna.load_study(study_name="study", storage=storage)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The section of LIS2's pipeline as a grid of two trials; never write to it."""
    folder = tmp_path_factory.mktemp("tuned") / "which {rate}?"  # as in an address, or a template
    folder.mkdir()
    config = settings(folder, epochs=1)
    trainer = {key: config.pop(key) for key in ("optimizer", "epochs", "batch_size")}
    config["train_output_dir"] = config.pop("output_dir")
    grid = {"trainer": {"optimizer": {"lr": [1e-6, 0.05]}, "batch_size": [4]}}
    path = folder / "lis2.yaml"
    path.write_text(yaml.safe_dump({**config, "trainer": trainer, "gridsearch": grid}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lis2"])
        patch.setattr("lis2_lightning.report.run_pictures.draw_curves", lambda *_: None)
        patch.setattr("lis2_lightning.report.run_pictures.is_drawn", lambda _: False)
        assert main(["tune", "--config", str(path)]) == 0
    return folder / "tiny"


def test_lis2s_gridsearch_trains_each_combination_once(tuned: Path) -> None:
    with (tuned / "trials.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["optimizer.lr"], row["batch_size"]) for row in rows} == {
        ("1e-06", "4"),
        ("0.05", "4"),
    }
    assert (tuned / "study.png").stat().st_size > 10_000
    losses = [float(row["val_loss"]) for row in rows]
    assert losses == sorted(losses)
    for row in rows:
        own = json.loads((tuned / f"trial_{row['trial']}" / "result.json").read_text())["info"]
        assert own["best_loss"] == float(row["val_loss"])


@pytest.mark.usefixtures("no_pictures")
def test_the_best_configuration_trains_as_it_is_to_the_same_result(
    tuned: Path, tmp_path: Path, typed: Typed
) -> None:
    code, output, _ = typed(
        "fit", "--config", tuned / "best.yaml", "--output_dir", tmp_path, "--json"
    )
    assert code == 0
    best = min(study_of(tuned).trials, key=lambda trial: trial.value or 0.0)
    assert json.loads(output)["best_loss"] == best.value
    assert (tmp_path / "tiny_best" / "best.pt").is_file()


def test_a_finished_study_trains_nothing_and_another_space_is_refused(tuned: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tuned.rglob("*.pt")}
    trials = Tuning.from_config(tuned / "config.yaml", space=tuned / "space.yaml", grid=True).run()
    assert trials.table().splitlines()[0].split() == [
        "trial",
        "val_loss",
        "epochs",
        "batch_size",
        "optimizer.lr",
    ]
    assert {path: path.stat().st_mtime_ns for path in tuned.rglob("*.pt")} == before
    with pytest.raises(ConfigError, match="holds a study of another space, configuration or"):
        Tuning.from_config(tuned / "config.yaml", space=LR).run()


def test_a_pruned_trial_ends_as_a_whole_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import optuna

    monkeypatch.setattr("lis2_lightning.report.run_pictures.draw_curves", lambda *_: None)
    strict = optuna.pruners.ThresholdPruner(upper=0.0)
    monkeypatch.setattr("optuna.pruners.MedianPruner", lambda **_: strict)
    tuning = Tuning.from_config(settings(tmp_path), space=LR, trials=1)
    with pytest.raises(TrainingError, match="no trial came to an end: all were pruned"):
        tuning.run()
    (trial,) = study_of(tuning.folder).trials
    assert (trial.state.name, list(trial.intermediate_values)) == ("PRUNED", [0])
    own = tuning.folder / "trial_0"
    info = json.loads((own / "result.json").read_text())["info"]
    assert (info["epochs_run"], info["metrics_test"]) == (1, {})
    assert (own / "last.pt").is_file()
    assert not [*own.glob("test_results*"), *own.glob("prediction*")]  # neither tested nor mapped


@pytest.mark.slow
def test_a_trial_that_diverges_is_told_and_the_others_go_on(
    tmp_path: Path, networks: str, said: pytest.LogCaptureFixture
) -> None:
    space = {"model": [f"{networks}.Diverges"]}
    tuning = Tuning.from_config(settings(tmp_path), space=space, trials=2)
    with pytest.raises(TrainingError, match="no trial came to an end: the training loss became"):
        tuning.run()
    assert said.text.count("failed: the training loss became NaN") == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "space is missing: name the file of what is to vary with --space"),
        (["--space", "none.yaml"], "there is no configuration file none.yaml"),
        (["--space", "lr.yaml", "--monitor", "train_loss"], "set monitor to val_loss or val_dice"),
        (["--space", "lr.yaml", "--trials", "0"], "trials must be at least 1, not 0"),
        (["--space", "lr.yaml", "--trial", "30"], "trial must be from 0 to 29, not 30"),
        (["--space", "lr.yaml", "--folds", "2"], "folds must be at least 3"),
        (["--space", "lr.yaml", "--jobs", "0"], "jobs must be at least 1, not 0"),
        (["--space", "wrong.yaml"], "space: unknown key 'optimizer.rl'"),
        (["--space", "loss.yaml"], "space varies the loss, by which trials are compared"),
    ],
)
def test_mistakes_are_one_sentence_before_anything_is_written(
    tmp_path: Path,
    typed: Typed,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    spaces = {"lr": LR, "wrong": {"optimizer.rl": [0.1]}, "loss": {"loss": ["BCELoss"]}}
    for name, space in spaces.items():
        Path(f"{name}.yaml").write_text(yaml.safe_dump(space))
    Path("c.yaml").write_text(yaml.safe_dump(settings(tmp_path / "runs")))
    code, output, error = typed("tune", "--config", "c.yaml", *words)
    assert (code, output) == (2, "")
    assert sentence in error
    assert error.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_a_trial_on_all_folds_is_worth_their_mean(tmp_path: Path) -> None:
    tuning = Tuning.from_config(settings(tmp_path, epochs=1), space=LR, trials=1, num_folds=3)
    trials = tuning.run()
    bests = [
        json.loads((tuning.folder / "trial_0" / f"fold_{fold}" / "result.json").read_text())
        for fold in range(3)
    ]
    mean = sum(best["info"]["best_loss"] for best in bests) / 3
    assert trials.best.value == pytest.approx(mean, abs=1e-12)
    assert trials.best.epochs == 3


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_the_shipped_configuration_tunes(tmp_path: Path, typed: Typed) -> None:
    small = ["--data.height", "256", "--data.width", "256", "--epochs", "1", "--trials", "1"]
    quick = ["--num_workers", "0", "--output_dir", str(tmp_path)]
    code, output, error = typed("tune", "--config", CONFIG, *small, *quick)
    assert code == 0, error
    assert output.splitlines()[0].startswith("trial  val_loss")
    assert (tmp_path / "tune" / "best.yaml").is_file()


@pytest.mark.slow
def test_a_killed_study_goes_on_with_two_jobs_and_has_each_trial_once(tmp_path: Path) -> None:
    config = tmp_path / "tune.yaml"
    changes = {"space": LR, "trials": 2, "epochs": 4}
    config.write_text(yaml.safe_dump(settings(tmp_path, **changes)), encoding="utf-8")
    folder = tmp_path / "tiny"
    process = started("tune", config)
    kill_once_there(process, folder / "trial_0" / "last.pt")  # in the first trial
    (dead,) = study_of(folder).trials
    assert dead.state.name == "RUNNING"
    again = started("tune", config, "--jobs", "2")
    output, error = again.communicate()
    assert again.returncode == 0, error
    assert len(output.splitlines()) == 4  # two trials between the head and what to do next
    trials = study_of(folder).trials
    over = {trial.user_attrs["trial"]: trial for trial in trials if trial.state.is_finished()}
    assert [t.state.name for t in trials].count("FAIL") == 1
    assert len(trials) == 3
    assert set(over) == {0, 1}
    assert over[0].params == dead.params
    assert sorted(over[0].intermediate_values) == [0, 1, 2, 3]
    assert "resuming from" in (folder / "trial_0.log").read_text()
    first, second = sorted(over.values(), key=lambda t: t.datetime_start)
    assert second.datetime_start < first.datetime_complete  # side by side


def test_the_shipped_files_are_understood_in_python(tmp_path: Path) -> None:
    tuning = Tuning.from_config(CONFIG, output_dir=str(tmp_path))
    assert set(tuning.space.keys) == set(yaml.safe_load(CONFIG.read_text())["space"])
    folds = CONFIG.with_name("cross_validate.yaml")
    assert CrossValidation.from_config(folds, output_dir=str(tmp_path)).num_folds == 5
    config = {**yaml.safe_load(folds.read_text()), "folds": {"train": [0]}}
    with pytest.raises(ConfigError, match="folds must be a whole number, got"):
        CrossValidation.from_config(config)
