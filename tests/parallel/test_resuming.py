"""Several processes go on exactly where they were interrupted, and other numbers between epochs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lis2_lightning.snapshots import read_snapshot
from tests.parallel import jobs, resuming

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("no_pictures"),
    pytest.mark.xdist_group(
        "resuming"
    ),  # one worker of the test runner, for the runs are made once
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, together: Any) -> Path:
    """The runs of two processes, and one that three went on with."""
    made = tmp_path_factory.mktemp("resuming")
    for world in (2, 3):
        for done in together(world, [resuming.__file__, made]):
            assert done.returncode == 0, done.stderr
    return made


@pytest.mark.parametrize("place", resuming.PLACES, ids=str)
def test_a_signal_to_one_process_ends_both_and_they_go_on_exactly(
    folder: Path, place: tuple[str, int, int, int], contents: Callable[[Path], dict[str, bytes]]
) -> None:
    names = "-".join(map(str, place)), "averaged" if place == resuming.AVERAGED else "whole"
    parts, whole = (contents(folder / name) for name in names)
    assert parts.keys() == whole.keys()
    for name in ("logs_train.csv", "test_results.csv"):
        assert parts[name] == whole[name]
    first, second = (read_snapshot(folder / name / "last.pt") for name in names)
    for name, weight in second["MODEL"]["MODEL_STATE"].items():
        assert torch.equal(first["MODEL"]["MODEL_STATE"][name], weight)
    assert str(first["TRAIN_INFO"]) == str(second["TRAIN_INFO"])
    trained = [s["LIGHTNING"]["checkpoint"].get("current_model_state") for s in (first, second)]
    assert (trained[0] is not None) == (place == resuming.AVERAGED)
    assert str(trained[0]) == str(trained[1])


@pytest.mark.parametrize("world", [1, 3])
def test_another_number_of_processes_goes_on_between_epochs(
    folder: Path, world: int, tmp_path: Path
) -> None:
    alone = resuming.trainer(tmp_path, "whole", 1, jobs.network())
    alone.train()
    expected = alone.model.state_dict()
    if world == 1:
        shutil.copytree(folder / "two", tmp_path / "one")
        resuming.trainer(tmp_path, "one", 1, jobs.network()).train()
    place = tmp_path / "one" if world == 1 else folder / "three"
    weights = read_snapshot(place / "last.pt")["MODEL"]["MODEL_STATE"]
    for name, weight in expected.items():
        torch.testing.assert_close(weights[name], weight, rtol=0, atol=1e-6)
    rows = jobs.rows(place / "logs_train.csv")
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    for row, other in zip(rows, jobs.rows(tmp_path / "whole/logs_train.csv"), strict=True):
        assert row == pytest.approx(other, abs=1e-6)
