"""A tracker that breaks: the training does not notice, and nothing is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import pytest
import torch

from lis2_lightning import Trainer
from lis2_lightning.snapshots import read_snapshot
from lis2_lightning.trackers.delivery import sync
from lis2_lightning.trackers.journal import Journal
from lis2_lightning.trackers.journal_logger import JournalLogger
from tests.conftest import TINY

from .proxy import Mode, Proxy

if TYPE_CHECKING:
    from tests.trackers.conftest import MlflowServer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]
Make = Callable[..., dict[str, Any]]
Log = Callable[[Path], list[dict[str, float]]]
EPOCHS = 8
KEYS = {"epochs": EPOCHS, "save_last": True}
# far below the 10 s of a request to a server that hangs, far above the delays of a busy machine
LONGEST_WAIT_S = 1.0
LONGER_S = 15.0


class At(pl.Callback):
    """Does something when an epoch begins; its time is not the training's."""

    def __init__(self, **actions: Callable[[], None]) -> None:
        self._actions = actions
        self.seconds = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        began = time.monotonic()
        self._actions.get(f"epoch_{trainer.current_epoch}", lambda: None)()
        self.seconds += time.monotonic() - began


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Two threads that wait for each other on busy cores would make every time a matter of luck."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each call to a tracker has kept the training."""
    measured: list[float] = []
    original = JournalLogger.add

    def add(self: JournalLogger, kind: str, **values: Any) -> None:
        began = time.perf_counter()
        original(self, kind, **values)
        if kind != "close":
            measured.append(time.perf_counter() - began)

    monkeypatch.setattr(JournalLogger, "add", add)
    return measured


@pytest.fixture
def proxied(mlflow_server: MlflowServer) -> Iterator[Callable[[Mode], Proxy]]:
    made: list[Proxy] = []

    def make(mode: Mode) -> Proxy:
        made.append(Proxy(mlflow_server.port, mode))
        return made[-1]

    yield make
    for proxy in made:
        proxy.turn("closed")


Weights = dict[str, torch.Tensor]


def train(config: dict[str, Any], at: At | None = None) -> tuple[float, Weights]:
    """Train; how long it took without the test's own actions, and the weights."""
    at = at or At()
    began = time.monotonic()
    trainer = Trainer.from_config(config, **{"lightning.callbacks": [at]})
    info = trainer.train()
    seconds = time.monotonic() - began - at.seconds
    return seconds, read_snapshot(Path(info["last_model_path"]))["MODEL"]["MODEL_STATE"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[float, Weights]:
    """A training without trackers."""
    return train({**TINY, **KEYS, "output_dir": str(tmp_path_factory.mktemp("plain"))})


Unhurt = Callable[..., Path]


@pytest.fixture
def assert_unhurt(tiny: Make, plain: tuple[float, Weights], waits: list[float]) -> Unhurt:
    """Train with trackers: the same weights as without, in nearly the same time."""

    def check(trackers: Any, at: At) -> Path:
        config = tiny(**KEYS, trackers=trackers)
        plain_s, expected = plain
        seconds, weights = train(config, at)
        assert expected.keys() == weights.keys()
        assert all(torch.equal(expected[name], weights[name]) for name in expected)
        assert seconds < plain_s + LONGER_S, f"{seconds:.1f} s instead of {plain_s:.1f} s"
        assert len(waits) >= EPOCHS
        assert max(waits) < LONGEST_WAIT_S
        return Path(config["output_dir"]) / "tiny"

    return check


def assert_all_there(server: MlflowServer, experiment: str, log: list[dict[str, float]]) -> None:
    (run,) = server.runs(experiment)
    for name in ("train_loss", "val_loss", "lr"):
        expected = [(int(row["epoch"]), row[name]) for row in log]
        assert server.history(run, name) == expected
    assert run["info"]["status"] == "FINISHED"
    assert server.artifacts(run) == ["config.yaml", "environment.json"]
    assert len(run["data"]["params"]) > 20


def mlflow(url: str, experiment: str) -> dict[str, Any]:
    return {"type": "Mlflow", "tracking_uri": url, "experiment_name": experiment}


@pytest.mark.parametrize("mode", ["closed", "silent", "500"])
def test_a_server_that_never_works_hurts_nothing_and_gets_every_row_later(
    mode: Mode,
    mlflow_server: MlflowServer,
    proxied: Callable[[Mode], Proxy],
    assert_unhurt: Unhurt,
    read_log: Log,
) -> None:
    proxy = proxied(mode)
    run_dir = assert_unhurt(mlflow(proxy.url, f"never {mode}"), At())
    proxy.turn("forward")
    (delivery,) = sync(run_dir)

    assert delivery.left == delivery.refused == 0
    assert_all_there(mlflow_server, f"never {mode}", read_log(run_dir / "logs_train.csv"))


def until_connected(run_dir: Path) -> Callable[[], None]:
    """Wait until a row has arrived, so that what breaks next breaks in the middle."""

    def wait() -> None:
        marks = run_dir / "trackers" / "mlflow" / "mark.json"
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if marks.is_file() and json.loads(marks.read_text())["offset"] > 0:
                return
            time.sleep(0.05)

    return wait


@pytest.mark.parametrize("mode", ["closed", "silent", "500"])
def test_a_server_that_breaks_in_the_middle_hurts_nothing_and_gets_every_row_later(  # noqa: PLR0917 - fixtures
    mode: Mode,
    mlflow_server: MlflowServer,
    proxied: Callable[[Mode], Proxy],
    assert_unhurt: Unhurt,
    tmp_path: Path,
    read_log: Log,
) -> None:
    proxy = proxied("forward")
    wait = until_connected(tmp_path / "runs" / "tiny")
    at = At(epoch_2=wait, epoch_3=lambda: proxy.turn(mode))

    run_dir = assert_unhurt(mlflow(proxy.url, f"breaks {mode}"), at)
    proxy.turn("forward")
    (delivery,) = sync(run_dir)

    assert delivery.left == delivery.refused == 0
    assert_all_there(mlflow_server, f"breaks {mode}", read_log(run_dir / "logs_train.csv"))


def test_a_server_that_is_killed_and_comes_back_gets_every_row_without_a_sync(
    mlflow_server: MlflowServer, assert_unhurt: Unhurt, tmp_path: Path, read_log: Log
) -> None:
    wait = until_connected(tmp_path / "runs" / "tiny")
    at = At(epoch_2=wait, epoch_3=mlflow_server.kill, epoch_6=mlflow_server.start)

    run_dir = assert_unhurt(mlflow(mlflow_server.url, "comes back"), at)

    journal = Journal(run_dir / "trackers" / "mlflow.jsonl")
    assert journal.mark().offset == journal.size
    assert_all_there(mlflow_server, "comes back", read_log(run_dir / "logs_train.csv"))


def test_weights_and_biases_out_of_reach_delays_nothing(
    proxied: Callable[[Mode], Proxy],
    assert_unhurt: Unhurt,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", proxied("closed").url)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)

    run_dir = assert_unhurt(["wandb"], At())

    lines = (run_dir / "trackers" / "wandb.jsonl").read_text().splitlines()
    assert sum('"kind": "row"' in line for line in lines) == EPOCHS
