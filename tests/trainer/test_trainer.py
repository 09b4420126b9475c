"""The facade: what it takes, what it leaves in the run's folder, what it returns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.utils.data import Dataset

from lis2_lightning import ConfigError, SegmentationData, SegmentationModule, Trainer, UNet
from lis2_lightning.data import synthetic_maps
from lis2_lightning.snapshots import read_snapshot

Make = Callable[..., dict[str, Any]]
Finished = tuple[Path, dict[str, Any]]
Log = Callable[[Path], list[dict[str, float]]]
METRICS = ("average_precision", "dice", "roc_auc")
OF_MAP = {f"map_{name}" for name in METRICS}
KEYS = (
    "best_loss",
    "epochs_run",
    "run_name",
    "output_dir",
    "final_model_path",
    "last_model_path",
    "metrics_train",
    "metrics_val",
    "metrics_test",
)


class Samples(Dataset[dict[str, Tensor]]):
    """A user's own data set, without ``labelled``: every pixel counts."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        patch = torch.rand((1, 16, 16), generator=torch.Generator().manual_seed(index))
        return {"patch": patch, "target": (patch > 0.6).float()}


def test_a_run_leaves_every_file_and_no_other(finished: Finished) -> None:
    folder, _ = finished
    assert {path.name for path in folder.iterdir()} == {
        ".lock",
        "best.pt",
        "config.yaml",
        "curves.png",
        "environment.json",
        "events.jsonl",
        "last.pt",
        "logs_train.csv",
        "prediction.npy",
        "prediction.png",
        "report.html",
        "report_map.npz",
        "result.json",
        "save_2.pt",
        "save_4.pt",
        "test_results.csv",
        "test_results.npz",
    }


def test_the_returned_mapping_has_the_documented_keys_and_plain_values(finished: Finished) -> None:
    folder, info = finished
    assert tuple(info) == KEYS
    assert json.loads(json.dumps(info)) == info
    assert type(info["best_loss"]) is float
    assert (info["run_name"], info["output_dir"]) == ("tiny", str(folder.parent))
    assert info["epochs_run"] == 5
    assert info["final_model_path"] == str(folder / "best.pt")
    assert info["last_model_path"] == str(folder / "last.pt")
    of_test = OF_MAP | {"val_threshold", "dice_at_val_threshold"}
    for split, more in (("train", set()), ("val", set()), ("test", of_test)):
        assert set(info[f"metrics_{split}"]) == {"loss", *METRICS, *more}


def test_the_log_has_a_row_an_epoch_in_the_documented_order(
    finished: Finished, read_log: Log
) -> None:
    folder, info = finished
    rows = read_log(folder / "logs_train.csv")
    scores = [f"{split}_{name}" for split in ("train", "val") for name in METRICS]
    assert list(rows[0]) == ["epoch", "train_loss", "val_loss", "lr", *scores]
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3, 4]
    assert {row["lr"] for row in rows} == {0.02}
    assert {name: rows[-1][f"val_{name}"] for name in ("loss", *METRICS)} == info["metrics_val"]


def test_test_results_have_a_row_a_batch_and_their_mean_is_the_test_loss(
    finished: Finished, read_log: Log
) -> None:
    folder, info = finished
    rows = read_log(folder / "test_results.csv")
    assert list(rows[0]) == ["batch", "loss", *METRICS]
    trainer = Trainer.from_snapshot(folder / "best.pt")
    batches = list(trainer.data.test_dataloader())
    assert [row["batch"] for row in rows] == list(range(len(batches)))
    counts = [int(batch["labelled"].sum()) for batch in batches]
    total = math.fsum(row["loss"] * n for row, n in zip(rows, counts, strict=True) if n)
    assert info["metrics_test"]["loss"] == pytest.approx(total / sum(counts), rel=1e-6)


def test_the_stored_configuration_loads_back_to_itself(finished: Finished) -> None:
    folder, _ = finished
    stored = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    trainer = Trainer.from_config(folder / "config.yaml")
    assert trainer.global_config.to_dict() == stored
    assert stored["epochs"] == 5
    assert stored["optimizer"]["init_args"]["lr"] == 0.02
    assert read_snapshot(folder / "last.pt")["GLOBAL_CONFIG"] == stored


def test_the_environment_is_recorded(finished: Finished) -> None:
    environment = json.loads((finished[0] / "environment.json").read_text(encoding="utf-8"))
    # a build has a suffix, such as +cu124, that its package may not have
    assert torch.__version__.startswith(environment["packages"]["torch"])
    assert {"command", "python", "cores", "git_commit", "world_size"} <= set(environment)


def test_the_snapshots_are_those_of_their_epochs(finished: Finished, read_log: Log) -> None:
    folder, info = finished
    losses = [row["train_loss"] for row in read_log(folder / "logs_train.csv")]
    for name, epoch in (
        ("save_2", 2),
        ("save_4", 4),
        ("last", 4),
        ("best", int(np.argmin(losses))),
    ):
        train_info = read_snapshot(folder / f"{name}.pt")["TRAIN_INFO"]
        assert train_info["EPOCHS_RUN"] == epoch
        assert train_info["BEST_LOSS"] == pytest.approx(min(losses[: epoch + 1]), rel=1e-6)
    assert info["best_loss"] == pytest.approx(min(losses), rel=1e-6)


def test_pictures_are_pictures(finished: Finished) -> None:
    for name in ("curves.png", "prediction.png"):
        written = (finished[0] / name).read_bytes()
        assert written.startswith(b"\x89PNG")
        assert len(written) > 5_000


def test_the_map_of_the_run_is_that_of_its_best_snapshot(finished: Finished) -> None:
    folder, _ = finished
    written = np.load(folder / "prediction.npy")
    assert written.shape == (128, 128)
    seen = np.isfinite(synthetic_maps(128, 128, seed=3, difficulty="easy").image)
    np.testing.assert_array_equal(np.isfinite(written), seen)
    assert 0 <= written[seen].min() < written[seen].max() <= 1


@pytest.mark.usefixtures("no_pictures")
def test_a_trainer_of_objects_trains(tmp_path: Path) -> None:
    trainer = Trainer(
        output_dir=tmp_path,
        run_name="mine",
        model=UNet(features=2, num_blocks=1),
        train_dataset=Samples(),
        val_dataset=Samples(),
        optimizer=partial(torch.optim.AdamW, lr=1e-3),
        epochs=1,
        lightning={"enable_progress_bar": False, "accelerator": "cpu"},
    )
    info = trainer.train()
    assert tuple(info) == KEYS
    assert info["metrics_test"] == pytest.approx(info["metrics_val"])  # no test set of its own
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    stored = yaml.safe_load((tmp_path / "mine/config.yaml").read_text(encoding="utf-8"))
    assert stored["optimizer"] == {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}}


@pytest.mark.usefixtures("no_pictures")
def test_objects_and_a_configuration_give_the_same_run(tiny: Make, tmp_path: Path) -> None:
    config = tiny(epochs=1)
    torch.manual_seed(9)
    weights = UNet(features=2, num_blocks=1).state_dict()
    runs = []
    for name in ("mapping", "objects"):
        built = Trainer.from_config(config, run_name=name)
        if name == "objects":
            built = Trainer(
                tmp_path / "runs",
                name,
                model=built.model,
                train_dataset=built.data.train,
                val_dataset=built.data.val,
                test_dataset=built.data.test,
                optimizer=partial(torch.optim.Adam, lr=0.01),
                loss=nn.BCELoss(),
                **{key: config[key] for key in ("epochs", "batch_size", "num_workers", "seed")},
                lightning=config["lightning"],
            )
        built.model.load_state_dict(weights)
        runs.append(built.train())
    assert runs[0]["metrics_train"] == runs[1]["metrics_train"]
    assert runs[0]["metrics_test"] == runs[1]["metrics_test"]


@pytest.mark.usefixtures("no_pictures")
def test_without_a_validation_set_nothing_is_validated(tiny: Make, tmp_path: Path) -> None:
    trainer = Trainer.from_config(tiny(val_dataset=None, early_stopper=True))
    info = trainer.train()
    assert info["metrics_val"] == {}
    assert set(info["metrics_test"]) == {"loss", *METRICS, *OF_MAP}
    header = (tmp_path / "runs/tiny/logs_train.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header.startswith("epoch,train_loss,val_loss,lr,")
    with pytest.raises(ConfigError, match="val_dataset"):
        trainer.validate()


@pytest.mark.usefixtures("no_pictures")
def test_without_a_test_set_the_validation_set_is_scored(tiny: Make) -> None:
    trainer = Trainer.from_config(tiny(test_dataset=None, validate_on="map"))
    info = trainer.train()
    scores = {key.removeprefix("val_"): value for key, value in trainer.validate().items()}
    assert info["metrics_test"] == pytest.approx(scores)


@pytest.mark.usefixtures("no_pictures")
def test_with_a_training_set_alone_there_is_nothing_to_test_on(tiny: Make, tmp_path: Path) -> None:
    trainer = Trainer.from_config(tiny(val_dataset=None, test_dataset=None))
    assert trainer.train()["metrics_test"] == {}
    assert not (tmp_path / "runs/tiny/test_results.csv").exists()
    with pytest.raises(ConfigError, match="test_dataset"):
        trainer.test()


@pytest.mark.usefixtures("no_pictures")
def test_the_best_snapshot_is_scored_and_not_the_last(tiny: Make, tmp_path: Path) -> None:
    trainer = Trainer.from_config(
        tiny(epochs=3, save_last=True, mode="max")  # the first epoch has the largest loss
    )
    info = trainer.train()
    best = read_snapshot(tmp_path / "runs/tiny/best.pt")
    assert best["TRAIN_INFO"]["EPOCHS_RUN"] == 0  # or this test shows nothing
    loss = info["metrics_test"]["loss"]
    assert trainer.test("best")["test_loss"] == pytest.approx(loss)
    assert trainer.test("last")["test_loss"] != pytest.approx(loss)
    assert trainer.get_final_info() == info  # testing another one changes nothing of the run
    assert trainer.epochs_run == 3


def test_what_was_given_and_what_was_built_are_apart(tiny: Make) -> None:
    trainer = Trainer.from_config(tiny())
    assert trainer.config["model"] == {"type": "unet", "features": 2, "num_blocks": 1}
    assert trainer.global_config["model"]["class_path"] == "lis2_lightning.models.UNet"
    assert trainer.global_config.to_dict()["save_interval"] == 10
    assert isinstance(trainer.module, SegmentationModule)
    assert isinstance(trainer.data, SegmentationData)
    assert isinstance(trainer.lightning, pl.Trainer)
    assert isinstance(trainer.model, UNet)
    assert (trainer.optimizer, trainer.scheduler, trainer.early_stopper) == (None, None, None)
    assert trainer.tracker[0].name == "csv"
    assert (trainer.epochs_run, trainer.best_loss) == (0, math.inf)


def test_a_configuration_is_not_changed_by_its_use(tiny: Make) -> None:
    config = tiny()
    before = json.dumps(config)
    Trainer.from_config(config, epochs=7, **{"optimizer.lr": 0.5})
    assert json.dumps(config) == before


def test_the_plan_tells_of_every_key_and_of_lightnings(
    tiny: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = Trainer.from_config(tiny(batch_size=17))
    plan = trainer.plan()
    assert capsys.readouterr().out == f"{plan}\n"
    named = [line.split()[0] for line in plan.splitlines()]
    assert set(trainer.global_config) - {"lightning"} <= set(named)
    assert "batch_size=17" in plan
    assert "lightning.accelerator" in named
    assert "lis2_lightning.models.UNet(" in plan


@pytest.mark.usefixtures("no_pictures")
def test_the_real_maps_train_in_a_small_folder(
    tmp_path: Path, lis2_sample: Path, monkeypatch: pytest.MonkeyPatch, read_log: Log
) -> None:
    config = Path(__file__).parents[2] / "configs/fits.yaml"
    (tmp_path / "maps").symlink_to(lis2_sample)  # what a user does with LIS2's own maps
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs/fits"
    Trainer.from_config(config, epochs=3).train()
    losses = [row["train_loss"] for row in read_log(folder / "logs_train.csv")]
    assert losses[2] < losses[1] < losses[0]
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert size < 60e6
