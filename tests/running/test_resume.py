"""A run that is taken up again is the run that was never interrupted; one that is over stays so."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from lis2_lightning import ConfigError, SnapshotError, Trainer
from lis2_lightning.snapshots import read_snapshot
from tests.running.equality import same

pytestmark = pytest.mark.usefixtures("no_pictures")
Make = Callable[..., dict[str, Any]]
Contents = Callable[[Path], dict[str, bytes]]

SCHEDULERS = {
    "none": None,
    "StepLR": {"type": "StepLR", "step_size": 1, "gamma": 0.7},
    "ReduceLROnPlateau": {"type": "ReduceLROnPlateau", "patience": 0, "threshold": 1.0},
    "MultiStepLR": {"type": "MultiStepLR", "milestones": [1, 3]},
}


class CountsBatches(pl.Callback):
    """Counts the training batches of each epoch."""

    def __init__(self) -> None:
        self.batches: Counter[int] = Counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self.batches[trainer.current_epoch] += 1


def counted(trainer: Trainer) -> tuple[dict[str, Any], dict[int, int]]:
    """Train, and count the training batches of each epoch."""
    counts = CountsBatches()
    trainer.lightning.callbacks.append(counts)  # type: ignore[attr-defined]  # set by Lightning
    info = trainer.train()
    return info, dict(counts.batches)


def without_places(info: dict[str, Any]) -> dict[str, Any]:
    """What a run returns, but for where its files are."""
    return {
        key: value for key, value in info.items() if key.startswith(("best", "epoch", "metric"))
    }


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tiny: Make, networks: str, tmp_path: Path, scheduler: str
) -> None:
    config = tiny(
        model={"class_path": f"{networks}.Droppy"},
        scheduler=SCHEDULERS[scheduler],
        early_stopper=True,
        save_last=True,
    )
    whole = Trainer.from_config(config, run_name="whole", epochs=4).train()
    Trainer.from_config(config, run_name="parts", epochs=2).train()
    torch.rand(7)  # whatever was drawn in between must not matter
    last = tmp_path / "runs/parts/last.pt"
    resumed, batches = counted(Trainer.from_snapshot(last, epochs=4))

    num_batches = -(-len(Trainer.from_config(config).data.train) // 4)  # type: ignore[arg-type]
    assert batches == {2: num_batches, 3: num_batches}
    assert without_places(resumed) == without_places(whole)
    for name in ("last.pt", "best.pt"):
        first, second = (
            read_snapshot(tmp_path / "runs" / run / name) for run in ("whole", "parts")
        )
        assert same(first["MODEL"]["MODEL_STATE"], second["MODEL"]["MODEL_STATE"])
        assert same(first["TRAIN_INFO"], second["TRAIN_INFO"])
    for name in ("logs_train.csv", "test_results.csv"):
        one_file, other_file = (tmp_path / "runs" / run / name for run in ("whole", "parts"))
        assert one_file.read_bytes() == other_file.read_bytes()


def test_another_seed_gives_another_run(tiny: Make, networks: str) -> None:
    # or the test above could not fail: order, dropout and augmentation do matter here
    config = tiny(model={"class_path": f"{networks}.Droppy"})
    runs = [Trainer.from_config(config, run_name=f"run{s}", seed=s).train() for s in (1, 2)]
    again = Trainer.from_config(config, run_name="again", seed=1).train()
    assert without_places(runs[0]) != without_places(runs[1])
    assert without_places(runs[0]) == without_places(again)


def test_the_early_stopper_remembers_across_a_resume(tiny: Make, tmp_path: Path) -> None:
    stopper = {"type": "LossEarlyStopping", "patience": 4, "min_delta": 10.0}
    config = tiny(early_stopper=stopper, save_last=True)
    Trainer.from_config(config, epochs=2).train()
    info, batches = counted(Trainer.from_snapshot(tmp_path / "runs/tiny/last.pt", epochs=20))
    assert info["epochs_run"] == 5  # the first is the best, four follow
    assert sorted(batches) == [2, 3, 4]


def test_a_run_that_is_over_trains_nothing_and_returns_the_stored_result(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, info = finished
    trainer = Trainer.from_snapshot(folder / "last.pt")
    assert counted(trainer) == (info, {})
    assert trainer.epochs_run == 5
    assert trainer.best_loss == info["best_loss"]


def test_an_early_stopped_run_trains_nothing_however_many_epochs_are_asked_for(
    tiny: Make, tmp_path: Path, contents: Contents
) -> None:
    stopper = {"type": "LossEarlyStopping", "patience": 1, "min_delta": 10.0}
    config = tiny(early_stopper=stopper, save_last=True, epochs=9)
    info = Trainer.from_config(config).train()
    assert info["epochs_run"] == 2
    before = contents(tmp_path)
    again = Trainer.from_config(config, resume="auto", epochs=30)
    assert counted(again) == (info, {})
    from_file = Trainer.from_snapshot(tmp_path / "runs/tiny/last.pt", epochs=30)
    assert counted(from_file) == (info, {})
    assert contents(tmp_path) == before


def test_an_early_stopped_run_whose_result_is_lost_still_trains_nothing(
    tiny: Make, tmp_path: Path
) -> None:
    stopper = {"type": "LossEarlyStopping", "patience": 1, "min_delta": 10.0}
    config = tiny(early_stopper=stopper, save_last=True, epochs=9)
    info = Trainer.from_config(config).train()
    (tmp_path / "runs/tiny/result.json").unlink()  # the machine died between fit and the result
    again, batches = counted(Trainer.from_config(config, resume="auto"))
    assert batches == {}
    assert without_places(again) == without_places(info)


def test_resume_auto_starts_afresh_and_then_goes_on(tiny: Make) -> None:
    config = tiny(resume="auto", save_last=True)
    first, batches = counted(Trainer.from_config(config, epochs=1))
    assert sorted(batches) == [0]
    assert first["epochs_run"] == 1
    second, batches = counted(Trainer.from_config(config, epochs=3))
    assert sorted(batches) == [1, 2]
    assert second["epochs_run"] == 3
    third, batches = counted(Trainer.from_config(config, epochs=3))
    assert (third, batches) == (second, {})


def test_resume_auto_passes_over_damaged_snapshots(tiny: Make, tmp_path: Path) -> None:
    config = tiny(save_last=True, save_interval=1, epochs=3)
    Trainer.from_config(config).train()
    folder = tmp_path / "runs/tiny"
    for name in ("last.pt", "save_2.pt", "best.pt"):
        (folder / name).unlink()
        (folder / name).write_bytes(b"torn")
    _, batches = counted(Trainer.from_config(config, resume="auto", epochs=4))
    assert sorted(batches) == [2, 3]


def test_a_snapshot_is_read_once_on_the_way_to_the_first_batch(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(save_last=True, save_interval=1, epochs=3)
    Trainer.from_config(config).train()
    (tmp_path / "runs/tiny/best.pt").unlink()  # a name that is to be given again
    calls: list[None] = []
    real = torch.load  # noqa: TID251 - what is counted

    def load(*arguments: Any, **options: Any) -> Any:
        calls.append(None)
        return real(*arguments, **options)

    class Notes(pl.Callback):
        def on_train_start(self, *_: object) -> None:
            self.num_loads = len(calls)

    monkeypatch.setattr(torch, "load", load)
    last = tmp_path / "runs/tiny/last.pt"
    for trainer in (
        Trainer.from_config(config, resume="auto", epochs=4),
        Trainer.from_snapshot(last, epochs=5),
    ):
        calls.clear()
        notes = Notes()
        trainer.lightning.callbacks.append(notes)  # type: ignore[attr-defined]
        trainer.train()
        assert notes.num_loads == 1


def test_resuming_from_an_earlier_snapshot_cuts_the_log_back(tiny: Make, tmp_path: Path) -> None:
    config = tiny(save_interval=1, epochs=4)
    Trainer.from_config(config).train()
    log = tmp_path / "runs/tiny/logs_train.csv"
    before = log.read_bytes()
    trainer = Trainer.from_snapshot(tmp_path / "runs/tiny/save_1.pt", epochs=5)
    _, batches = counted(trainer)
    assert sorted(batches) == [2, 3, 4]
    assert log.read_bytes().startswith(before)
    assert len(log.read_text(encoding="utf-8").splitlines()) == 6


def test_a_folder_that_holds_a_run_is_refused_and_left_as_it_is(
    finished: tuple[Path, dict[str, Any]], contents: Contents
) -> None:
    folder, _ = finished
    before = contents(folder)
    trainer = Trainer.from_config(folder / "config.yaml", resume=False)
    with pytest.raises(ConfigError, match=r"holds a run already.*resume.*run_name"):
        trainer.train()
    assert contents(folder) == before


@pytest.mark.parametrize("epochs", [2, 3])
def test_a_snapshot_of_another_run_is_not_resumed_into_a_folder_that_holds_one(
    tiny: Make, tmp_path: Path, contents: Contents, epochs: int
) -> None:
    for name, seed in (("first", 1), ("second", 2)):
        Trainer.from_config(tiny(run_name=name, seed=seed, save_last=True)).train()
    before = contents(tmp_path)
    path = tmp_path / "runs/second/last.pt"
    config = tiny(run_name="first", epochs=epochs, resume=str(path))
    with pytest.raises(
        ConfigError, match=r"first holds another run than .*second/last\.pt: choose"
    ):
        Trainer.from_config(config).train()
    assert contents(tmp_path) == before


def test_a_run_that_a_kill_ended_in_its_first_epoch_in_a_new_folder_can_be_started_again(
    tiny: Make, tmp_path: Path
) -> None:
    class Dies(pl.Callback):
        def on_train_start(self, *_: object) -> None:
            raise MemoryError

    Trainer.from_config(tiny(save_last=True)).train()
    last, folder = tmp_path / "runs/tiny/last.pt", tmp_path / "runs/new"
    trainer = Trainer.from_snapshot(last, run_name="new", epochs=3)
    trainer.lightning.callbacks.append(Dies())  # type: ignore[attr-defined]  # set by Lightning
    with pytest.raises(MemoryError):
        trainer.train()
    assert (folder / "best.pt").is_file()
    assert Trainer.from_snapshot(last, run_name="new", epochs=3).train()["epochs_run"] == 3
    with pytest.raises(ConfigError, match="holds another run"):  # which has gone on since
        Trainer.from_snapshot(last, run_name="new", epochs=3).train()


def test_a_job_that_slurm_starts_again_continues_its_own_run(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Trainer.from_config(tiny(save_last=True)).train()
    config = tiny(run_name="new", resume=str(tmp_path / "runs/tiny/last.pt"), save_last=True)
    Trainer.from_config(config, epochs=3).train()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    _, batches = counted(Trainer.from_config(config, epochs=4))
    assert sorted(batches) == [3]


def test_a_run_without_a_seed_keeps_that_of_the_snapshot_that_is_named(
    tiny: Make, tmp_path: Path
) -> None:
    Trainer.from_config(tiny(seed=None, save_last=True)).train()
    last = tmp_path / "runs/tiny/last.pt"
    trainer = Trainer.from_config(tiny(seed=None, resume=str(last), epochs=3))
    assert trainer.data.seed == read_snapshot(last)["GLOBAL_CONFIG"]["seed"]


def test_the_training_loop_alone_overwrites_no_run_either(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path, tiny: Make, contents: Contents
) -> None:
    folder, _ = finished
    before = contents(folder)
    with pytest.raises(ConfigError, match="holds a run already"):
        Trainer.from_config(folder / "config.yaml", resume="auto").fit()
    Trainer.from_config(tiny(save_last=True)).fit()
    with pytest.raises(ConfigError, match="holds another run"):
        Trainer.from_config(folder / "config.yaml", epochs=9).fit(tmp_path / "runs/tiny/last.pt")
    assert contents(folder) == before


def test_a_missing_snapshot_is_named(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"there is no snapshot .*gone\.pt"):
        Trainer.from_snapshot(tmp_path / "gone.pt")


def test_the_stored_result_is_what_was_returned(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, info = finished
    record = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert record["info"] == info
    assert record["stopped_early"] is False
