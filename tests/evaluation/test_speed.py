"""``lis2 speed``: what is tried, what is compared, and what it advises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lis2_lightning.config import Schema
from lis2_lightning.errors import ConfigError
from lis2_lightning.evaluation import speed
from lis2_lightning.evaluation.speed import Trial
from lis2_lightning.trainer import Trainer

Make = Callable[..., dict[str, Any]]


def test_a_setting_that_is_already_configured_is_not_tried() -> None:
    config = {"channels_last": True, "compile": False, "num_workers": 0, "lightning": {}}
    names = list(speed.candidates(config, torch.device("cpu"), try_compile=True))
    assert "compile: true" in names
    assert "compile: true" not in speed.candidates(config, torch.device("cpu"))
    assert not any(name.startswith("channels_last") or name == "num_workers: 0" for name in names)


def test_the_fastest_setting_that_learns_the_same_is_advised() -> None:
    trials = [
        Trial("as configured", 100, 1.0, 0.0),
        Trial("channels_last: true", 120, 1.2, 1e-6),
        Trial("lightning.precision: bf16-mixed", 300, 3.0, 0.5),
        Trial("compile: true", failure="no C++ compiler"),
    ]
    lines = speed.table(trials).splitlines()
    assert lines[-1] == "set channels_last: true: 1.20 times as fast"
    assert lines[3].endswith("more than 0.02")
    assert lines[4].endswith("does not run here: no C++ compiler")


def test_without_a_gain_nothing_is_advised() -> None:
    trials = [Trial("as configured", 100, 1.0, 0.0), Trial("num_workers: 1", 101, 1.01, 0.0)]
    assert speed.table(trials).splitlines()[-1] == "nothing here gains 3%: leave it as it is"
    # as configured, the first trial and the last one differed by a fifth
    trials = [trials[0], Trial("num_workers: 1", 117, 1.17, 0.0, least_gain=1.2)]
    assert speed.table(trials).splitlines()[-1] == "nothing here gains 20%: leave it as it is"


def test_seconds_and_limit_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="seconds must be more than 0, got 0"):
        speed.measure({}, seconds=0)
    with pytest.raises(ConfigError, match="limit must be more than 0, got 0"):
        speed.measure({}, limit=0)


def test_what_takes_longer_to_start_than_the_limit_is_given_up(tiny: Make) -> None:
    config = Schema(Trainer).parse(tiny()).config
    with pytest.raises(ConfigError, match="took longer than 1e-09 s to start"):
        speed.measure(config, limit=1e-9)


def test_settings_are_tried_on_the_own_data_and_leave_nothing_behind(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Schema(Trainer).parse(tiny(compile=True, epochs=1)).config  # compiled already
    config["compile"] = False
    chosen = {"the same": {}, "other": {"channels_last": True}, "bad": {"optimizer.momentum": 2}}
    monkeypatch.setattr(speed, "candidates", lambda *_, **__: chosen)
    first, second, other, broken = speed.measure(config, seconds=0.05)
    assert first.setting == "as configured"
    assert second.loss_off == 0
    assert 0 <= other.loss_off < speed.TOLERANCE
    assert second.tiles_per_s > 0
    assert "momentum" in broken.failure
    assert not list(tmp_path.iterdir())


def test_an_epoch_of_one_batch_is_timed(tiny: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    early = {"type": "EarlyStopping", "monitor": "val_loss"}
    config = Schema(Trainer).parse(
        tiny(batch_size=1024, lightning={"callbacks": [early], "accelerator": "cpu"})
    )
    monkeypatch.setattr(speed, "candidates", lambda *_, **__: {})
    (trial,) = speed.measure(config.config, seconds=0.05, limit=60)
    assert trial.tiles_per_s > 0


def test_what_fit_would_refuse_is_refused_in_a_sentence(tiny: Make) -> None:
    model = {"type": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": 1}
    config = Schema(Trainer).parse(tiny(model=model, loss="BCELoss")).config
    with pytest.raises(ConfigError, match="probabilities"):
        speed.measure(config, seconds=0.05)
