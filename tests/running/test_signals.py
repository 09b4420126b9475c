"""The command line under signals: exit codes, sentences, whole files, the same command again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lis2_lightning import Trainer
from lis2_lightning.base.signals import Signals
from lis2_lightning.snapshots import read_snapshot
from tests.parallel.conftest import end_all
from tests.parallel.conftest import start as start_process

Make = Callable[..., dict[str, Any]]
Start = Callable[..., subprocess.Popen[str]]

# A network of a user's that takes its time, so that a signal finds it at work.
SLOW = """
import os
import time
from pathlib import Path
from torch import nn


class Slow(nn.Conv2d):
    def __init__(self) -> None:
        super().__init__(1, 1, 1)
        self.calls = 0

    def forward(self, patch):
        self.calls += 1
        if "MARK" in os.environ and self.calls > 2:  # the first is a trial, outside of the loops
            Path(os.environ["MARK"]).touch()
        time.sleep(0.05)
        return super().forward(patch).sigmoid()
"""


@pytest.fixture
def config(tiny: Make, tmp_path: Path) -> Path:
    """The configuration of a run of many seconds."""
    (tmp_path / "slow_network.py").write_text(SLOW, encoding="utf-8")
    network = {"class_path": "slow_network.Slow"}
    settings = tiny(model=network, epochs=50, resume="auto", report=False)
    path = tmp_path / "slow.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the command line, and see to its end."""
    processes: list[subprocess.Popen[str]] = []

    def run(*words: str, **variables: str) -> subprocess.Popen[str]:
        processes.append(start_process(["-m", "lis2_lightning", *words], tmp_path, **variables))
        return processes[-1]

    yield run
    end_all(processes)


def wait_for_rows(folder: Path, num: int = 1) -> None:
    """Wait until a run has finished some epochs."""
    log = folder / "logs_train.csv"
    for _ in range(1200):
        if log.is_file() and len(log.read_text(encoding="utf-8").splitlines()) > num:
            return
        time.sleep(0.1)
    pytest.fail("the run has not begun within two minutes")


def assert_stopped(process: subprocess.Popen[str], number: int, folder: Path) -> None:
    """The process ended with the signal's code and one sentence, and left a whole snapshot."""
    _, output = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    name = signal.Signals(number).name
    sentences = [line for line in output.splitlines() if name in line]
    assert len(sentences) == 1
    assert "last.pt. Run the same command with resume: auto to continue" in sentences[0]
    assert "Traceback" not in output
    assert read_snapshot(folder / "last.pt")["LIGHTNING"]["next_epoch"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "workers"),
    [
        # the first three without workers: the next two tests, and test_kernel.py
        *((number, 2) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)),
        *((number, 0) for number in (signal.SIGUSR2, signal.SIGXCPU, signal.SIGHUP)),
    ],
)
def test_a_signal_ends_a_run_with_its_code_and_a_whole_snapshot(
    config: Path, start: Start, tmp_path: Path, number: int, workers: int
) -> None:
    process = start("fit", "--config", str(config), f"--num_workers={workers}")
    wait_for_rows(tmp_path / "runs/tiny")
    # as a terminal or a scheduler does it: to the workers of the data loaders, too
    os.killpg(process.pid, number)
    assert_stopped(process, number, tmp_path / "runs/tiny")


@pytest.mark.slow
def test_the_same_command_goes_on_to_the_result_of_an_undisturbed_run(
    config: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "runs/tiny"
    words = ("fit", "--config", str(config), "--epochs=6")
    for num in (1, 3):
        process = start(*words)
        wait_for_rows(folder, num)
        process.send_signal(signal.SIGTERM)
        assert_stopped(process, signal.SIGTERM, folder)
    process = start(*words)
    _, output = process.communicate(timeout=120)
    assert process.returncode == 0, output
    monkeypatch.syspath_prepend(str(tmp_path))
    Trainer.from_config(config, epochs=6, run_name="whole").train()
    for name in ("logs_train.csv", "test_results.csv"):
        assert (folder / name).read_text() == (tmp_path / "runs/whole" / name).read_text()


def test_a_second_ctrl_c_ends_at_once() -> None:
    code = """
        import signal
        from lis2_lightning.base.signals import Signals
        with Signals().noted():
            signal.raise_signal(signal.SIGINT)
            print("noted", flush=True)
            signal.raise_signal(signal.SIGINT)
            print("never")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "noted\n")


def test_the_kernels_repeated_warning_of_a_time_limit_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lis2_lightning.base.signals._TWICE_S", -1.0)
    signals = Signals()
    with signals.noted():
        for _ in range(3):
            signal.raise_signal(signal.SIGXCPU)
        assert signals.received == signal.SIGXCPU


def test_a_snapshot_that_is_being_written_is_waited_for(tmp_path: Path) -> None:
    code = """
        import signal, sys, time
        from lis2_lightning.base import files, signals
        signals._FIRST_BATCH_S = 0.3
        with signals.Signals().noted():
            with files.atomic(sys.argv[1]) as file:
                signal.raise_signal(signal.SIGTERM)
                time.sleep(1)
                file.write(b"whole")
            print("written", flush=True)
            time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "last.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "written\n")
    assert "SIGTERM: the data does not answer, so the run ends" in done.stderr
    assert (tmp_path / "last.pt").read_bytes() == b"whole"


def test_a_signal_that_a_shell_has_had_ignored_stays_ignored() -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with Signals().noted():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert callable(signal.getsignal(signal.SIGTERM))
    finally:
        signal.signal(signal.SIGHUP, former)


# A data set on a disk that goes away once MARK/gone is there.
STUCK = """
import os
import time
from pathlib import Path

import torch


class Stuck(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        mark = Path(os.environ["MARK"])
        if index == 5 and (mark / "gone").exists():
            (mark / f"pid-{os.getpid()}").touch()
            time.sleep(3600)
        time.sleep(0.02)
        return {"patch": torch.full((1, 8, 8), 0.1 * index), "target": torch.ones(1, 8, 8)}
"""


@pytest.fixture
def stuck(tmp_path: Path, tiny: Make, start: Start) -> Callable[..., subprocess.Popen[str]]:
    """Start a run that has finished an epoch and waits for data for ever."""
    (tmp_path / "stuck_data.py").write_text(STUCK, encoding="utf-8")
    (tmp_path / "mark").mkdir()
    settings = tiny(
        train_dataset={"class_path": "stuck_data.Stuck"}, epochs=500, batch_size=2, save_last=True
    )
    settings |= {"val_dataset": None, "test_dataset": None}
    path = tmp_path / "stuck.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")

    def run(workers: int) -> subprocess.Popen[str]:
        words = ("fit", "--config", str(path), f"--num_workers={workers}")
        process = start(*words, MARK=str(tmp_path / "mark"))
        wait_for_rows(tmp_path / "runs/tiny")
        (tmp_path / "mark" / "gone").touch()
        for _ in range(600):
            if list((tmp_path / "mark").glob("pid-*")):
                return process
            time.sleep(0.05)
        return pytest.fail("the data has not been asked for within half a minute")

    return run


def assert_gone(folder: Path) -> None:
    """Whichever processes hung have ended, and the run's files are whole."""
    for mark in (folder / "mark").glob("pid-*"):
        for _ in range(100):
            if not Path(f"/proc/{mark.name.removeprefix('pid-')}/cmdline").exists():
                break
            time.sleep(0.05)
        else:
            pytest.fail(f"{mark.name} goes on")
    assert read_snapshot(folder / "runs/tiny/last.pt")["LIGHTNING"]["next_epoch"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_sigterm_ends_a_run_whose_data_does_not_answer(
    stuck: Callable[..., subprocess.Popen[str]], tmp_path: Path, workers: int
) -> None:
    process = stuck(workers)

    process.send_signal(signal.SIGTERM)
    _, output = process.communicate(timeout=60)

    assert process.returncode == 128 + signal.SIGTERM, output
    # with workers, a batch that was fetched before may come
    hangs = "lis2: SIGTERM: the data does not answer, so the run ends; what is written is whole"
    assert hangs in output or (workers and "saved " in output)
    assert "Traceback" not in output
    assert_gone(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second", "pause"),
    [
        (signal.SIGTERM, signal.SIGTERM, 1.2),
        (signal.SIGUSR1, signal.SIGTERM, 1.2),
        (signal.SIGINT, signal.SIGINT, 0.2),
    ],
)
def test_a_second_signal_ends_a_run_whose_data_does_not_answer(
    stuck: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    first: signal.Signals,
    second: signal.Signals,
    pause: float,
) -> None:
    process = stuck(2)

    process.send_signal(first)
    time.sleep(pause)
    assert process.poll() is None
    process.send_signal(second)
    _, output = process.communicate(timeout=10)

    assert process.returncode == -second
    assert "Traceback" not in output
    assert_gone(tmp_path)


@pytest.mark.slow
def test_slurm_is_asked_to_start_the_job_again_and_it_goes_on_by_itself(
    config: Path, start: Start, tmp_path: Path
) -> None:
    asked = tmp_path / "asked.txt"
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n', encoding="utf-8")
    scontrol.chmod(0o755)
    job = {
        "PATH": f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "filaments",
        "SLURM_NTASKS": "1",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
    }
    words = ("fit", "--config", str(config), "--resume=false", "--epochs=4")
    process = start(*words, **job)
    wait_for_rows(tmp_path / "runs/tiny")
    process.send_signal(signal.SIGUSR1)
    assert_stopped(process, signal.SIGUSR1, tmp_path / "runs/tiny")
    assert asked.read_text(encoding="utf-8") == "requeue 4711\n"

    process = start(*words, **job, SLURM_RESTART_COUNT="1")
    _, output = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "resuming from" in output
    rows = (tmp_path / "runs/tiny/logs_train.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "0", "1", "2", "3"]


@pytest.mark.slow
def test_a_signal_during_a_prediction_ends_it_with_its_code(
    config: Path, start: Start, tmp_path: Path
) -> None:
    process = start("fit", "--config", str(config), "--epochs=1")
    assert process.wait(timeout=120) == 0
    written = tmp_path / "runs/tiny/prediction.npy"
    before = written.stat().st_mtime_ns
    mark = tmp_path / "predicting"
    process = start(
        "predict", "--config", str(config), "--batch_size=1", "--overwrite", MARK=str(mark)
    )
    while not mark.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, output = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "SIGTERM during predict: the files written so far are whole" in output
    assert written.stat().st_mtime_ns == before
    assert read_snapshot(tmp_path / "runs/tiny/best.pt")["LIGHTNING"]["next_epoch"] == 1
