"""N processes give what one gives: weights, logged values, tables and maps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.parallel import jobs

# one worker of the test runner, for the jobs are run once
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("equal")]
Load = Callable[[jobs.Job], dict[str, Any]]
TOLERANCE = {"64-true": 1e-12, "32-true": 1e-6}


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory, together: Any) -> Load:
    """What came of a job, of which all have been run."""
    folder = tmp_path_factory.mktemp("jobs")
    for world in (1, 2, 3):
        for done in together(world, [jobs.__file__, folder]):
            assert done.returncode == 0, done.stderr
    return lambda job: torch.load(folder / f"{job.place}.pt", weights_only=True)  # noqa: TID251 - no snapshot


def on_one_process(job: jobs.Job) -> jobs.Job:
    """The same job for one process."""
    return jobs.Job(job.name, 1, 1, jobs.JOINT, job.keys, job.lightning, job.sizes)


def largest_difference(job: dict[str, Any], other: dict[str, Any]) -> float:
    """Between two sets of weights."""
    pairs = ((job["weights"][name], other["weights"][name]) for name in other["weights"])
    return max(float((a - b).abs().max()) for a, b in pairs)


@pytest.mark.parametrize(
    "job", [j for j in jobs.steps() if j.world * j.accumulate > 1], ids=lambda j: j.place
)
def test_an_optimizer_step_is_that_of_one_process_on_the_joined_batch(
    load: Load, job: jobs.Job, record_property: Callable[[str, object], None]
) -> None:
    shared, alone = load(job), load(on_one_process(job))
    difference = largest_difference(shared, alone)
    record_property("difference", difference)
    assert 0 <= difference <= TOLERANCE[job.lightning["precision"]]
    assert largest_difference(alone, jobs.initial()) > 1e-3  # there was something to learn
    close(shared["tables"]["logs_train.csv"], alone["tables"]["logs_train.csv"], 1e-6)


def close(rows: list[dict[str, float]], expected: list[dict[str, float]], tolerance: float) -> None:
    """Equal columns and equal values, a NaN being itself."""
    assert [list(row) for row in rows] == [list(row) for row in expected]
    for row, other in zip(rows, expected, strict=True):
        for name, value in row.items():
            same = math.isnan(value) and math.isnan(other[name])
            assert same or value == pytest.approx(other[name], rel=tolerance, abs=tolerance), name


SHARED = [job for job in jobs.runs() if job.world > 1]


@pytest.mark.parametrize("job", SHARED, ids=lambda job: job.place)
def test_a_whole_run_is_that_of_one_process_with_the_joined_batch(
    load: Load, job: jobs.Job
) -> None:
    alone = replace(job, world=1, batch_size=6)
    shared, expected = load(job), load(alone)
    assert largest_difference(shared, expected) <= 1e-6
    close(shared["tables"]["logs_train.csv"], expected["tables"]["logs_train.csv"], 1e-6)
    for kind in ("metrics_train", "metrics_val", "metrics_test"):
        close([shared["returned"][kind]], [expected["returned"][kind]], 1e-6)
    assert shared["returned"]["epochs_run"] == expected["returned"]["epochs_run"] == 3
    assert len(shared["maps"]) == len(expected["maps"]) > 0
    for one_map, other in zip(shared["maps"], expected["maps"], strict=True):
        torch.testing.assert_close(one_map, other, rtol=0, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("job", SHARED, ids=lambda job: job.place)
def test_the_test_rows_are_those_of_one_process_with_the_same_batches(
    load: Load, tmp_path: Path, job: jobs.Job
) -> None:
    shared = load(job)
    alone = jobs.trainer(replace(job, world=1), tmp_path)
    alone.model.load_state_dict({n: w.float() for n, w in shared["tested"].items()})
    alone.module.threshold = shared["returned"]["metrics_test"].get("val_threshold")
    scores = alone.test(ckpt_path=None)
    rows = jobs.rows(tmp_path / replace(job, world=1).place / "test_results.csv")
    assert [row["batch"] for row in rows] == [*range(math.ceil(job.sizes[2] / job.batch_size))]
    close(shared["tables"]["test_results.csv"], rows, 1e-6)
    plain = {name.removeprefix("test_"): value for name, value in scores.items()}
    close([shared["returned"]["metrics_test"]], [plain], 1e-6)
