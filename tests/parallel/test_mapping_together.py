"""Several processes map an image as one does, and go on together where they were killed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.parallel.conftest import Together

SCRIPT = Path(__file__).parent / "mapping_job.py"


@pytest.mark.slow
def test_processes_that_were_killed_go_on_to_the_bytes_of_one_process(
    tmp_path: Path, together: Together
) -> None:
    np.save(tmp_path / "image.npy", np.random.default_rng(0).random((131, 60), np.float32))
    alone = together(1, [SCRIPT, tmp_path])
    assert alone[0].returncode == 0, alone[0].stderr
    killed = together(2, [SCRIPT, tmp_path, "12"])
    assert all(process.returncode != 0 for process in killed)
    assert not (tmp_path / "of_2.npy").exists()
    assert (tmp_path / "of_2.npy.part.1.json").exists()
    again = together(2, [SCRIPT, tmp_path])
    assert all(process.returncode == 0 for process in again), again[1].stderr
    assert "of the rows are there already" in again[0].stderr
    assert (tmp_path / "of_2.npy").read_bytes() == (tmp_path / "of_1.npy").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {
        "image.npy",
        "mask.npy",
        "of_1.npy",
        "of_2.npy",
    }
