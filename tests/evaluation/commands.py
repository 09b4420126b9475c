"""Commands in processes of their own, which a test may kill."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

_QUICK = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def started(command: str, config: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start a command on a configuration, with one thread; both outputs are pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "lis2_lightning", command, "--config", str(config), *words],
        env={**os.environ, **_QUICK},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def kill_once_there(process: subprocess.Popen[bytes], path: Path) -> None:
    """Kill a process as soon as a file is there, which it is to write."""
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.kill()  # SIGKILL
    process.communicate()
