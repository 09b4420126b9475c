"""Services for the trackers' tests: a real one, and some that are broken in one way each."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lis2_lightning.trackers import delivery, journal_logger


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits for tests that wait until they are reached."""
    limits = {"RETRY_S": 0.3, "BACKOFF_S": 0.05, "LONGEST_PAUSE_S": 0.1}
    for name, value in {**limits, "POLL_S": 0.02}.items():
        monkeypatch.setattr(delivery, name, value)
    monkeypatch.setattr(journal_logger, "STALL_S", 0.5)


def free_port() -> int:
    """A port on which nothing answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class MlflowServer:
    """A real ``mlflow server`` with a SQLite store, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = ["--backend-store-uri", f"sqlite:///{self.folder / 'store.db'}"]
        words += ["--artifacts-destination", str(self.folder / "artifacts")]
        words += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *words],
                stdout=log,
                stderr=log,
                env={**os.environ, **quiet},
                start_new_session=True,
            )
        until = time.monotonic() + 120
        while not self._is_up():
            assert time.monotonic() < until, (self.folder / "log.txt").read_text()
            time.sleep(0.1)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def _is_up(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:  # noqa: S310 - http
                return bool(answer.status == 200)
        except OSError:
            return False

    def ask(self, path: str, **arguments: Any) -> dict[str, Any]:
        """Ask the REST interface."""
        request = urllib.request.Request(f"{self.url}/api/2.0/mlflow/{path}")  # noqa: S310 - http
        if arguments.pop("post", False):
            request.data = json.dumps(arguments).encode()
            request.add_header("Content-Type", "application/json")
        else:
            request.full_url += "?" + urllib.parse.urlencode(arguments)
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - http
            read: dict[str, Any] = json.load(answer)
        return read

    def runs(self, experiment: str) -> list[dict[str, Any]]:
        experiment_info = self.ask("experiments/get-by-name", experiment_name=experiment)
        number = experiment_info["experiment"]["experiment_id"]
        answer = self.ask("runs/search", experiment_ids=[number], post=True)
        return list(answer.get("runs", []))

    def history(self, run: dict[str, Any], metric: str) -> list[tuple[int, float]]:
        """Steps and values of a metric, as often as the server has them."""
        answer = self.ask(
            "metrics/get-history", run_id=run["info"]["run_id"], metric_key=metric, max_results=5000
        )
        return sorted((int(m.get("step", 0)), float(m["value"])) for m in answer["metrics"])

    def artifacts(self, run: dict[str, Any]) -> list[str]:
        answer = self.ask("artifacts/list", run_id=run["info"]["run_id"])
        return sorted(file["path"] for file in answer.get("files", []))


@pytest.fixture(scope="session")
def _one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    yield server
    server.kill()


@pytest.fixture
def mlflow_server(_one_server: MlflowServer) -> MlflowServer:
    """A server that runs, also where the last test has killed it."""
    if not _one_server.is_running:
        _one_server.start()
    return _one_server
