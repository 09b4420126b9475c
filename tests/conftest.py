"""Fixtures that every test may use."""

from __future__ import annotations

import csv
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from lis2_lightning.__main__ import main

# two workers on two cores: with more threads each they wait for one another
os.environ.setdefault("OMP_NUM_THREADS", "1")

SAMPLE = Path(__file__).parents[2] / "shared" / "data" / "lis2_sample"

# The smallest world in which a run has several batches, three splits and every kind of file.
FIELD = {
    "type": "SyntheticDataset",
    "height": 128,
    "width": 128,
    "seed": 3,
    "difficulty": "easy",  # a network learns something there in two epochs
    "size": 16,
    "stride": 16,
    "num_folds": 3,
}
TINY = {
    "run_name": "tiny",
    "seed": 1,
    "model": {"type": "unet", "features": 2, "num_blocks": 1},
    "train_dataset": {**FIELD, "folds": [0], "data_augmentations": ["RandomHorizontalFlip"]},
    "val_dataset": {**FIELD, "folds": [1]},
    "test_dataset": {**FIELD, "folds": [2]},
    "optimizer": {"type": "Adam", "lr": 0.01},
    "epochs": 2,
    "batch_size": 4,
    "num_workers": 0,
    "lightning": {"enable_progress_bar": False, "accelerator": "cpu"},
}


@pytest.fixture(scope="session")
def lis2_sample() -> Path:
    """The folder with the real maps; the test skips where it is absent."""
    if not SAMPLE.is_dir():
        pytest.skip(f"the real maps are not there: {SAMPLE}")
    return SAMPLE


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Make the configuration of a run of a second, with keys of the test's own."""

    def make(**changes: Any) -> dict[str, Any]:
        return {**deepcopy(TINY), "output_dir": str(tmp_path / "runs"), **changes}

    return make


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the package reports."""
    caplog.set_level(logging.INFO, "lis2_lightning")
    return caplog


NETWORKS = '''
import torch
from torch import nn


class Droppy(nn.Sequential):
    """Batch statistics and dropout: what a resumed run may get wrong."""

    def __init__(self, features: int = 3) -> None:
        super().__init__(
            nn.Conv2d(1, features, 3, padding=1), nn.BatchNorm2d(features), nn.ReLU(),
            nn.Dropout(0.3), nn.Conv2d(features, 1, 1), nn.Sigmoid(),
        )


class Matrices(nn.Module):
    """Two-dimensional parameters only."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(16, 16, bias=False)

    def forward(self, patch):
        return self.mix(patch).sigmoid()


class Wrong(nn.Conv2d):
    """Gives another shape than the target."""

    def __init__(self) -> None:
        super().__init__(1, 1, 3)


class Diverges(Droppy):
    """Its output is no number."""

    def forward(self, patch):
        return super().forward(patch) * float("nan")
'''


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a user's own module, with networks to be named by import path."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "networks_of_a_user.py").write_text(NETWORKS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield "networks_of_a_user"


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing: pictures take most of a tiny run's time, and have tests of their own."""
    monkeypatch.setattr("lis2_lightning.report.run_pictures.draw_curves", lambda *_: None)
    monkeypatch.setattr("lis2_lightning.report.run_pictures.is_drawn", lambda _: False)
    monkeypatch.setattr("lis2_lightning.evaluation.trials.draw_study", lambda *_, **__: None)


@pytest.fixture(autouse=True)
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write no page at the end of a test's run, which takes longer than to train it.

    It is written for runs of wider fixtures, and where a test asks for it.
    """
    monkeypatch.setattr("lis2_lightning.report.run_pictures.write_page", lambda _: None)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A run that is over, with every kind of file, and what it returned; never write to it."""
    from lis2_lightning import Trainer

    folder = tmp_path_factory.mktemp("finished")
    settings = {**deepcopy(TINY), "output_dir": str(folder), "save_interval": 2, "save_last": True}
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump({**settings, "epochs": 9}), encoding="utf-8")
    info = Trainer.from_config(config, epochs=5, **{"optimizer.lr": 0.02}).train()
    before = bytes_of(folder)
    yield folder / "tiny", info
    assert bytes_of(folder) == before, "a test wrote to the shared run"


@pytest.fixture
def copied(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A run that may be changed."""
    return Path(shutil.copytree(finished[0], tmp_path / "runs" / "copied"))


@pytest.fixture(scope="session")
def read_log() -> Callable[[Path], list[dict[str, float]]]:
    """Read a CSV file of numbers; what is empty is NaN."""

    def read(path: Path) -> list[dict[str, float]]:
        with path.open(encoding="utf-8", newline="") as file:
            return [_numbers(row) for row in csv.DictReader(file)]

    return read


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    return {key: float(value or "nan") for key, value in row.items()}


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Every file below a folder, by name, with its bytes."""
    return bytes_of


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by name, with its bytes; a run's lock is none of its results."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}


@pytest.fixture
def typed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Type a command; give its exit code and what it printed on both streams."""
    monkeypatch.setattr(sys, "argv", ["lis2"])

    def run(*words: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
