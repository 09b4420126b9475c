"""Snapshots inside an epoch: asked for every few steps or minutes, and where a limit ends a run."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from lis2_lightning import ConfigError, Trainer, TrainingError
from lis2_lightning.snapshots import read_snapshot
from lis2_lightning.training.scores import Scores

pytestmark = pytest.mark.usefixtures("no_pictures")
Make = Callable[..., dict[str, Any]]
NUM_BATCHES = 7


class Watches(pl.Callback):
    """Notes where ``last.pt`` stands before each batch, and crashes at one."""

    def __init__(self, folder: Path, crash_at: tuple[int, int] | None = None) -> None:
        self.path = folder / "last.pt"
        self.crash_at = crash_at
        self.positions: list[tuple[int, int]] = []
        self.batches: Counter[tuple[int, int]] = Counter()

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:
        self.batches[trainer.current_epoch, args[-1]] += 1
        if self.path.is_file():
            position = read_snapshot(self.path)["LIGHTNING"]
            self.positions.append((position["next_epoch"], position["next_batch"]))
        if (trainer.current_epoch, args[-1]) == self.crash_at:
            raise MemoryError


def watched(config: dict[str, Any], folder: Path, **options: Any) -> tuple[Trainer, Watches]:
    """A trainer with a watcher."""
    trainer, watches = Trainer.from_config(config), Watches(folder, **options)
    trainer.lightning.callbacks.insert(0, watches)  # type: ignore[attr-defined]
    return trainer, watches


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The network's weights in a snapshot."""
    state: dict[str, torch.Tensor] = read_snapshot(path)["MODEL"]["MODEL_STATE"]
    return state


def assert_same_run(folder: Path, other: Path) -> None:
    """Two run folders agree in the best weights and in every row."""
    first, second = weights(folder / "best.pt"), weights(other / "best.pt")
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name in ("logs_train.csv", "test_results.csv"):
        assert (folder / name).read_text() == (other / name).read_text()


def test_last_pt_is_written_every_n_steps_and_a_crash_costs_no_more(
    tiny: Make, tmp_path: Path
) -> None:
    config = tiny(batch_size=2, save_every_n_steps=3)
    whole, seen = watched({**config, "run_name": "whole"}, tmp_path / "runs/whole")
    whole.train()
    every_third = [(0, 0), (0, 3), (0, 6), (1, 2), (1, 5)]
    assert list(dict.fromkeys([(0, 0), *seen.positions])) == every_third

    crashing, _ = watched(config, tmp_path / "runs/tiny", crash_at=(1, 4))
    with pytest.raises(MemoryError):
        crashing.train()
    going_on, after = watched({**config, "resume": "auto"}, tmp_path / "runs/tiny")
    going_on.train()
    assert sorted(after.batches) == [(1, batch) for batch in range(2, NUM_BATCHES)]
    assert_same_run(tmp_path / "runs/tiny", tmp_path / "runs/whole")
    assert read_snapshot(tmp_path / "runs/tiny/last.pt")["LIGHTNING"]["next_epoch"] == 2


def test_an_epoch_whose_scores_another_version_has_counted_begins_again(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own = Scores.sums

    def in_fewer_bins(self: Scores) -> dict[str, dict[str, Any]]:
        return {
            name: {
                key: v[:, ::8] if key == "sums" and v.ndim == 2 else v for key, v in state.items()
            }
            for name, state in own(self).items()
        }

    config = tiny(batch_size=2, save_every_n_steps=3)
    crashing, _ = watched(config, tmp_path / "runs/tiny", crash_at=(1, 4))
    monkeypatch.setattr(Scores, "sums", in_fewer_bins)
    with pytest.raises(MemoryError):
        crashing.train()
    monkeypatch.setattr(Scores, "sums", own)
    going_on, after = watched({**config, "resume": "auto"}, tmp_path / "runs/tiny")
    with caplog.at_level(logging.WARNING):
        going_on.train()
    assert "by another version, which counted scores differently: restarting" in caplog.text
    assert sorted(after.batches) == [(1, batch) for batch in range(NUM_BATCHES)]


def test_last_pt_is_written_every_few_minutes(tiny: Make, tmp_path: Path) -> None:
    # an instant has always passed, an hour never
    often, seen = watched(tiny(run_name="often", save_every_minutes=1e-9), tmp_path / "runs/often")
    often.train()
    assert list(dict.fromkeys(seen.positions)) == [
        (0, 1),
        (0, 2),
        (0, 3),
        (1, 0),
        (1, 1),
        (1, 2),
        (1, 3),
    ]
    seldom, seen = watched(tiny(run_name="seldom", save_every_minutes=60), tmp_path / "runs/seldom")
    seldom.train()
    assert seen.positions == []


def test_snapshots_inside_an_epoch_wait_for_the_accumulated_step(
    tiny: Make, tmp_path: Path
) -> None:
    config = tiny(batch_size=2, save_every_n_steps=1)
    config["lightning"] = {**config["lightning"], "accumulate_grad_batches": 3}
    trainer, seen = watched(config, tmp_path / "runs/tiny")
    trainer.train()
    assert set(seen.positions) == {(0, 3), (0, 6), (1, 0), (1, 3), (1, 6)}


@pytest.mark.parametrize("limit", [{"max_steps": 10}, {"max_time": timedelta(seconds=0)}])
def test_a_run_that_a_limit_ended_inside_an_epoch_goes_on_there(
    tiny: Make, networks: str, tmp_path: Path, limit: dict[str, Any]
) -> None:
    config = tiny(model={"class_path": f"{networks}.Droppy"}, batch_size=2, early_stopper=True)
    Trainer.from_config(config, run_name="whole").train()
    lightning = config["lightning"]
    short = Trainer.from_config(config, lightning={**lightning, **limit})
    info = short.train()
    done = int(short.lightning.global_step)
    assert info["epochs_run"] == done // NUM_BATCHES

    longer, seen = watched(
        {**config, "resume": "auto", "lightning": {**lightning, "max_time": None}},
        tmp_path / "runs/tiny",
    )
    longer.train()
    every = [(epoch, batch) for epoch in range(2) for batch in range(NUM_BATCHES)]
    assert sorted(seen.batches) == every[done:]
    assert_same_run(tmp_path / "runs/tiny", tmp_path / "runs/whole")


def test_a_network_with_a_bad_weight_is_not_written_inside_an_epoch_either(
    tiny: Make, tmp_path: Path
) -> None:
    class Breaks(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:
            if args[-1] == 3:
                next(module.parameters()).data.fill_(float("inf"))

    config = tiny(batch_size=2, save_every_n_steps=2)
    trainer = Trainer.from_config(config)
    trainer.lightning.callbacks.insert(0, Breaks())  # type: ignore[attr-defined]
    with pytest.raises(TrainingError, match="weight became NaN or infinite in epoch 0"):
        trainer.train()
    assert read_snapshot(tmp_path / "runs/tiny/last.pt")["LIGHTNING"]["next_batch"] == 2


@pytest.mark.parametrize(
    ("key", "value"), [("save_every_n_steps", 0), ("save_every_minutes", -1.0)]
)
def test_an_interval_that_is_none_is_refused(tiny: Make, key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{key} must be .*got {value}"):
        Trainer.from_config(tiny(**{key: value}))


def test_a_second_train_after_a_limit_says_that_it_trains_nothing(
    tiny: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("lis2_lightning"), "propagate", True)
    lightning = {**tiny()["lightning"], "max_steps": 3}
    trainer = Trainer.from_config(tiny(lightning=lightning))
    info = trainer.train()
    caplog.clear()

    assert trainer.train() == info

    (message,) = caplog.messages
    assert message.startswith(
        "nothing is trained now: this trainer has a result after 0 of 2 epochs, which is returned"
    )
    assert "build another one with resume: auto to continue" in message
