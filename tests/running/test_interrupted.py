"""A run that a signal ends, wherever it comes, goes on as if it had never been interrupted."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from lis2_lightning import Trainer
from lis2_lightning.snapshots import read_snapshot
from tests.running.equality import same

pytestmark = pytest.mark.usefixtures("no_pictures")
Make = Callable[..., dict[str, Any]]

LAST = 6  # of the training batches, with two samples each

# Where a signal comes: the hook, the epoch and the batch.
Place = tuple[str, int, int]
PLACES: dict[str, Place] = {
    "before the first batch": ("on_train_batch_start", 0, 0),
    "in the middle of the first epoch": ("on_train_batch_end", 0, 2),
    "after the last batch of an epoch": ("on_train_batch_end", 1, LAST),
    "in the first batch of a later epoch": ("on_train_batch_start", 2, 0),
    "in a validation": ("on_validation_batch_start", 1, 1),
    "at the end of a validation": ("on_validation_end", 1, 0),
    "when an epoch ends": ("on_train_epoch_end", 1, 0),
    "while a snapshot is written": ("on_save_checkpoint", 1, 0),
    "in the last epoch's validation": ("on_validation_batch_end", 3, 0),
    "when the last epoch ends": ("on_train_epoch_end", 3, 0),
    "in the test": ("on_test_batch_end", 4, 0),
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "plateau": {"scheduler": {"type": "ReduceLROnPlateau", "patience": 0, "threshold": 1.0}},
    "step": {"scheduler": {"type": "StepLR", "step_size": 2}, "scheduler_interval": "step"},
    "accumulated": {"lightning": {"accumulate_grad_batches": 2}},
    "bf16": {"lightning": {"precision": "bf16-mixed"}},
    "sgd": {"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
    "foreign metric": {"metrics": ["dice", "torchmetrics.classification.BinaryAccuracy"]},
    "validated twice": {"lightning": {"val_check_interval": 2}},
    "without validation": {"val_dataset": None},
    "early stopper": {
        "early_stopper": {"type": "LossEarlyStopping", "patience": 3, "min_delta": 9}
    },
}

PAIRS: list[tuple[Place, dict[str, Any]]] = [
    (("on_validation_batch_start", 1, 2), {"lightning": {"accumulate_grad_batches": 2}}),
    (("on_train_batch_end", 1, LAST - 1), {"lightning": {"accumulate_grad_batches": 3}}),
    (("on_validation_batch_start", 1, 1), {"lightning": {"check_val_every_n_epoch": 2}}),
    (("on_train_batch_end", 2, 3), {"lightning": {"check_val_every_n_epoch": 2}}),
    (("on_validation_batch_end", 1, 0), {"lightning": {"val_check_interval": 3}}),
    (
        ("on_train_batch_end", 1, 3),
        {"lightning": {"val_check_interval": 5, "check_val_every_n_epoch": None}},
    ),
    (("on_train_batch_end", 1, 2), {"lightning": {"limit_train_batches": 5}}),
    (
        ("on_train_batch_end", 1, 2),
        {
            "scheduler": {"type": "OneCycleLR", "max_lr": 0.1, "total_steps": 28},
            "scheduler_interval": "step",
        },
    ),
    (
        ("on_train_batch_end", 1, 2),
        {"monitor": "val_loss", "lightning": {"val_check_interval": 3}, **CASES["plateau"]},
    ),
    (("on_train_batch_end", 2, 2), {"save_every_n_steps": 4}),
    (("on_validation_batch_start", 2, 3), CASES["early stopper"]),
    (("on_train_batch_end", 1, 2), {"sampler": {"type": "balanced", "positive_share": 0.4}}),
]


class SendsSignal(pl.Callback):
    """Sends a signal to its own process at one place."""

    def __init__(self, place: Place, number: int = signal.SIGTERM) -> None:
        self.place = place
        self.number = number

    def _at(self, hook: str, trainer: pl.Trainer, batch: int = 0) -> None:
        if (hook, trainer.current_epoch, batch) == self.place:
            self.place = "", 0, 0
            os.kill(os.getpid(), self.number)

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:
        self._at("on_train_batch_start", trainer, args[-1])

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:
        self._at("on_train_batch_end", trainer, args[-1])

    def on_validation_batch_start(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:
        self._at("on_validation_batch_start", trainer, args[1])

    def on_validation_batch_end(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:
        self._at("on_validation_batch_end", trainer, args[2])

    def on_test_batch_end(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:
        self._at("on_test_batch_end", trainer, args[2])

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        self._at("on_validation_end", trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        self._at("on_train_epoch_end", trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: Any, checkpoint: Any) -> None:
        self._at("on_save_checkpoint", trainer)


class CountsBatches(pl.Callback):
    """Counts how often each training batch is trained."""

    def __init__(self) -> None:
        self.batches: Counter[tuple[int, int]] = Counter()

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:
        self.batches[trainer.current_epoch, args[-1]] += 1


def without_places(info: dict[str, Any]) -> dict[str, Any]:
    """What a run returns, with its files by name."""
    renamed = {
        key: value and Path(value).name for key, value in info.items() if key.endswith("_path")
    }
    return {**info, **renamed, "run_name": ""}


def interrupted(config: dict[str, Any], place: Place, code: int = 143) -> None:
    """Train until a signal ends the run."""
    trainer = Trainer.from_config(config)
    trainer.lightning.callbacks.insert(0, SendsSignal(place))  # type: ignore[attr-defined]
    with pytest.raises(SystemExit) as ended:
        trainer.train()
    assert ended.value.code == code


def go_on(config: dict[str, Any]) -> tuple[dict[str, Any], Counter[tuple[int, int]]]:
    """Train to the end, and count the batches."""
    trainer = Trainer.from_config(config, resume="auto")
    counts = CountsBatches()
    trainer.lightning.callbacks.insert(0, counts)  # type: ignore[attr-defined]
    return trainer.train(), counts.batches


def assert_equal(folder: Path, other: Path, names: tuple[str, ...]) -> None:
    """Hold two runs against each other, bit for bit."""
    for name in names:
        first, second = read_snapshot(folder / name), read_snapshot(other / name)
        assert same(first["MODEL"]["MODEL_STATE"], second["MODEL"]["MODEL_STATE"]), name
        assert same(first["TRAIN_INFO"], second["TRAIN_INFO"]), name
    for name in ("logs_train.csv", "test_results.csv"):
        assert (folder / name).read_text() == (other / name).read_text()
    assert {p.name for p in folder.iterdir()} == {p.name for p in other.iterdir()}


@pytest.fixture
def both(tiny: Make, networks: str, tmp_path: Path) -> Callable[..., None]:
    """Compare a run that a signal ended and that went on with one that was left in peace."""

    def compare(place: Place, **changes: Any) -> None:
        lightning = {**tiny()["lightning"], **changes.pop("lightning", {})}
        workers = changes.pop("then_workers", 0)
        config = tiny(
            **{"model": {"class_path": f"{networks}.Droppy"}, "epochs": 4, "batch_size": 2}
            | {"lightning": lightning, **changes}
        )
        whole = Trainer.from_config(config, run_name="whole").train()
        interrupted({**config, "run_name": "parts"}, place)
        last = read_snapshot(tmp_path / "runs/parts/last.pt")["LIGHTNING"]
        parts, batches = go_on({**config, "run_name": "parts", "num_workers": workers})
        assert without_places(parts) == without_places(whole)
        first = last["next_epoch"], last["next_batch"]
        assert all(count == 1 for count in batches.values())
        assert min(batches, default=first) == first or last["next_batch"] > 0
        names = ("best.pt", "last.pt") if config.get("save_last") else ("best.pt",)
        assert_equal(tmp_path / "runs/parts", tmp_path / "runs/whole", names)

    return compare


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_run_goes_on_exactly_wherever_it_was_interrupted(
    both: Callable[..., None], place: Place
) -> None:
    both(place)


@pytest.mark.parametrize("case", CASES)
def test_a_run_goes_on_exactly_inside_an_epoch_whatever_is_configured(
    both: Callable[..., None], case: str
) -> None:
    both(("on_train_batch_end", 1, 2), save_last=True, **CASES[case])


@pytest.mark.slow
@pytest.mark.parametrize(("place", "changes"), PAIRS)
def test_a_run_goes_on_exactly_from_an_awkward_place_of_an_awkward_run(
    both: Callable[..., None], place: Place, changes: dict[str, Any]
) -> None:
    both(place, **deepcopy(changes))


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "then"), [(1, 1), (2, 2), (2, 0), (0, 2), (1, 2)])
def test_a_run_goes_on_exactly_with_any_number_of_workers(
    both: Callable[..., None], workers: int, then: int
) -> None:
    both(("on_train_batch_end", 1, 2), num_workers=workers, then_workers=then)


def test_a_run_that_is_interrupted_again_and_again_goes_on_exactly(
    tiny: Make, networks: str, tmp_path: Path
) -> None:
    config = tiny(model={"class_path": f"{networks}.Droppy"}, batch_size=2, epochs=3)
    whole = Trainer.from_config(config, run_name="whole").train()
    parts = {**config, "run_name": "parts", "resume": "auto"}
    for epoch in range(3):
        for batch in (0, 3, LAST):
            interrupted(parts, ("on_train_batch_start", epoch, batch))
    info, batches = go_on(parts)
    assert dict(batches) == {(2, LAST): 1}
    assert without_places(info) == without_places(whole)
    assert_equal(tmp_path / "runs/parts", tmp_path / "runs/whole", ("best.pt",))


def test_ctrl_c_is_a_keyboard_interrupt_for_the_caller_after_last_pt_is_written(
    tiny: Make, tmp_path: Path
) -> None:
    trainer = Trainer.from_config(tiny())
    place = ("on_train_batch_start", 0, 2)
    trainer.lightning.callbacks.insert(0, SendsSignal(place, signal.SIGINT))  # type: ignore[attr-defined]
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    position = read_snapshot(tmp_path / "runs/tiny/last.pt")["LIGHTNING"]
    assert (position["next_epoch"], position["next_batch"]) == (0, 2)


def test_a_signal_during_a_prediction_leaves_the_run_as_it_is(
    tiny: Make, contents: Callable[[Path], dict[str, bytes]], tmp_path: Path
) -> None:
    Trainer.from_config(tiny()).train()
    before = contents(tmp_path / "runs")
    trainer = Trainer.from_config(tiny())

    class Stops(pl.Callback):
        def on_predict_batch_start(self, *args: Any) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer.lightning.callbacks.insert(0, Stops())  # type: ignore[attr-defined]
    with pytest.raises(SystemExit) as ended:
        trainer.predict()
    assert ended.value.code == 143
    parts = {"tiny/prediction.npy.part", "tiny/prediction.npy.part.0.json"}
    after = contents(tmp_path / "runs")
    assert {key: after[key] for key in after.keys() - parts} == before


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("how", ["compile: true", "torch.compile"])
def test_a_compiled_network_has_plain_names_in_its_snapshot_and_goes_on(
    tiny: Make, tmp_path: Path, how: str
) -> None:
    config = tiny(save_last=True)
    names = set(Trainer.from_config(config).model.state_dict())
    for changes in ({}, {"resume": "auto", "epochs": 3}):
        compiled: dict[str, Any] = {"compile": True}
        if how == "torch.compile":
            compiled = {"model": torch.compile(Trainer.from_config(config).model)}
        # what matters is how the weights are named; building machine code would take a minute
        with torch.compiler.set_stance("force_eager"):
            Trainer.from_config({**config, **changes, **compiled}).train()
    last = read_snapshot(tmp_path / "runs/tiny/last.pt")
    assert set(last["MODEL"]["MODEL_STATE"]) == names
    assert last["TRAIN_INFO"]["EPOCHS_RUN"] == 2
