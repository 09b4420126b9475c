"""``lis2 test``, ``validate`` and ``predict`` with a run's folder or one of its snapshots."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lis2_lightning.data.open_raster import open_raster

Typed = Callable[..., tuple[int, str, str]]
Finished = tuple[Path, dict[str, Any]]


@pytest.fixture
def moved(finished: Finished, tmp_path: Path) -> Path:
    """A run that was moved after its end: its configuration names a folder that holds another."""
    copy = tmp_path / "moved"
    shutil.copytree(finished[0], copy)
    return copy


def test_a_run_folder_stands_for_its_best_snapshot(
    moved: Path, finished: Finished, typed: Typed
) -> None:
    (moved / "test_results.csv").unlink()
    code, output, error = typed("test", "--ckpt_path", moved)
    assert code == 0, error
    printed = {key: float(text) for key, text in map(str.split, output.splitlines())}
    expected = {f"test_{key}": value for key, value in finished[1]["metrics_test"].items()}
    assert printed == pytest.approx(expected, abs=1e-6)
    # beside the snapshot, not in the folder that its configuration names
    before, after = (folder / "test_results.csv" for folder in (finished[0], moved))
    assert after.read_bytes() == before.read_bytes()


def test_the_snapshot_that_is_named_is_measured(moved: Path, typed: Typed) -> None:
    config = ["--config", moved / "config.yaml"]
    for name in ("save_2.pt", "best.pt"):
        alone = typed("validate", "--ckpt_path", moved / name, "--json")
        assert alone[0] == 0, alone[2]
        assert alone[:2] == typed("validate", *config, "--ckpt_path", moved / name, "--json")[:2]


def test_a_command_without_configuration_and_snapshot_says_what_it_needs(typed: Typed) -> None:
    for command in ("test", "validate", "predict"):
        code, _, error = typed(command)
        assert (code, error.count("\n")) == (2, 1)
        assert f"{command} needs a configuration or a snapshot: add --config" in error


def test_the_map_of_a_run_is_not_replaced_unasked(
    moved: Path, typed: Typed, said: pytest.LogCaptureFixture
) -> None:
    (moved / "prediction.npy").write_bytes(b"precious")
    words = ["predict", "--ckpt_path", moved]
    code, _, error = typed(*words)
    assert code == 2
    assert f"{moved / 'prediction.npy'} exists already: choose another output" in error
    assert (moved / "prediction.npy").read_bytes() == b"precious"
    code, _, error = typed(*words, "--overwrite")
    assert code == 0
    assert "mapping the image of the synthetic field of 128 x 128 px and seed 3" in said.text
    assert f"into {moved / 'prediction.npy'}" in said.text
    assert open_raster(moved / "prediction.npy").shape == (1, 128, 128)
