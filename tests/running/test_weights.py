"""A new run starts from the weights of another one, and one line says what was taken."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from lis2_lightning import SnapshotError, Trainer, UNet
from lis2_lightning.snapshots import read_snapshot, write_snapshot

pytestmark = pytest.mark.usefixtures("no_pictures")
Make = Callable[..., dict[str, Any]]
Lines = Callable[[], list[str]]
Finished = tuple[Path, dict[str, Any]]
Log = Callable[[Path], list[dict[str, float]]]
SMALL: dict[str, Any] = {"features": 2, "num_blocks": 1}


class AtStart(pl.Callback):
    """The weights and the epoch that training starts with."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        network: Any = pl_module.model
        self.weights = {name: value.clone() for name, value in network.state_dict().items()}
        self.place = trainer.current_epoch, trainer.global_step, len(trainer.optimizers[0].state)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """What is reported of the weights; a line may be caught twice."""
    logger = logging.getLogger("lis2_lightning")
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, "lis2_lightning")
    yield lambda: list(
        dict.fromkeys(line for line in caplog.messages if line.startswith("starting from"))
    )
    logger.removeHandler(caplog.handler)


def started(config: dict[str, Any]) -> AtStart:
    """Train, and note what training starts with."""
    trainer, start = Trainer.from_config(config), AtStart()
    trainer.lightning.callbacks.append(start)  # type: ignore[attr-defined]  # set by Lightning
    trainer.train()
    return start


class Task(pl.LightningModule):
    """Somebody else's module, with a network inside."""

    def __init__(self) -> None:
        super().__init__()
        self.net = UNet(**SMALL)
        self.save_hyperparameters({"depth": 1})


def lightning_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    task = Task()
    trainer.strategy.connect(task)
    trainer.save_checkpoint(path)
    return task.net.state_dict()


def state_dict(path: Path, prefix: str = "") -> dict[str, torch.Tensor]:
    state = UNet(**SMALL).state_dict()
    torch.save({f"{prefix}{name}": value for name, value in state.items()}, path)
    return state


def training_loop(path: Path) -> dict[str, torch.Tensor]:
    state = UNet(**SMALL).state_dict()
    torch.save({"epoch": 3, "model_state_dict": state, "optimizer_state_dict": {}}, path)
    return state


def lis2_snapshot(path: Path) -> dict[str, torch.Tensor]:
    state = UNet(**SMALL).state_dict()
    info = {"EPOCHS_RUN": 4, "BEST_LOSS": 0.5, "OPTIMIZER_STATE": None, "SCHEDULER_STATE": None}
    stored = {f"module.{name}": value for name, value in state.items()}
    model = {"MODEL_CONFIG": {"type": "unet"}, "MODEL_STATE": stored}
    torch.save({"MODEL": model, "TRAIN_INFO": info, "GLOBAL_CONFIG": {"epoch": 5}}, path)
    return state


KINDS: dict[str, Callable[[Path], dict[str, torch.Tensor]]] = {
    "a state dict": state_dict,
    "of a network inside DDP": lambda path: state_dict(path, "module."),
    "a snapshot of LIS2's": lis2_snapshot,
    "a checkpoint of Lightning's": lightning_checkpoint,
    "a checkpoint of a training loop": training_loop,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_run_starts_from_the_weights_of_any_file(
    tiny: Make, tmp_path: Path, lines: Lines, kind: str
) -> None:
    path = tmp_path / "theirs.pt"
    state = KINDS[kind](path)
    start = started(tiny(epochs=1, weights=str(path), save_last=True))
    assert start.place == (0, 0, 0)
    assert all(torch.equal(value, start.weights[name]) for name, value in state.items())
    assert lines() == [f"starting from {len(state)} of {len(state)} tensors of {path}"]


def test_a_new_run_from_our_snapshot_has_a_best_value_of_its_own(
    tiny: Make, tmp_path: Path, finished: Finished, read_log: Log
) -> None:
    snapshot = read_snapshot(finished[0] / "last.pt")
    snapshot["LIGHTNING"]["checkpoint"]["callbacks"]["BestSnapshot"]["best_loss"] = 0.0
    write_snapshot(snapshot, tmp_path / "hard_to_beat.pt")
    start = started(tiny(epochs=1, weights=str(tmp_path / "hard_to_beat.pt")))
    stored = snapshot["MODEL"]["MODEL_STATE"]
    assert all(torch.equal(value, start.weights[name]) for name, value in stored.items())
    (row,) = read_log(tmp_path / "runs/tiny/logs_train.csv")
    info = read_snapshot(tmp_path / "runs/tiny/best.pt")["TRAIN_INFO"]
    assert (info["EPOCHS_RUN"], info["BEST_LOSS"]) == (0, row["train_loss"])


def test_what_is_not_taken_is_named(tiny: Make, tmp_path: Path, lines: Lines) -> None:
    state = UNet(**SMALL).state_dict()
    names = list(state)
    state[f"model.{names[0]}"] = torch.zeros(7)
    del state[names[1]]
    state["extra.weight"] = torch.zeros(1)
    state[names[2]] = torch.zeros(5)
    torch.save(state, tmp_path / "part.pt")
    start = started(tiny(epochs=1, weights=str(tmp_path / "part.pt")))
    assert torch.equal(start.weights[names[0]], state[names[0]])
    (line,) = lines()
    assert f"{len(names) - 2} of {len(names)} tensors" in line
    assert f"missing: {names[1]};" in line
    assert f"not in the network: model.{names[0]}, extra.weight;" in line
    assert f"of another shape: {names[2]} ([5], in the network " in line


def test_a_run_that_is_resumed_ignores_the_weights(tiny: Make, tmp_path: Path) -> None:
    path = tmp_path / "theirs.pt"
    state_dict(path)
    config = tiny(epochs=1, weights=str(path), resume="auto", save_last=True)
    started(config)
    last = read_snapshot(tmp_path / "runs/tiny/last.pt")["MODEL"]["MODEL_STATE"]
    path.unlink()  # it is not needed any more
    start = started({**config, "epochs": 2})
    assert start.place[0] == 1
    assert all(torch.equal(value, start.weights[name]) for name, value in last.items())


def test_they_count_for_whatever_runs_before_training(tiny: Make, tmp_path: Path) -> None:
    path = tmp_path / "theirs.pt"
    state = state_dict(path)
    trainer = Trainer.from_config(tiny(weights=str(path)))
    trainer.validate(None)
    own = trainer.model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in state.items())


class Net(nn.Sequential):
    """Saved whole, it would have to be executed."""


FILES: dict[str, tuple[Any, str]] = {
    "no tensor of the network": ({"other": torch.zeros(3)}, "no tensor of .* fits the network: "),
    "no tensors": ({"epoch": 3}, "holds no weights: it must be a snapshot or a state dict"),
    "a network": (Net(nn.Linear(1, 1)), r"read safely: .*test_weights.Net.*state_dict"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_without_weights_is_refused_before_anything_is_trained(
    tiny: Make, tmp_path: Path, kind: str
) -> None:
    content, sentence = FILES[kind]
    torch.save(content, tmp_path / "theirs.pt")
    trainer = Trainer.from_config(tiny(weights=str(tmp_path / "theirs.pt")))
    with pytest.raises(SnapshotError, match=sentence):
        trainer.train()
    assert not (tmp_path / "runs/tiny/logs_train.csv").exists()
