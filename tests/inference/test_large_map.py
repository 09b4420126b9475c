"""Memory does not grow with an image that is mapped into a file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "large_map.py"
NUM_PIXELS = int(float(os.environ.get("LIS2_PIXELS", "1e8")))  # `make soak` asks for more


def peak_mb(folder: Path, num_pixels: int) -> float:
    """The peak of a process of its own."""
    folder.mkdir()
    words = [sys.executable, str(SCRIPT), str(folder), str(num_pixels)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for path in folder.glob("*.*"):
        path.unlink()
    peak = float(done.stdout.splitlines()[-1])
    sys.stdout.write(f"{num_pixels:.0e} px: {peak:.0f} MB\n")
    return peak


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is told by Linux alone")
def test_memory_of_a_large_map_is_that_of_a_small_one(tmp_path: Path) -> None:
    small = peak_mb(tmp_path / "small", 10**7)
    assert peak_mb(tmp_path / "large", NUM_PIXELS) <= 1.2 * small
