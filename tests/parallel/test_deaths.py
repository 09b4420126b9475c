"""A process of a run dies or is signalled: all end with one sentence, and the run goes on exactly.

Everything runs through the real command line, with two real processes.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lis2_lightning.snapshots import newest_snapshot, read_snapshot
from tests.parallel.conftest import end_all, start

Config = Callable[[str], dict[str, Any]]
Command = Callable[..., "Ended"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="looks for processes there"),
]

# A user's module whose parts die where DIE says: how, in which process, in which place, and when
# that place is reached for the nth time.
DEADLY = """
import os
import signal
import time
from pathlib import Path

import lightning.pytorch as pl
from torch import distributed, nn

from lis2_lightning.errors import DataError

HOW, WHO, WHERE, NTH = (os.environ.get("DIE") or "none none none 0").split()
left = int(NTH)


def reach(place):
    global left
    rank = os.environ.get("LOCAL_RANK", "alone")  # the main process before it starts the others
    if place != WHERE or rank != WHO.removesuffix("s-parent"):
        return
    left -= 1
    if left == 0:
        Path(os.environ["MARK"]).touch()
        die()


def die():
    if HOW == "raise":
        raise ValueError("a bug of the user's")
    if HOW == "refuse":
        raise DataError("this tile is not to be read")
    if HOW == "exit":
        os._exit(3)
    number = signal.SIGTERM if HOW == "term" else signal.SIGKILL
    os.kill(os.getppid() if WHO.endswith("s-parent") else os.getpid(), number)
    time.sleep(60 * (HOW == "kill"))  # longer than a test waits for the end of all


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 3, 3, padding=1), nn.Dropout(0.3), nn.Conv2d(3, 1, 1))
        reach("build")

    def forward(self, patch):
        if distributed.is_initialized():  # and not in the trial before
            reach("step" if self.training else "validation")
        return super().forward(patch).sigmoid()


class Saving(pl.Callback):
    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        reach("save")

    def on_fit_end(self, trainer, pl_module):
        reach("end")


fsync = os.fsync


def reached_fsync(file):
    if os.fstat(file).st_size > 4000:  # a snapshot, and no smaller file
        reach("fsync")
    fsync(file)


os.fsync = reached_fsync
reach("import")
"""


@dataclass
class Ended:
    """How a command ended."""

    code: int
    output: str
    took_s: float

    @property
    def sentences(self) -> list[str]:
        """What was told of the end."""
        lines = self.output.splitlines()
        return [line for line in lines if "resume: auto" in line or "lis2: " in line]


@pytest.fixture
def config(tiny: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Make the configuration of a run of two processes, which writes a snapshot at each step."""
    parallel = {"accelerator": "cpu", "devices": 2, "strategy": "ddp"}

    def make(run_name: str) -> dict[str, Any]:
        return tiny(
            output_dir=str(tmp_path_factory.getbasetemp() / "deaths"),
            run_name=run_name,
            model={"class_path": "deadly.Net"},
            epochs=6,
            save_last=True,
            save_every_n_steps=1,
            resume="auto",
            report=False,
            lightning={
                **parallel,
                "enable_progress_bar": False,
                "callbacks": [{"class_path": "deadly.Saving"}],
            },
        )

    return make


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ended]:
    """Run ``lis2 fit`` of two processes once, with a death in it or without."""
    folder = tmp_path_factory.mktemp("deaths")
    (folder / "deadly.py").write_text(DEADLY, encoding="utf-8")

    def run(config: Mapping[str, Any], death: str = "", *more: str) -> Ended:
        path = folder / f"{config['run_name']}.yaml"
        path.write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
        mark = folder / "mark"
        mark.unlink(missing_ok=True)
        process = start(
            ["-m", "lis2_lightning", "fit", "--config", path, *more],
            folder,
            streams={"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE},
            DIE=death,
            MARK=str(mark),
        )
        try:
            # the pipe ends when the last process has closed it
            _, output = process.communicate(timeout=120)
            wait_until_gone(process.pid)
            died = mark.stat().st_mtime if death else time.time()
        finally:
            end_all([process])
        return Ended(process.returncode, output, time.time() - died)

    return run


def wait_until_gone(session: int) -> None:
    for _ in range(2000):
        if not of_session(session):
            return
        time.sleep(0.01)
    pytest.fail(f"processes {of_session(session)} have stayed")


def of_session(session: int) -> list[int]:
    """The living processes that a command has started; nobody may reap the dead ones here."""
    return [pid for pid, state, of in processes() if of == session and state != "Z"]


def processes() -> Iterator[tuple[int, str, int]]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        yield int(path.parent.name), fields[0], int(fields[3])


@pytest.fixture
def undisturbed(command: Command, config: Config) -> Path:
    """The folder of a run in which nothing happened."""
    settings = config("undisturbed")
    folder = Path(settings["output_dir"]) / "undisturbed"
    if not (folder / "result.json").is_file():
        ended = command(settings)
        assert ended.code == 0, ended.output
    return folder


def assert_goes_on(command: Command, settings: dict[str, Any], undisturbed: Path) -> None:
    """The same command once more comes to what the undisturbed run came to, bit for bit."""
    ended = command(settings)
    assert ended.code == 0, ended.output
    folder = undisturbed.with_name(settings["run_name"])
    for name in ("logs_train.csv", "test_results.csv"):
        assert (folder / name).read_text() == (undisturbed / name).read_text()
    resumed, expected = weights(folder), weights(undisturbed)
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(resumed[name], expected[name]) for name in resumed)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    newest = newest_snapshot(folder)
    assert newest is not None
    state: dict[str, torch.Tensor] = read_snapshot(newest)["MODEL"]["MODEL_STATE"]
    return state


def assert_ended(ended: Ended, code: int, sentence: str, *, tracebacks: int = 0) -> None:
    """All are gone in time, with this code and this one sentence."""
    assert ended.code == code, ended.output
    assert len(ended.sentences) == 1, ended.output
    assert sentence in ended.sentences[0]
    assert ended.output.count("Traceback") == tracebacks, ended.output
    assert ended.took_s < 10, ended.output


# Each process dies in each phase; in both loops it is the same exchange that the other waits in.
KILLED = {
    "1s-parent import 1": (-9, "the main process ("),
    "1 build 1": (1, ") was killed by SIGKILL"),
    "0 step 2": (-9, "the main process ("),
    "1 validation 1": (1, "process 1 ("),
    "0 fsync 2": (-9, "the main process ("),
    "1 save 1": (1, "process 1 ("),
}


def test_when_a_process_is_killed_all_end_and_the_run_goes_on_exactly(
    command: Command, config: Config, undisturbed: Path
) -> None:
    settings = config("killed")
    for death, (code, sentence) in KILLED.items():
        ended = command(settings, f"kill {death}")
        assert_ended(ended, code, sentence)
        assert "resume: auto" in ended.sentences[0]
    assert_goes_on(command, settings, undisturbed)


FAILED = {
    "raise 1 import 1": (2, "a bug of the user's", 0),
    "raise 0 step 2": (1, "process 0 (", 1),
    "refuse 1 validation 1": (2, "this tile is not to be read", 0),
    "raise 0 fsync 2": (1, "process 0 (", 1),
    "raise 1 save 1": (1, "process 1 (", 1),
    "exit 1 step 1": (3, ") ended with code 3 before the run was over", 0),
}


def test_when_a_process_fails_it_tells_why_and_the_run_goes_on_exactly(
    command: Command, config: Config, undisturbed: Path
) -> None:
    settings = config("failed")
    for death, (code, sentence, tracebacks) in FAILED.items():
        assert_ended(command(settings, death), code, sentence, tracebacks=tracebacks)
    assert_goes_on(command, settings, undisturbed)


# test_resuming.py asks either process in either loop, and compares what they go on to
ASKED = {
    "alone import 1": "SIGTERM outside the loops: what is written is whole",
    "1 import 1": ") was ended by SIGTERM",
    "1s-parent build 1": "last.pt. Run the same command",
    "0 step 2": "last.pt. Run the same command",
    "1 validation 1": "last.pt. Run the same command",
    "0 fsync 1": "last.pt. Run the same command",
    "1 end 1": ") was ended by SIGTERM",
}


def test_when_a_process_is_asked_to_end_all_end_and_the_run_goes_on_exactly(
    command: Command, config: Config, undisturbed: Path
) -> None:
    settings = config("asked")
    for death, sentence in ASKED.items():
        ended = command(settings, f"term {death}")
        assert_ended(ended, 128 + signal.SIGTERM, sentence)
        assert "SIGTERM" in ended.sentences[0]
        assert "the same command with resume: auto" in ended.sentences[0]
    assert_goes_on(command, settings, undisturbed)
