"""Real processes, as torchrun starts them: with its variables, on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

Together = Callable[..., list[subprocess.CompletedProcess[str]]]


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


@pytest.fixture(scope="session")
def together() -> Together:
    """Run a command in several processes that find each other, and wait for all of them."""

    def run(
        world: int, words: Sequence[str | Path], *, timeout: float = 300, **variables: str
    ) -> list[subprocess.CompletedProcess[str]]:
        common = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "WORLD_SIZE": str(world),
            "LOCAL_WORLD_SIZE": str(world),
            "GROUP_RANK": "0",
            "TORCHELASTIC_RUN_ID": "test",
            "PYTHONPATH": os.pathsep.join(
                [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
            ),
            **variables,
        }
        processes = [
            subprocess.Popen(
                [sys.executable, *map(str, words)],
                env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(world)
        ]
        done = []
        try:
            for process in processes:
                told, failed = process.communicate(timeout=timeout)
                done.append(
                    subprocess.CompletedProcess(process.args, process.returncode, told, failed)
                )
        finally:
            for process in processes:
                process.kill()
        return done

    return run
