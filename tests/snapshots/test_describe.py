"""What a snapshot says of itself, and where two differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from lis2_lightning import SnapshotError, __version__
from lis2_lightning.snapshots import read_snapshot, to_snapshot, write_snapshot
from lis2_lightning.snapshots.compare import differences, render_differences
from lis2_lightning.snapshots.describe import render, summary


def written(path: Path, optimizer: type[torch.optim.Optimizer], config: Mapping[str, Any]) -> Path:
    """A snapshot of a network that has made a step with an optimizer."""
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    stepper = optimizer(model.parameters(), lr=0.25)  # type: ignore[call-arg]  # all of them take it
    model(torch.ones(4, 3)).sum().backward()
    stepper.step()
    checkpoint = {
        "state_dict": {f"model.{name}": value for name, value in model.state_dict().items()},
        "optimizer_states": [stepper.state_dict()],
        "lr_schedulers": [{"last_epoch": 7}] if "scheduler" in config else [],
        "global_step": 12,
        "threshold": 0.375,
        "loops": {},
        "pytorch-lightning_version": "2.6.6",
        "callbacks": {"EpochLog": {"row": {"epoch": 4, "train_loss": 0.5, "val_loss": None}}},
    }
    snapshot = to_snapshot(
        checkpoint,
        model_config={},
        global_config=config,
        best_loss=0.125,
        next_epoch=5,
        next_batch=3,
    )
    write_snapshot(snapshot, path)
    return path


def test_a_summary_has_what_a_reader_asks_for(tmp_path: Path) -> None:
    config = {
        "monitor": "val_loss",
        "mode": "min",
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.25}},
        "scheduler": {"type": "StepLR"},
    }
    path = written(tmp_path / "last.pt", torch.optim.AdamW, config)
    assert summary(path) == {
        "file": str(path),
        "size": path.stat().st_size,
        "format": "lis2_lightning 1",
        "last_epoch": 4,
        "next_epoch": 5,
        "next_batch": 3,
        "steps": 12,
        "best_loss": 0.125,
        "monitor": "val_loss",
        "mode": "min",
        "threshold": 0.375,
        "last_row": {"epoch": 4, "train_loss": 0.5, "val_loss": None},
        # 2 x 3 and 2 of the layer, 4 x 2 and a count of the normalisation
        "weights": {"values": 17, "tensors": 7, "dtypes": {"float32": 16, "int64": 1}},
        "optimizer": {"class": "AdamW", "learning_rates": [0.25], "tensors": 4},
        "scheduler": {"class": "StepLR", "steps": 7},
        "versions": {
            "lis2-lightning": __version__,
            "torch": str(torch.__version__),
            "lightning": "2.6.6",
        },
        "config": config,
    }


def test_what_the_configuration_does_not_name_is_null(tmp_path: Path) -> None:
    facts = summary(written(tmp_path / "last.pt", torch.optim.SGD, {}))
    assert facts["optimizer"]["class"] is None
    assert facts["monitor"] is None
    assert facts["scheduler"] is None


def test_a_snapshot_of_lis2_is_described_as_such(tmp_path: Path) -> None:
    path = tmp_path / "theirs.pt"
    info = {"EPOCHS_RUN": 4, "BEST_LOSS": torch.tensor(0.5), "SCHEDULER_STATE": None}
    theirs = {
        "MODEL": {"MODEL_CONFIG": {"type": "unet"}, "MODEL_STATE": {"w": torch.zeros(3)}},
        "TRAIN_INFO": {**info, "OPTIMIZER_STATE": {"state": {}, "param_groups": [{"lr": 0.1}]}},
        "GLOBAL_CONFIG": {"trainer": {"optimizer": {"type": "Adam"}}},
    }
    torch.save(theirs, path)
    facts = summary(path)
    assert (facts["format"], facts["next_epoch"], facts["best_loss"]) == ("LIS2", 5, 0.5)
    assert "LIS2" in render(facts)


def test_the_text_is_narrow_and_is_the_summary_as_yaml(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, info = finished
    text = render(summary(folder / "last.pt"))
    assert max(map(len, text.splitlines())) <= 100
    file, facts = text.split("\n", 1)
    shown = yaml.safe_load(facts)
    assert file == f"{folder}/last.pt"
    assert shown["config"] == yaml.safe_load((folder / "config.yaml").read_text())
    assert shown["last_epoch"] == info["epochs_run"] - 1
    assert shown["best_loss"] == info["best_loss"]
    assert shown["size"].endswith("kB")


def test_a_terminal_is_shown_nothing_but_text(tmp_path: Path) -> None:
    evil = {"monitor": "\x1b[31m", "optimizer": {"type": "\x1b]0;x\x07"}, "\x1b[2J": "\x1b[0m"}
    first = written(tmp_path / "one.pt", torch.optim.SGD, evil)
    other = written(tmp_path / "other.pt", torch.optim.SGD, {"\x1b[2J": "\x1b[1m", "tall": "\n"})
    for text in (render(summary(first)), render_differences(differences(first, other))):
        assert text.replace("\n", "").isprintable()


def test_what_is_no_snapshot_is_refused(tmp_path: Path) -> None:
    (tmp_path / "torn.pt").write_bytes(b"torn")
    for work in (summary, lambda path: differences(path, path)):
        with pytest.raises(SnapshotError, match=r"torn\.pt"):
            work(tmp_path / "torn.pt")


def test_two_readings_of_a_file_do_not_differ(tmp_path: Path) -> None:
    path = written(tmp_path / "last.pt", torch.optim.Adam, {"a": [math.nan, (1, 2.0)]})
    assert differences(path, read_snapshot(path)) == []
    assert render_differences([]) == "no difference"


NAN = math.nan
PAIRS: dict[str, tuple[Any, Any, str | None]] = {
    "equal": ({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}, None),
    "not a number": ({"a": NAN}, {"a": NAN}, None),
    "counted": (Counter([1, 1]), Counter([1, 1]), None),
    "value": ({"a": [1, 2]}, {"a": [1, 3]}, "a/1: 2 | 3"),
    "type": ({"a": 1}, {"a": 1.0}, "a: 1 | 1.0"),
    "truth": ({"a": 1}, {"a": True}, "a: 1 | True"),
    "missing": ({"a": {0: "x"}}, {"a": {}}, "a/0: 'x' | missing"),
    "added": ({"a": []}, {"a": ["x"]}, "a/0: missing | 'x'"),
    "none": ({"a": None}, {}, "a: None | missing"),
    "kind": ({"a": {"b": 1}}, {"a": torch.zeros(2)}, "a: 1 entries | float32 [2]"),
    "long": ({"a": "x" * 99}, {"a": ""}, f"a: '{'x' * 58}… | ''"),
    "shape": ({"w": torch.zeros(2, 3)}, {"w": torch.zeros(6)}, "w: float32 [2, 3] | float32 [6]"),
    "dtype": ({"w": torch.zeros(2)}, {"w": torch.zeros(2).int()}, "w: float32 [2] | int32 [2]"),
}
TENSORS: dict[str, tuple[Tensor, Tensor, str | None]] = {
    "equal": (torch.tensor([1.0, NAN]), torch.tensor([1.0, NAN]), None),
    "empty": (torch.zeros(0), torch.zeros(0), None),
    "values": (torch.zeros(2, 2), torch.tensor([[0, 0.5], [-0.25, 0]]), "2 of 4*at most 0.5 (f"),
    "infinite": (torch.tensor([math.inf, 1]), torch.tensor([math.inf, 2]), "1 of 2*at most 1 (f"),
    "far": (torch.tensor([math.inf]), torch.tensor([1.0]), "1 of 1*by at most inf (float32 [1])"),
    "one NaN": (
        torch.tensor([NAN, 1]),
        torch.tensor([0, 1.5]),
        "2 of 2*0.5, 1 by being NaN in one",
    ),
    "only NaN": (torch.tensor(NAN), torch.tensor(0.0), "1 of 1 values differ, 1 by being NaN in"),
    "whole": (
        torch.tensor([2**62, 0]),
        torch.tensor([2**62 + 1, 0]),
        "1 of 2 values differ*(int64",
    ),
    "truth": (
        torch.tensor([True, True]),
        torch.tensor([True, False]),
        "1 of 2*at most 1 (bool [2])",
    ),
    "complex": (torch.tensor([3 + 0j]), torch.tensor([4j]), "1 of 1*at most 5 (complex64 [1])"),
    "half": (torch.ones(3).bfloat16(), torch.ones(3).bfloat16() * 2, "3 of 3*at most 1 (bfloat16"),
    "8 bits": (
        torch.ones(2).to(torch.float8_e4m3fn),
        torch.tensor([1, 1.5]).to(torch.float8_e4m3fn),
        "1 of 2*at most 0.5 (float8_e4m3fn [2])",
    ),
    "sparse": (
        torch.eye(2).to_sparse(),
        torch.zeros(2, 2).to_sparse(),
        "2 of 4*at most 1 (float32",
    ),
    "strided": (torch.arange(6.0).view(2, 3).t(), torch.arange(6.0).view(2, 3).t().clone(), None),
}


@pytest.mark.parametrize(("left", "right", "expected"), PAIRS.values(), ids=PAIRS)
def test_each_kind_of_difference_is_found(left: Any, right: Any, expected: str | None) -> None:
    assert [*map(str, differences(left, right))] == ([] if expected is None else [expected])


@pytest.mark.parametrize(("left", "right", "expected"), TENSORS.values(), ids=TENSORS)
def test_tensors_are_compared_value_by_value(
    left: Tensor, right: Tensor, expected: str | None
) -> None:
    items = differences({"w": left}, {"w": right})
    if expected is None:
        assert items == []
        return
    text = str(items[0])
    assert len(items) == 1
    assert text.startswith("w: ")
    assert all(part in text for part in expected.split("*"))


def test_many_differences_are_cut_and_counted() -> None:
    items = differences({str(i): i for i in range(50)}, {})
    lines = render_differences(items, limit=3).splitlines()
    assert lines[0] == "50 differences"
    assert lines[1:4] == [f"{i}  {i} | missing" for i in range(3)]
    assert lines[4:] == ["and 47 more"]
    assert render_differences(items[:1]).startswith("1 difference\n")


def test_settings_come_before_weights_and_a_long_line_is_broken() -> None:
    weights = {"a" * 40: torch.zeros(9)}, {"a" * 40: torch.ones(9)}
    first, other = (
        {"LIGHTNING": {"step": i}, "MODEL": weights[i], "GLOBAL_CONFIG": {"lr": i}} for i in (0, 1)
    )
    lines = render_differences(differences(first, other)).splitlines()
    assert lines[1:] == [
        "GLOBAL_CONFIG/lr  0 | 1",
        f"MODEL/{'a' * 40}",
        "    9 of 9 values differ, by at most 1 (float32 [9])",
        "LIGHTNING/step  0 | 1",
    ]
