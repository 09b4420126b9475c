"""A suggested learning rate, of which only a picture stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lis2_lightning.errors import ConfigError, Lis2Error
from lis2_lightning.evaluation.learning_rate import suggest_lr


@pytest.mark.slow
def test_a_rate_is_suggested_and_only_a_picture_stays(
    tiny: Callable[..., dict[str, Any]],
    tmp_path: Path,
    typed: Callable[..., tuple[int, str, str]],
    monkeypatch: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(yaml.safe_dump(tiny(trackers=["CsvLogger"])))
    code, output, error = typed("find-lr", "--config", "c.yaml", "--output", "lr.png")
    assert code == 0, error
    flag, rate = output.splitlines()[0].split()
    assert flag == "--optimizer.lr"
    assert 1e-6 < float(rate) < 1.0
    assert {path.name for path in tmp_path.rglob("*")} == {"c.yaml", "lr.png"}


def test_what_cannot_be_drawn_or_trained_is_refused_before_the_search(
    tiny: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"end its name with .png, .svg or .pdf"):
        suggest_lr(tiny(), tmp_path / "lr.text")
    model = {"type": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": 1}
    with pytest.raises(Lis2Error, match="loss"):
        suggest_lr(tiny(model=model, loss="BCELoss"))


def test_components_of_lightning_are_built(tiny: Callable[..., dict[str, Any]]) -> None:
    profiler = {"type": "SimpleProfiler", "filename": "profile"}
    lightning = {"profiler": profiler, "accelerator": "cpu"}
    rate, _ = suggest_lr(tiny(lightning=lightning), steps=20)
    assert 1e-6 <= rate <= 1.0
