"""MLflow: what arrives at a real server, read back through its REST interface."""

from __future__ import annotations

import base64
import json
import math
import os
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import pytest

from lis2_lightning import Trainer
from lis2_lightning.trackers import Mlflow
from lis2_lightning.trackers.delivery import sync
from lis2_lightning.trackers.journal import Journal
from lis2_lightning.trackers.journal_logger import JournalLogger, close_all, journal_logger

if TYPE_CHECKING:
    from tests.trackers.conftest import MlflowServer

pytestmark = pytest.mark.slow
Make = Callable[..., dict[str, Any]]
Log = Callable[[Path], list[dict[str, float]]]


def settle(config: dict[str, Any], name: str = "tiny") -> None:
    """Wait for what is still uploading after a run that was shorter than an import of mlflow."""
    sync(Path(config["output_dir"]) / name)


def tracker(server: MlflowServer, experiment: str, **keys: Any) -> dict[str, Any]:
    return {
        "type": "Mlflow",
        "tracking_uri": server.url,
        "experiment_name": experiment,
        **keys,
    }


def logger_of(server: MlflowServer, experiment: str, run_dir: Path) -> JournalLogger:
    return journal_logger(Mlflow(server.url, experiment), None, run_dir, "a run")


def test_configuration_rows_files_and_status_arrive(
    mlflow_server: MlflowServer, tiny: Make, read_log: Log
) -> None:
    config = tiny(epochs=3, trackers=tracker(mlflow_server, "whole", log_model=True))
    trainer = Trainer.from_config(config)

    info = trainer.train()
    settle(config)

    (run,) = mlflow_server.runs("whole")
    parameters = {item["key"]: item["value"] for item in run["data"]["params"]}
    tags = {item["key"]: item["value"] for item in run["data"]["tags"]}
    latest = {item["key"]: item["value"] for item in run["data"]["metrics"]}
    assert run["info"]["status"] == "FINISHED"
    assert run["info"]["run_name"] == "tiny"
    assert parameters["batch_size"] == "4"
    assert parameters["optimizer.init_args.lr"] == "0.01"
    assert "environment.packages.torch" in tags
    folder = Path(info["output_dir"]) / "tiny"
    environment = json.loads((folder / "environment.json").read_bytes())
    assert shlex.split(tags["environment.command"]) == environment["command"]
    rows = read_log(folder / "logs_train.csv")
    for name in ("train_loss", "val_loss", "lr", "val_dice"):
        expected = [(int(row["epoch"]), row[name]) for row in rows]
        assert mlflow_server.history(run, name) == expected
    journal = Journal(folder / "trackers/mlflow.jsonl")
    times = {record["kind"]: int(1000 * record["time"]) for record, _ in journal.read()}
    assert run["info"]["start_time"] == times["start"]  # not when it was sent
    assert run["info"]["end_time"] == times["close"]
    assert latest["test_dice"] == info["metrics_test"]["dice"]
    assert latest["best_loss"] == info["best_loss"]
    assert mlflow_server.artifacts(run) == [
        "best.pt",
        "config.yaml",
        "curves.png",
        "environment.json",
        "prediction.png",
    ]


@pytest.mark.usefixtures("no_pictures")
def test_a_resumed_run_continues_the_same_run(mlflow_server: MlflowServer, tiny: Make) -> None:
    config = tiny(save_last=True, trackers=tracker(mlflow_server, "resumed"))
    Trainer.from_config(config).train()
    settle(config)
    (first,) = mlflow_server.runs("resumed")

    Trainer.from_config({**config, "resume": "auto", "epochs": 4}).train()
    last = Path(config["output_dir"]) / "tiny" / "last.pt"
    Trainer.from_snapshot(last, run_name="elsewhere", epochs=5).train()
    settle(config)
    settle(config, "elsewhere")

    (run,) = mlflow_server.runs("resumed")
    tags = {item["key"]: item["value"] for item in run["data"]["tags"]}
    assert run["info"]["run_id"] == first["info"]["run_id"]
    assert run["info"]["status"] == "FINISHED"
    assert [step for step, _ in mlflow_server.history(run, "train_loss")] == [0, 1, 2, 3, 4]
    assert tags["resumed.epochs"] == "5"


class Stops(pl.Callback):
    """Sends the process a signal when the second epoch begins."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.usefixtures("no_pictures")
def test_a_run_that_a_signal_ends_is_killed_there(mlflow_server: MlflowServer, tiny: Make) -> None:
    quiet = {"enable_progress_bar": False, "accelerator": "cpu", "callbacks": [Stops()]}
    config = tiny(trackers=tracker(mlflow_server, "stopped"), lightning=quiet)

    with pytest.raises(SystemExit):
        Trainer.from_config(config).train()
    settle(config)

    (run,) = mlflow_server.runs("stopped")
    assert run["info"]["status"] == "KILLED"


@pytest.mark.usefixtures("no_pictures")
def test_a_run_that_fails_is_failed_there(
    mlflow_server: MlflowServer, tiny: Make, networks: str
) -> None:
    model = {"class_path": f"{networks}.Diverges"}
    config = tiny(trackers=tracker(mlflow_server, "failed"), model=model)

    with pytest.raises(Exception, match="loss"):
        Trainer.from_config(config).train()
    settle(config)

    (run,) = mlflow_server.runs("failed")
    assert run["info"]["status"] == "FAILED"


def test_numbers_names_and_texts_of_every_kind_arrive(
    mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    made = logger_of(mlflow_server, "kinds", tmp_path / "run")
    made.log_hyperparams({"long": "x" * 100_000, "größe": "µ ☉", "a b/c": {"d": [1, None]}})
    values = {"epoch": 0.0, "val dice/2 (%)": math.nan, "größe": 1.5, "up": math.inf}
    made.log_metrics(values, step=0)
    made.log_metrics({"epoch": 1.0, **{f"m{i}": float(i) for i in range(250)}}, step=1)
    close_all([made], "finished")
    sync(tmp_path / "run")

    (run,) = mlflow_server.runs("kinds")
    parameters = {item["key"]: item["value"] for item in run["data"]["params"]}
    assert parameters["long"].startswith("xxx")
    assert parameters["größe"] == "µ ☉"
    assert parameters["a b/c.d.0"] == "1"
    assert math.isnan(mlflow_server.history(run, "val dice/2 ___")[0][1])
    assert mlflow_server.history(run, "größe") == [(0, 1.5)]
    assert mlflow_server.history(run, "m249") == [(1, 249.0)]


KILLED = """
import os, sys, time
from pathlib import Path
from lis2_lightning.trackers import Mlflow
from lis2_lightning.trackers.journal_logger import journal_logger
made = journal_logger(Mlflow(sys.argv[1], "lost"), None, Path(sys.argv[2]), "lost")
for epoch in range(5):
    made.log_metrics({"epoch": epoch, "train_loss": 1.0}, step=epoch)
os.kill(os.getpid(), 9)
"""


def test_a_process_that_is_killed_loses_no_row_and_its_run_is_closed(
    mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    words = [sys.executable, "-c", KILLED, mlflow_server.url, str(tmp_path / "run")]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL

    journal = Journal(tmp_path / "run" / "trackers" / "mlflow.jsonl")
    until = time.monotonic() + 60
    while '"close"' not in journal.path.read_text() or journal.mark().offset < journal.size:
        assert time.monotonic() < until
        time.sleep(0.1)  # the process beside it continues, and ends by itself

    (run,) = mlflow_server.runs("lost")
    assert [step for step, _ in mlflow_server.history(run, "train_loss")] == [0, 1, 2, 3, 4]
    assert run["info"]["status"] == "KILLED"


HASTY = """
import sys
from lis2_lightning.trackers import delivery_process
delivery_process.LINGER_S = 1.0
delivery_process.main(sys.argv[1])
"""


def test_a_call_that_never_returns_ends_with_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3600")
    journal = Journal(tmp_path / "run" / "trackers" / "mlflow.jsonl")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = vars(Mlflow(f"http://127.0.0.1:{silent.getsockname()[1]}"))
        journal.append("start", key="k", service="mlflow", options=options, run_name="hangs")
        journal.append("row", values={"epoch": 0.0}, step=0)
        words = [sys.executable, "-c", HASTY, str(journal.path)]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, check=False, timeout=120)

    assert done.returncode == 1
    assert journal.rows_left() == 1


@pytest.mark.usefixtures("no_pictures")
def test_without_a_server_the_runs_lie_in_a_file_beside_their_folders(tiny: Make) -> None:
    config = tiny(trackers=["mlflow"])

    Trainer.from_config(config).train()

    with closing(sqlite3.connect(Path(config["output_dir"]) / "mlflow.db")) as store:
        steps = store.execute("SELECT step FROM metrics WHERE key = 'train_loss'").fetchall()
        runs = store.execute("SELECT name, status FROM runs").fetchall()
    assert sorted(steps) == [(0,), (1,)]
    assert runs == [("tiny", "FINISHED")]
    assert (Path(config["output_dir"]) / "mlflow-artifacts").is_dir()


def files_with(secret: str, folder: Path) -> list[str]:
    """The files below a folder that hold a text."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in files if secret.encode() in path.read_bytes()]


def test_a_login_in_the_address_reaches_the_server_and_no_file(tiny: Make, tmp_path: Path) -> None:
    seen: list[str | None] = []

    class Asks(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            self.send_error(500)

        do_POST = do_GET  # noqa: N815 - the name that http.server asks for

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Asks) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        uri = f"http://me:S3CRET%40PW@{address}"
        trainer = Trainer.from_config(tiny(trackers={"type": "Mlflow", "tracking_uri": uri}))
        assert trainer.config["trackers"]["tracking_uri"] == uri  # what the user has written
        trainer.train()
        until = time.monotonic() + 120
        while not seen and time.monotonic() < until:
            time.sleep(0.1)
        server.shutdown()
    login = base64.b64encode(b"me:S3CRET@PW").decode()
    assert set(seen) == {f"Basic {login}"}
    assert "S3CRET" not in str(trainer.global_config)
    assert f"http://{address}" in str(trainer.global_config)
    for secret in ("S3CRET", login):
        assert files_with(secret, tmp_path / "runs") == []


def test_a_login_is_in_no_file_of_a_server_that_answers(
    mlflow_server: MlflowServer, tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = mlflow_server.url.replace("http://", "http://me:S3CRETPW@")
    tracked = {**tracker(mlflow_server, "login"), "tracking_uri": uri}
    config = tiny(trackers=[tracked, {"type": "Wandb", "offline": True}, "tensorboard"])

    Trainer.from_config(config).train()
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")  # sync sets both from the next one
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    settle(config)

    (run,) = mlflow_server.runs("login")
    assert run["info"]["status"] == "FINISHED"
    assert "S3CRETPW" not in str(run)
    assert files_with("S3CRETPW", tmp_path) == []
