"""What an epoch's row says, when snapshots are written, and when a run ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from lis2_lightning import ConfigError, Trainer, TrainingError
from lis2_lightning.callbacks import LossEarlyStopping
from lis2_lightning.snapshots import read_snapshot

pytestmark = pytest.mark.usefixtures("no_pictures")
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
Log = Callable[[Path], list[dict[str, float]]]


class Samples(Dataset[dict[str, Tensor]]):
    """Samples with very different numbers of labelled pixels; the sample of index 0 has none."""

    def __init__(self, num: int = 7, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.samples = []
        for index in range(num):
            patch = rng.random((1, 8, 8), dtype=np.float32)
            known = rng.random((1, 8, 8)) < (index / num) ** 3
            sample = {"patch": patch, "target": (patch > 0.7).astype(np.float32), "labelled": known}
            self.samples.append({key: torch.from_numpy(value) for key, value in sample.items()})

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.samples[index]


class Net(nn.Sequential):
    """A network without batch statistics."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 1, 1), nn.Sigmoid())


def build(folder: Path, **changes: Any) -> Trainer:
    """A trainer of objects, quick and with one seed for its weights."""
    torch.manual_seed(5)
    arguments: dict[str, Any] = {
        "model": Net(),
        "train_dataset": Samples(),
        "val_dataset": Samples(5, seed=1),
        "optimizer": partial(torch.optim.SGD, lr=0.5),
        "loss": nn.BCELoss(),
        "epochs": 3,
        "batch_size": 2,
        "num_workers": 0,
        "seed": 2,
        "lightning": QUIET,
    }
    return Trainer(folder, "run", **{**arguments, **changes})


class Recorder(pl.Callback):
    """Keeps each training batch, and the network as it was when the batch came."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, nn.Module, dict[str, Tensor]]] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        network = deepcopy(pl_module.model)
        assert isinstance(network, nn.Module)
        self.seen.append((trainer.current_epoch, network, batch))


def by_hand(pairs: Sequence[tuple[nn.Module, Mapping[str, Tensor]]]) -> float:
    """The cross-entropy over labelled pixels, one pixel after the other, divided once."""
    values = []
    for network, batch in pairs:
        with torch.no_grad():
            probs = network(batch["patch"])
        for p, t, known in zip(
            probs.flatten().tolist(),
            batch["target"].flatten().tolist(),
            batch["labelled"].flatten().tolist(),
            strict=True,
        ):
            if known:
                values.append(-math.log(p) if t == 1 else -math.log(1 - p))
    return math.fsum(values) / len(values)


def test_the_logged_losses_are_means_over_labelled_pixels_not_means_of_batch_means(
    tmp_path: Path, read_log: Log
) -> None:
    recorder = Recorder()
    trainer = build(tmp_path, epochs=1, lightning={**QUIET, "callbacks": [recorder]})
    trainer.train()
    [row] = read_log(tmp_path / "run" / "logs_train.csv")
    pairs = [(network, batch) for _, network, batch in recorder.seen]
    assert len(pairs) == 4
    assert row["train_loss"] == pytest.approx(by_hand(pairs), rel=1e-6)
    means = [by_hand([pair]) for pair in pairs if pair[1]["labelled"].any()]
    assert row["train_loss"] != pytest.approx(np.mean(means), rel=1e-3)

    val = [(trainer.model, sample) for sample in Samples(5, seed=1).samples]
    assert row["val_loss"] == pytest.approx(by_hand(val), rel=1e-6)


def test_the_returned_losses_are_those_of_the_log(tmp_path: Path, read_log: Log) -> None:
    info = build(tmp_path).train()
    rows = read_log(tmp_path / "run" / "logs_train.csv")
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert info["metrics_train"]["loss"] == rows[-1]["train_loss"]
    assert info["metrics_val"]["loss"] == rows[-1]["val_loss"]
    assert info["best_loss"] == pytest.approx(min(row["train_loss"] for row in rows), rel=1e-6)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]


def test_a_batch_with_no_labelled_pixel_leaves_no_nan(tmp_path: Path, read_log: Log) -> None:
    trainer = build(tmp_path, batch_size=1, epochs=2)  # the sample of index 0 is such a batch
    trainer.train()
    assert all(bool(p.isfinite().all()) for p in trainer.model.parameters())
    rows = read_log(tmp_path / "run" / "logs_train.csv")
    assert all(math.isfinite(row["train_loss"]) for row in rows)


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_lr_is_the_rate_that_the_epoch_was_trained_with(
    tmp_path: Path, read_log: Log, interval: str
) -> None:
    scheduler = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    build(tmp_path, scheduler=scheduler, scheduler_interval=interval).train()
    rows = read_log(tmp_path / "run" / "logs_train.csv")
    steps = 1 if interval == "epoch" else 4
    expected = [0.5, 0.5 * 0.5**steps, 0.5 * 0.5 ** (2 * steps)]
    assert [row["lr"] for row in rows] == pytest.approx(expected)


def test_reduce_on_plateau_without_validation_sees_the_training_loss(
    tmp_path: Path, read_log: Log
) -> None:
    scheduler = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, factor=0.1)
    rises = {"optimizer": partial(torch.optim.SGD, lr=0.5, maximize=True), "val_dataset": None}
    build(tmp_path, scheduler=scheduler, **rises).train()
    rows = read_log(tmp_path / "run" / "logs_train.csv")
    assert rows[1]["train_loss"] > rows[0]["train_loss"]
    assert [row["lr"] for row in rows] == pytest.approx([0.5, 0.5, 0.05])


def test_without_validation_the_early_stopper_sees_the_training_loss(tmp_path: Path) -> None:
    stopper = LossEarlyStopping(patience=2)
    frozen = partial(torch.optim.SGD, lr=0.0)  # the training loss stays as it is
    trainer = build(
        tmp_path, epochs=9, val_dataset=None, early_stopper=stopper, optimizer=frozen, metrics=[]
    )
    assert trainer.train()["epochs_run"] == 3


@pytest.mark.parametrize(
    ("save_interval", "saved"), [(0, []), (1, [1, 2, 3, 4]), (2, [2, 4]), (3, [3]), (9, [])]
)
def test_save_interval_counts_from_0_and_saves_nothing_at_0(
    tmp_path: Path, save_interval: int, saved: list[int]
) -> None:
    info = build(tmp_path, epochs=5, save_interval=save_interval).train()
    files = {path.name for path in (tmp_path / "run").glob("*.pt")}
    assert files == {"best.pt", *(f"save_{epoch}.pt" for epoch in saved)}
    assert info["last_model_path"] is None
    for epoch in saved:
        snapshot = read_snapshot(tmp_path / "run" / f"save_{epoch}.pt")
        assert snapshot["TRAIN_INFO"]["EPOCHS_RUN"] == epoch


def test_a_monitor_that_nobody_logs_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"monitor 'val_los' is not logged: .*'val_loss'"):
        build(tmp_path, monitor="val_los").train()


def test_a_nan_loss_stops_the_run_and_leaves_earlier_files_whole(
    tmp_path: Path, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    class Breaks(pl.Callback):
        kept: Mapping[str, bytes] = {}

        def on_train_batch_start(
            self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
        ) -> None:
            if (trainer.current_epoch, batch_idx) == (2, 1):
                self.kept = contents(tmp_path / "run")
                batch["patch"].fill_(math.nan)

    breaks = Breaks()
    lightning = {**QUIET, "callbacks": [breaks]}
    every = {"epochs": 4, "save_last": True, "save_interval": 1}
    trainer = build(tmp_path, train_dataset=Labelled(), lightning=lightning, **every)
    with pytest.raises(TrainingError, match="epoch 2, step 1"):
        trainer.train()
    assert breaks.kept
    earlier, left = dict(breaks.kept), contents(tmp_path / "run")
    assert left.pop("events.jsonl").startswith(earlier.pop("events.jsonl"))  # why is added
    assert left == earlier
    assert read_snapshot(tmp_path / "run" / "last.pt")["TRAIN_INFO"]["EPOCHS_RUN"] == 1


class Labelled(Samples):
    """The same with every pixel labelled."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {key: self.samples[index][key].clone() for key in ("patch", "target")}
