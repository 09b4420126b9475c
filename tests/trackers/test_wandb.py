"""Weights & Biases offline: what is in the file that ``wandb sync`` would send.

wandb 0.31 reads that file in a program of its own which only sends it. So the frames, which are
those of LevelDB's log, are read here, and the records in them with wandb's own messages.
"""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from lis2_lightning import Trainer
from lis2_lightning.trackers import Wandb
from lis2_lightning.trackers.delivery import sync
from lis2_lightning.trackers.journal_logger import close_all, journal_logger

pytestmark = pytest.mark.slow
Make = Callable[..., dict[str, Any]]
_BLOCK = 32_768


def frames(path: Path) -> Iterator[bytes]:
    """The records of a LevelDB log after wandb's own 7 bytes; long ones come in several parts."""
    data, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if _BLOCK - place % _BLOCK < 7:
            place += _BLOCK - place % _BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in {1, 4}:  # the whole of it, or its last part
            yield parts
            parts = b""


class Run:
    """What a run's files hold: history, configuration, summary, artifacts, exit code."""

    def __init__(self, folder: Path) -> None:
        wandb_internal_pb2: Any = import_module("wandb.proto.wandb_internal_pb2")

        self.history: list[dict[str, Any]] = []
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.artifacts: list[str] = []
        self.exit_code: int | None = None
        self.ids: set[str] = set()
        for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
            for frame in frames(path):
                self._add(wandb_internal_pb2.Record.FromString(frame))

    def _add(self, record: Any) -> None:
        kind = record.WhichOneof("record_type")
        if kind == "history":
            self.history.append(_values(record.history.item))
        elif kind == "config":
            self.config |= _values(record.config.update)
        elif kind == "summary":
            self.summary |= _values(record.summary.update)
        elif kind == "artifact":
            self.artifacts.append(record.artifact.name.split("-", 1)[1])
        elif kind == "exit":
            self.exit_code = record.exit.exit_code
        elif kind == "run":
            self.ids.add(record.run.run_id)
            self.config |= _values(record.run.config.update)


def _values(items: Any) -> dict[str, Any]:
    """Values by name; a nested name is a list of keys."""
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def offline(project: str = "tests") -> dict[str, Any]:
    return {"type": "Wandb", "project": project, "offline": True, "log_model": True}


def test_history_configuration_summary_and_files_are_in_the_offline_file(
    tiny: Make, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny(epochs=3, trackers=offline())

    with caplog.at_level(logging.INFO, "lis2_lightning"):
        info = Trainer.from_config(config).train()

    run = Run(Path(config["output_dir"]) / "tiny")
    assert [row["epoch"] for row in run.history] == [0, 1, 2]
    assert [row["_step"] for row in run.history] == [0, 1, 2]
    assert run.history[-1]["train_loss"] == info["metrics_train"]["loss"]
    assert run.config["batch_size"] == 4
    assert "torch" in run.config["environment"]["packages"]
    assert run.summary["test_dice"] == info["metrics_test"]["dice"]
    assert set(run.artifacts) >= {
        "config.yaml",
        "environment.json",
        "curves.png",
        "prediction.png",
        "best.pt",
    }
    assert run.exit_code == 0
    assert "wandb sync" in caplog.text


@pytest.mark.usefixtures("no_pictures")
def test_without_a_login_the_run_is_kept_offline(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    config = tiny(trackers=["wandb"])

    Trainer.from_config(config).train()
    (delivery,) = sync(Path(config["output_dir"]) / "tiny")

    run = Run(Path(config["output_dir"]) / "tiny")
    assert [row["epoch"] for row in run.history] == [0, 1]
    assert delivery.left == 0


@pytest.mark.usefixtures("no_pictures")
def test_a_resumed_run_continues_under_the_same_id(tiny: Make) -> None:
    config = tiny(save_last=True, trackers=offline())
    Trainer.from_config(config).train()

    Trainer.from_config({**config, "resume": "auto", "epochs": 4}).train()

    run = Run(Path(config["output_dir"]) / "tiny")
    assert len(run.ids) == 1
    assert [row["epoch"] for row in run.history] == [0, 1, 2, 3]


def test_numbers_names_and_texts_of_every_kind_are_in_the_file(tmp_path: Path) -> None:
    made = journal_logger(Wandb(offline=True), None, tmp_path / "run", "größe")
    made.log_hyperparams({"long": "x" * 100_000, "größe": "µ ☉", "a b/c": [1, None]})
    made.log_metrics({"epoch": 0.0, "val dice/2 (%)": float("nan"), "größe": 1.5}, step=0)
    close_all([made], "failed")

    run = Run(tmp_path / "run")
    assert len(run.config["long"]) == 6000
    assert run.config["größe"] == "µ ☉"
    assert run.history[0]["größe"] == 1.5
    assert str(run.history[0]["val dice/2 (%)"]).lower() == "nan"
    assert run.summary["lis2_status"] == "failed"
    assert run.exit_code == 1
