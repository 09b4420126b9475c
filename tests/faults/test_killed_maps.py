"""A prediction that is killed at any moment goes on, and gives the bytes of an undisturbed one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "killed_maps.py"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize(
    ("num_kills", "files"),
    [(16, "map.npy mask.npy"), (8, "map.fits mask.zarr"), (8, "map.h5 mask.tif")],
)
def test_killed_predictions_give_the_bytes_of_an_undisturbed_one(
    num_kills: int, files: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", str(num_kills), "--files", *files.split()],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["kills"] >= num_kills
    assert counts["kills after rows"] > num_kills / 3
