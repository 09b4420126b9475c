"""Real processes: single commands, and several that find each other as torchrun starts them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

Process = subprocess.Popen[str]
Together = Callable[..., list[subprocess.CompletedProcess[str]]]
ROOT = Path(__file__).parents[2]
LAUNCHERS = ("SLURM_", "TORCHELASTIC_", "PMI_", "OMPI_")
NAMES = {"RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "MASTER_ADDR"}


def start(
    words: Sequence[str | Path],
    folder: Path = ROOT,
    *,
    before: Sequence[str] = (),
    streams: Any = None,  # a mapping; mypy holds the variables against it, too
    **variables: str,
) -> Process:
    """Start Python in a session of its own, without a launcher's variables but those given.

    Modules are found in ``folder``, too. Both outputs are read, or ``streams`` says otherwise.
    """
    inherited = {
        key: value
        for key, value in os.environ.items()
        if key not in NAMES and not key.startswith(LAUNCHERS)
    }
    paths = [str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [*before, sys.executable, *map(str, words)],
        env={**inherited, "PYTHONPATH": os.pathsep.join(paths), **variables},
        text=True,
        start_new_session=True,
        **(streams or {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}),
    )


def end_all(processes: Sequence[Process]) -> None:
    """Leave nothing behind, whatever a test has come to."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    for process in processes:
        process.communicate()


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


@pytest.fixture
def started() -> Iterator[list[Process]]:
    """The processes of a test, which end with it at the latest."""
    processes: list[Process] = []
    yield processes
    end_all(processes)


@pytest.fixture(scope="session")
def together() -> Together:
    """Run a command in several processes that find each other, and wait for all of them."""

    def run(
        world: int, words: Sequence[str | Path], *, timeout: float = 300
    ) -> list[subprocess.CompletedProcess[str]]:
        common = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "WORLD_SIZE": str(world),
            "LOCAL_WORLD_SIZE": str(world),
            "GROUP_RANK": "0",
            "TORCHELASTIC_RUN_ID": "test",
        }
        processes = [
            start(words, ROOT, **common, RANK=str(rank), LOCAL_RANK=str(rank))
            for rank in range(world)
        ]
        try:
            outputs = [process.communicate(timeout=timeout) for process in processes]
        finally:
            end_all(processes)
        return [
            subprocess.CompletedProcess(process.args, process.returncode, *output)
            for process, output in zip(processes, outputs, strict=True)
        ]

    return run
