"""Processes side by side: so many at once, failures told, signals passed on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lis2_lightning import TrainingError
from lis2_lightning.evaluation import side_by_side

# in place of a training: notes how many run at the same time, and fails or stops as it is asked to
SCRIPT = """
import os, pathlib, signal, sys, time
folder, fold, kind = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def stop(number, frame):
    (folder / f"stopped_{fold}").touch()
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, stop)
(folder / f"running_{fold}").touch()
print("epoch 1", "epoch 2", sep="\\r", flush=True)
if kind == "signal":
    while len(list(folder.glob("running_*"))) < 2:
        time.sleep(0.01)
    if fold == "0":
        os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(60)
time.sleep(0.3)
num = len(list(folder.glob("running_*")))
(folder / f"running_{fold}").unlink()
(folder / f"done_{fold}").write_text(str(num))
sys.exit("no space left" if fold == "1" and kind == "fail" else 0)
"""


@pytest.fixture
def logs(tmp_path: Path) -> dict[int, Path]:
    return {fold: tmp_path / "logs" / f"fold_{fold}.log" for fold in range(4)}


@pytest.fixture
def doing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let a script stand for the training; its word says what it does."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    monkeypatch.setattr(
        side_by_side,
        "command_of",
        lambda words, fold: [sys.executable, str(script), str(tmp_path), str(fold), *words],
    )
    return tmp_path


def test_so_many_run_at_once_and_no_more(doing: Path, logs: dict[int, Path]) -> None:
    side_by_side.run(["work"], logs, jobs=2)
    at_once = [int((doing / f"done_{fold}").read_text()) for fold in range(4)]
    assert max(at_once) == 2
    assert [path.read_text().splitlines()[-1] for path in logs.values()] == ["epoch 2"] * 4


def test_a_failure_is_told_with_its_last_lines_and_the_others_go_on(
    doing: Path, logs: dict[int, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TrainingError, match=r"1 of 4 folds failed \(1\): the others are trained"):
        side_by_side.run(["fail"], logs, jobs=2)
    assert all((doing / f"done_{fold}").exists() for fold in range(4))
    error = capsys.readouterr().err
    assert f"lis2: fold 1 ended with code 1; {logs[1]} ends with:" in error
    assert "\n  epoch 2\n  no space left\n" in error


def test_a_signal_is_passed_on_and_nothing_is_left_running(
    doing: Path, logs: dict[int, Path]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        side_by_side.run(["signal"], logs, jobs=2)
    assert ended.value.code == 143
    assert {path.name for path in doing.glob("stopped_*")} == {"stopped_0", "stopped_1"}
    assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # no child of this process is left


def test_devices_are_dealt_to_jobs_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    shares = [side_by_side._share(slot, jobs=3)["CUDA_VISIBLE_DEVICES"] for slot in range(3)]
    assert shares == ["3", "5", "3"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert side_by_side._share(0, jobs=3) == {"OMP_NUM_THREADS": "2"}


PARENT = """
import sys
import time
from pathlib import Path
from lis2_lightning.evaluation import side_by_side
child = '''
import signal, sys, time
from pathlib import Path
from lis2_lightning.evaluation import side_by_side
def stop(number, frame):
    Path(sys.argv[1], "stopped").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
side_by_side.end_with_parent()
Path(sys.argv[1], "ready").touch()
time.sleep(120)
'''
side_by_side.command_of = lambda words, fold: [sys.executable, "-c", child, sys.argv[1]]
side_by_side.run([], {0: Path(sys.argv[1], "fold_0.log")}, jobs=1)
"""


@pytest.mark.slow
def test_a_fold_ends_in_order_when_the_process_that_started_it_was_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)])
    while not (tmp_path / "ready").exists():
        assert parent.poll() is None
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    for _ in range(1000):
        if (tmp_path / "stopped").exists():
            break
        time.sleep(0.02)
    assert (tmp_path / "stopped").exists()


def test_variables_of_ours_reach_no_process_that_has_a_configuration(
    doing: Path, logs: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = doing / "script.py"
    script.write_text("import os; print(sorted(os.environ))", encoding="utf-8")
    monkeypatch.setenv("LIS2_JOBS", "2")
    monkeypatch.setenv("LIS2_CONFIG", "c.yaml")
    side_by_side.run(["work"], {0: logs[0]}, jobs=1)
    told = logs[0].read_text()
    assert "PATH" in told
    assert "LIS2_JOBS" not in told
    assert "LIS2_CONFIG" not in told
