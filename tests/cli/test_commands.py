"""Commands on snapshots, what they print, and how fast the command line answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lis2_lightning.snapshots import read_snapshot

Make = Callable[..., dict[str, Any]]
Finished = tuple[Path, dict[str, Any]]


@pytest.fixture(autouse=True)
def _nothing_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning warns if a program has command-line words besides those passed to it."""
    monkeypatch.setattr(sys, "argv", ["lis2"])


Typed = Callable[..., tuple[int, str, str]]


def test_info_shows_what_is_in_a_snapshot(finished: Finished, typed: Typed) -> None:
    code, output, _ = typed("info", finished[0] / "best.pt")
    assert code == 0
    assert "next_epoch: " in output
    assert "class: Adam\n  learning_rates:\n  - 0.02\n" in output


def test_info_as_json_is_one_line_of_plain_values(finished: Finished, typed: Typed) -> None:
    code, output, _ = typed("info", "--json", finished[0] / "last.pt")
    assert code == 0
    assert output.count("\n") == 1
    read = json.loads(output)
    assert read["next_epoch"] == 5
    assert read["config"]["run_name"] == "tiny"


def test_diff_finds_nothing_between_a_snapshot_and_itself(finished: Finished, typed: Typed) -> None:
    path = finished[0] / "save_2.pt"
    assert typed("diff", path, path) == (0, "no difference\n", "")


def test_diff_ends_with_1_where_snapshots_differ(finished: Finished, typed: Typed) -> None:
    code, output, _ = typed("diff", finished[0] / "save_2.pt", finished[0] / "save_4.pt")
    assert code == 1
    assert "MODEL/MODEL_STATE" in output
    code, output, _ = typed("diff", finished[0] / "save_2.pt", finished[0] / "save_4.pt", "--json")
    assert code == 1
    assert len(json.loads(output)["differences"]) > 10


def lis2_snapshot(path: Path) -> Path:
    """A file as LIS2 writes them."""
    network = torch.nn.Conv2d(1, 1, 3)
    optimizer = torch.optim.Adam(network.parameters())
    info = {
        "EPOCHS_RUN": 3,
        "BEST_LOSS": 0.5,
        "OPTIMIZER_STATE": optimizer.state_dict(),
        "SCHEDULER_STATE": None,
    }
    model = {"MODEL_CONFIG": {"type": "unet"}, "MODEL_STATE": network.state_dict()}
    torch.save({"MODEL": model, "TRAIN_INFO": info, "GLOBAL_CONFIG": {"run_name": "old"}}, path)
    return path


def test_convert_writes_a_new_file_and_overwrites_none(tmp_path: Path, typed: Typed) -> None:
    old, new = lis2_snapshot(tmp_path / "old.pt"), tmp_path / "new.pt"
    code, output, _ = typed("convert", old, new)
    assert (code, output.splitlines()[0]) == (0, f"{new} is written")
    assert read_snapshot(new)["LIGHTNING"]["next_epoch"] == 4
    code, output, error = typed("convert", old, new)
    assert (code, output) == (2, "")
    assert "exists already" in error


def test_a_tool_refuses_what_is_no_snapshot_and_flags_it_does_not_know(
    tmp_path: Path, typed: Typed
) -> None:
    (tmp_path / "torn.pt").write_bytes(b"PK")
    for words in (
        ["info", tmp_path / "torn.pt"],
        ["info", tmp_path / "gone.pt"],
        ["info"],
        ["info", tmp_path / "torn.pt", "--jsonn"],
        ["diff", tmp_path / "torn.pt"],
    ):
        code, out, error = typed(*words)
        assert (code, out) == (2, ""), words
        assert error.startswith("lis2: "), error
        assert error.count("\n") == 1, error


OWN_GENERATOR = '''
import torch
from torch.utils.data import Dataset


class Restless(Dataset):
    """Draws from a generator of its own, which no snapshot knows of."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index):
        patch = torch.rand((1, 16, 16), generator=self.generator)
        return {"patch": patch, "target": (patch > 0.5).float()}
'''


@pytest.fixture
def restless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The import path of a data set with a generator of its own."""
    (tmp_path / "data_of_a_user.py").write_text(OWN_GENERATOR, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "data_of_a_user.Restless"
    sys.modules.pop("data_of_a_user", None)


def written(path: Path, config: dict[str, Any]) -> Path:
    """A configuration as a file."""
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def test_verify_resume_finds_no_difference_and_writes_nothing(
    tiny: Make, tmp_path: Path, typed: Typed
) -> None:
    path = written(tmp_path / "tiny.yaml", tiny())
    code, output, _ = typed("verify-resume", "--config", path)
    assert (code, output) == (0, "no difference: an interrupted run resumes exactly\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.yaml"]


def test_verify_resume_tells_the_first_difference_of_a_run_that_does_not_go_on_exactly(
    tiny: Make, tmp_path: Path, typed: Typed, restless: str
) -> None:
    data = {"train_dataset": {"class_path": restless}, "val_dataset": None, "test_dataset": None}
    path = written(tmp_path / "tiny.yaml", tiny(**data))
    code, output, _ = typed("verify-resume", "--config", path, "--batches", "2")
    assert code == 1
    assert "MODEL_STATE/" in output
    assert "a generator of the data set's own" in output
    code, output, _ = typed("verify-resume", "--config", path, "--json", "--epochs", "7")
    assert code == 1
    assert json.loads(output)["exact"] is False
