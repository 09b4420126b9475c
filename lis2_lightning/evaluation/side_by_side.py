"""Folds or trials side by side: a process for each, so many at once, a log each and one bar."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

import torch
from tqdm import tqdm

from lis2_lightning.base.files import shown
from lis2_lightning.base.redaction import without_secrets
from lis2_lightning.errors import ConfigError, TrainingError
from lis2_lightning.parallel.children import tell, when_alone

_POLL_S: Final = 0.2
_STARTED_BY: Final = "_LIS2_RUNS_STARTED_BY"
_LAST_LINES: Final = 5
_STOPS: Final = (signal.SIGTERM, signal.SIGINT)


@dataclass
class _Job:
    number: int
    slot: int
    process: subprocess.Popen[bytes]


def run(words: Sequence[str], logs: Mapping[int, Path], *, jobs: int, unit: str = "fold") -> None:
    """Start a command for each fold, with ``--fold`` and its number, and wait for all of them.

    Each writes what it says into its log. A signal is passed on, and all runs can be resumed.

    Args:
        words: The command, after ``lis2``.
        logs: The log of each fold.
        jobs: How many run at once, at least 1.
        unit: What they are: the flag that has the number, and the word in messages.

    Raises:
        TrainingError: Some failed; the others have gone on.
        SystemExit: A signal ended them.
    """
    waiting, running, failed = list(logs), list[_Job](), list[int]()
    with _stopping(running), tqdm(total=len(logs), desc=f"{unit}s", unit=unit) as bar:
        while waiting or running:
            while waiting and len(running) < jobs:
                slot = min(set(range(jobs)) - {job.slot for job in running})
                number = waiting.pop(0)
                command = command_of([*words, f"--{unit}"], number)
                running.append(_start(command, number, slot, logs[number], jobs=jobs))
            time.sleep(_POLL_S)
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                bar.update()
                if job.process.returncode:
                    failed.append(job.number)
                    tell(f"{unit} {_report(job, logs[job.number])}")
    if failed:
        listed = ", ".join(map(str, sorted(failed)))
        raise TrainingError(
            f"{len(failed)} of {len(logs)} {unit}s failed ({listed}): the others are trained, and "
            "the same command goes on with what is left"
        )


def check(jobs: int, config: Mapping[str, Any]) -> None:
    """Refuse jobs that cannot start from a configuration in a file.

    Raises:
        ConfigError: There are none, or it holds a password.
    """
    if jobs < 1:
        raise ConfigError(f"jobs must be at least 1, not {jobs}")
    if without_secrets(config) != config:
        raise ConfigError(
            "jobs start from the configuration in the folder, which holds no password: set those "
            "of trackers by the variables of the environment that their packages read"
        )


def _start(command: Sequence[str], number: int, slot: int, log: Path, *, jobs: int) -> _Job:
    log.parent.mkdir(parents=True, exist_ok=True)
    # what variables have set is in the configuration that the processes start from
    ours = {key for key in os.environ if key.startswith("LIS2_") and key != "LIS2_DEBUG"}
    inherited = {key: value for key, value in os.environ.items() if key not in ours}
    with log.open("ab") as file:  # a run that goes on writes below what it said before
        process = subprocess.Popen(  # noqa: S603 - our own command
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**inherited, **_share(slot, jobs=jobs), _STARTED_BY: str(os.getpid())},
            start_new_session=True,  # Ctrl-C reaches them through us, once
        )
    return _Job(number, slot, process)


def command_of(words: Sequence[str], number: int) -> list[str]:
    """The command of a fold: the last word is the flag of its number."""
    return [sys.executable, "-m", "lis2_lightning", *words, str(number)]


def _share(slot: int, *, jobs: int) -> dict[str, str]:
    """What a process gets of the machine: a GPU in turn, or its share of the cores."""
    if num := torch.cuda.device_count():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = visible.split(",") if visible else [str(number) for number in range(num)]
        return {"CUDA_VISIBLE_DEVICES": devices[slot % num]}
    threads = max(1, (os.cpu_count() or 1) // jobs)
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}


def _report(job: _Job, log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    # a bar overwrites its own line
    last = [text for line in lines if (text := line.rpartition("\r")[2].strip())][-_LAST_LINES:]
    code = job.process.returncode
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return "\n  ".join([f"{job.number} {how}; {shown(log)} ends with:", *last])


@contextmanager
def _stopping(running: Sequence[_Job]) -> Iterator[None]:
    """Pass a signal on, wait until every run has written ``last.pt``, and end."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - Python's signature
        for job in running:
            job.process.send_signal(signal.SIGTERM)
        for job in running:
            job.process.wait()
        raise SystemExit(128 + number)

    is_main_thread = threading.current_thread() is threading.main_thread()
    former = {number: signal.signal(number, stop) for number in _STOPS if is_main_thread}
    try:
        yield
    finally:
        for job in running:  # only where something else went wrong
            job.process.terminate()
        for number, handler in former.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """End this process in order when the one that started it for a fold or trial is gone."""
    if parent := int(os.environ.get(_STARTED_BY, "0")):
        when_alone(parent, partial(os.kill, os.getpid(), signal.SIGTERM), name="runs")
