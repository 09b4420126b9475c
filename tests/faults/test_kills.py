"""A run that is killed at any moment and started again ends as an undisturbed one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "kills.py"
NUM_KILLS = int(os.environ.get("LIS2_KILLS", "24"))  # `make soak` asks for more

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def soak(kills: int, folder: Path, *arguments: str) -> dict[str, Any]:
    """Kill so many times in a process of its own; the counts."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", str(kills), *arguments],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    counts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return counts


@pytest.mark.slow
def test_many_killed_runs_end_as_undisturbed_ones(tmp_path: Path) -> None:
    counts = soak(NUM_KILLS, tmp_path, "--seed", "1")
    assert counts["kills"] >= NUM_KILLS
    assert counts["failed"] == 0
    assert min(counts["kills at a moment"], counts["kills at an operation"]) > NUM_KILLS / 4


@pytest.mark.slow
def test_the_comparison_sees_what_a_wrong_resume_would_change(tmp_path: Path) -> None:
    # with another seed at each start nothing is equal
    changed = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", "1", "--set", '{"seed": null}'],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert changed.returncode == 1
    assert "/returned/best_loss is" in changed.stdout
