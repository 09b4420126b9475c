"""Moving averages of weights: what is validated, saved, tested and resumed."""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn

from lis2_lightning import ConfigError, Trainer
from lis2_lightning.snapshots import read_snapshot
from tests.running.equality import same
from tests.running.test_interrupted import SendsSignal

pytestmark = pytest.mark.usefixtures("no_pictures")
Make = Callable[..., dict[str, Any]]
DECAY = 0.8


class Watches(pl.Callback):
    """Averages the weights step by step, and notes those that are validated."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.average: dict[str, Tensor] = {}
        self.validated: list[bool] = []
        self.num_steps = 0

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:
        weights = {name: p.detach().clone() for name, p in module.model.named_parameters()}
        if self.average:
            decay = min(DECAY, (1 + self.num_steps) / (10 + self.num_steps))
            for name, weight in weights.items():
                weights[name] = decay * self.average[name] + (1 - decay) * weight
        self.average = weights
        self.num_steps += 1

    def on_validation_batch_start(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:
        if not self.path.exists():
            trainer.save_checkpoint(self.path)
        pairs = [(p, self.average[name]) for name, p in module.model.named_parameters()]
        self.validated.append(all(torch.allclose(*pair, atol=1e-6) for pair in pairs))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("is_compiled", [False, True])
def test_what_is_validated_saved_and_tested_is_the_average(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_compiled: bool
) -> None:
    # a graph of Python, for machine code takes a minute to build
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    config = tiny(ema=DECAY, save_last=True, monitor="val_loss", epochs=2, compile=is_compiled)
    trainer = Trainer.from_config(config)
    watches = Watches(tmp_path / "inside.pt")
    trainer.lightning.callbacks.append(watches)  # type: ignore[attr-defined]  # set by Lightning
    trainer.fit()
    assert watches.validated
    assert all(watches.validated)
    folder = tmp_path / "runs/tiny"
    last = read_snapshot(folder / "last.pt")
    weights = last["MODEL"]["MODEL_STATE"]
    for name, average in watches.average.items():
        torch.testing.assert_close(weights[name], average, atol=1e-6, rtol=1e-5)
        assert torch.equal(trainer.model.state_dict()[name], weights[name])
        trained = last["LIGHTNING"]["checkpoint"]["current_model_state"][f"model.{name}"]
        assert not torch.equal(trained, weights[name])

    with (folder / "logs_train.csv").open() as log:
        val_loss = float(next(csv.DictReader(log))["val_loss"])
    first = trainer.validate(watches.path)  # of the first epoch, not of the average at the end
    assert first["val_loss"] == pytest.approx(val_loss, rel=1e-6)


def test_a_snapshot_inside_a_validation_has_both_in_their_places(
    tiny: Make, tmp_path: Path
) -> None:
    trainer = Trainer.from_config(tiny(ema=DECAY, save_last=True, epochs=1))
    trainer.lightning.callbacks.append(Watches(tmp_path / "inside.pt"))  # type: ignore[attr-defined]
    trainer.fit()
    inside, after = (
        read_snapshot(path) for path in (tmp_path / "inside.pt", tmp_path / "runs/tiny/last.pt")
    )
    assert same(inside["MODEL"]["MODEL_STATE"], after["MODEL"]["MODEL_STATE"])
    trained = [s["LIGHTNING"]["checkpoint"]["current_model_state"] for s in (inside, after)]
    assert same(*trained)


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tiny: Make, networks: str, tmp_path: Path
) -> None:
    config = tiny(model={"class_path": f"{networks}.Droppy"}, ema=DECAY, save_last=True)
    Trainer.from_config(config, run_name="whole", epochs=4).train()
    Trainer.from_config(config, run_name="parts", epochs=2).train()
    inside = Trainer.from_snapshot(tmp_path / "runs/parts/last.pt", epochs=4)
    signal = SendsSignal(("on_train_batch_end", 2, 1))
    inside.lightning.callbacks.append(signal)  # type: ignore[attr-defined]  # set by Lightning
    with pytest.raises(SystemExit):
        inside.train()
    assert read_snapshot(tmp_path / "runs/parts/last.pt")["LIGHTNING"]["next_batch"] == 2
    Trainer.from_snapshot(tmp_path / "runs/parts/last.pt").train()
    whole, parts = (
        read_snapshot(tmp_path / "runs" / run / "last.pt") for run in ("whole", "parts")
    )
    assert same(whole["MODEL"]["MODEL_STATE"], parts["MODEL"]["MODEL_STATE"])
    trained = [s["LIGHTNING"]["checkpoint"]["current_model_state"] for s in (whole, parts)]
    assert same(*trained)
    for name in ("logs_train.csv", "test_results.csv"):
        files = [(tmp_path / "runs" / run / name).read_bytes() for run in ("whole", "parts")]
        assert files[0] == files[1]


def test_an_average_that_reaches_further_back_than_the_training_forgets_where_it_began(
    tiny: Make, tmp_path: Path
) -> None:
    """Batch normalization begins with variances of 1, which would stay nearly 1 in the average."""
    Trainer.from_config(tiny(ema=0.999, save_last=True, epochs=8)).fit()
    last = read_snapshot(tmp_path / "runs/tiny/last.pt")
    average, trained = (
        {name.removeprefix("model."): value for name, value in weights.items()}
        for weights in (
            last["MODEL"]["MODEL_STATE"],
            last["LIGHTNING"]["checkpoint"]["current_model_state"],
        )
    )
    names = [name for name in average if name.endswith("running_var")]
    assert names
    for name in names:
        far = (trained[name] - 1).abs() > 0.1
        way = ((average[name] - 1) / (trained[name] - 1))[far]
        assert (way > 0.5).all(), (name, way)


@pytest.mark.parametrize("decay", [0, 1, -0.1])
def test_a_decay_out_of_range_is_one_sentence(tiny: Make, decay: float) -> None:
    with pytest.raises(ConfigError, match="ema must be null or between 0 and 1"):
        Trainer.from_config(tiny(ema=decay))
