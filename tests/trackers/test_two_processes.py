"""Two processes: every tracker has each row once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from lis2_lightning.trackers.csv_rows import read_rows
from lis2_lightning.trackers.delivery import sync
from lis2_lightning.trackers.journal import Journal

if TYPE_CHECKING:
    from tests.trackers.conftest import MlflowServer

pytestmark = pytest.mark.slow


def test_with_two_processes_each_tracker_has_each_row_once(
    tiny: Callable[..., dict[str, Any]], tmp_path: Path, mlflow_server: MlflowServer
) -> None:
    mlflow = {"type": "Mlflow", "tracking_uri": mlflow_server.url, "experiment_name": "two"}
    offline = {"type": "Wandb", "offline": True}
    lightning = {"accelerator": "cpu", "devices": 2, "strategy": "ddp"}
    config = tiny(
        epochs=3,
        trackers=[mlflow, offline, "tensorboard"],
        lightning={**lightning, "enable_progress_bar": False},
    )
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")

    words = [sys.executable, "-m", "lis2_lightning", "fit", "--config", str(tmp_path / "two.yaml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)

    assert done.returncode == 0, done.stderr
    run_dir = Path(config["output_dir"]) / "tiny"
    assert all(delivery.left == 0 for delivery in sync(run_dir))
    for name in ("mlflow", "wandb", "tensorboard"):
        records = [r for r, _ in Journal(run_dir / "trackers" / f"{name}.jsonl").read()]
        assert [r["step"] for r in records if r["kind"] == "row"] == [0, 1, 2]
        assert sum(r["kind"] == "start" for r in records) == 1
    (run,) = mlflow_server.runs("two")
    assert [step for step, _ in mlflow_server.history(run, "train_loss")] == [0, 1, 2]
    assert len(read_rows(run_dir / "logs_train.csv")[1]) == 3
