"""What the variables of launchers say: which process this is, and how many there are."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from lis2_lightning import Trainer
from lis2_lightning.errors import ConfigError
from lis2_lightning.evaluation.verify_resume import verify_resume
from lis2_lightning.parallel.processes import Launch, is_main, launched

Make = Callable[..., dict[str, Any]]
Set = Callable[..., None]

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "1",
    "LOCAL_RANK": "1",
    "GROUP_RANK": "0",
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_WORLD_SIZE": "1",
}
# what a task of `srun --nodes=2 --ntasks-per-node=2` finds
SRUN = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NAME": "filaments",
    "SLURM_SUBMIT_DIR": "/home/someone",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NNODES": "2",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}
BATCH_SCRIPT = {**SRUN, "SLURM_PROCID": "0", "SLURM_STEP_ID": ""}
# a trainer of another process would silence the rest of the tests
MAIN_OF_TORCHRUN = {**TORCHRUN, "RANK": "0", "LOCAL_RANK": "0"}
MAIN_OF_SRUN = {**SRUN, "SLURM_PROCID": "0"}
PREFIXES = ("SLURM_", "TORCHELASTIC_")
NAMES = {*TORCHRUN, "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"}


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Set:
    """Set a launcher's variables; none are there but those."""
    for name in list(os.environ):
        if name in NAMES or name.startswith(PREFIXES):
            monkeypatch.delenv(name)

    def put(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return put


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (TORCHRUN, Launch("torchrun", 2, 1)),
        ({**TORCHRUN, "WORLD_SIZE": "6", "GROUP_WORLD_SIZE": "3"}, Launch("torchrun", 2, 3)),
        (SRUN, Launch("SLURM", 2, 2)),
        ({**SRUN, **TORCHRUN}, Launch("torchrun", 2, 1)),  # torchrun as a task of srun's
        ({**BATCH_SCRIPT, "SLURM_NTASKS": "1"}, Launch("SLURM", 1, 1)),
        ({**SRUN, "SLURM_NTASKS": "1"}, Launch("SLURM", 1, 1)),  # srun -n 1 in a larger job
        ({"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "filaments"}, None),  # no tasks were asked for
        (
            {**BATCH_SCRIPT, "SLURM_JOB_NAME": "bash", "SLURM_STEP_NUM_TASKS": "1"},
            None,
        ),  # a shell on a node of the cluster
    ],
)
def test_what_was_started_is_read_from_the_launchers_variables(
    variables: Set, environment: dict[str, str], expected: Launch | None
) -> None:
    variables(**environment)
    assert launched() == expected


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({**TORCHRUN, "WORLD_SIZE": "3", "GROUP_WORLD_SIZE": "2"}, "same --nproc-per-node"),
        (BATCH_SCRIPT, "reserved 4 tasks, and srun has started none of them: put srun before"),
        ({**SRUN, "SLURM_STEP_ID": "4294967291"}, "put srun before the command"),
        ({"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "zsh"}, "put srun before the command"),
        (
            {**SRUN, "SLURM_NTASKS_PER_NODE": ""},
            "does not say how many tasks it has started on each host",
        ),
        ({**SRUN, "SLURM_NTASKS": "3"}, "3 processes, which are not 2 on each of 2 hosts"),
        ({**SRUN, "SLURM_JOB_NAME": "interactive"}, "give srun another --job-name"),
    ],
)
def test_processes_that_would_wait_or_train_apart_are_refused_in_a_sentence(
    variables: Set, environment: dict[str, str], sentence: str
) -> None:
    variables(**environment)
    with pytest.raises(ConfigError, match=sentence):
        launched()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, True),
        (TORCHRUN, False),
        ({**TORCHRUN, "RANK": "0", "LOCAL_RANK": "0"}, True),
        ({**TORCHRUN, "RANK": "2", "LOCAL_RANK": "0"}, False),  # the first process of host 2
        (SRUN, False),
        ({**SRUN, "SLURM_PROCID": "0"}, True),
        ({"LOCAL_RANK": "1", "NODE_RANK": "0"}, False),  # Lightning's own launcher
        ({"LOCAL_RANK": "1", "SLURM_PROCID": "0"}, False),  # the same in a shell of SLURM's
        ({"NODE_RANK": "1"}, False),  # before it has started the processes of host 2
    ],
)
def test_one_process_of_a_run_is_the_main_one(
    variables: Set, environment: dict[str, str], *, expected: bool
) -> None:
    variables(**environment)
    assert is_main() == expected


def test_the_launcher_decides_devices_and_hosts_where_nobody_else_does(
    variables: Set, tiny: Make
) -> None:
    variables(**MAIN_OF_SRUN)
    trainer = Trainer.from_config(tiny(), lightning={"accelerator": "cpu", "devices": "auto"})
    lightning = trainer.lightning
    assert (lightning.num_devices, lightning.num_nodes, lightning.world_size) == (2, 2, 4)
    assert isinstance(lightning.strategy, DDPStrategy)
    planned = trainer.planned()
    assert planned["lightning.num_nodes"].startswith("lightning.pytorch.Trainer(num_nodes=2)")


def test_a_job_of_one_task_trains_as_without_slurm(variables: Set, tiny: Make) -> None:
    variables(**{**BATCH_SCRIPT, "SLURM_NTASKS": "1"})
    lightning = Trainer.from_config(tiny()).lightning
    assert isinstance(lightning.strategy, SingleDeviceStrategy)


def test_an_environment_among_the_plugins_decides_instead(variables: Set, tiny: Make) -> None:
    variables(**MAIN_OF_SRUN)
    own = {"accelerator": "cpu", "devices": 1, "plugins": [LightningEnvironment()]}
    assert Trainer(**objects(tiny), lightning=own).lightning.world_size == 1


@pytest.mark.parametrize(
    ("launcher", "asked", "sentence"),
    [
        (
            MAIN_OF_TORCHRUN,
            {"devices": 1},
            "torchrun has started processes for devices: 2 and num_nodes: 1, and",
        ),
        (
            MAIN_OF_TORCHRUN,
            {"devices": 4},
            "lightning has devices: 4 and num_nodes: 1: leave both out",
        ),
        (
            MAIN_OF_SRUN,
            {"num_nodes": 4},
            "for devices: 2 and num_nodes: 2, .*num_nodes: 4: leave both out",
        ),
        (
            {**BATCH_SCRIPT, "SLURM_NTASKS": "1"},
            {"devices": 2},
            "SLURM has started .* devices: 1 .* has devices: 2 .* or start as many",
        ),
    ],
)
def test_devices_that_contradict_the_launcher_are_refused(
    variables: Set, tiny: Make, launcher: dict[str, str], asked: dict[str, int], sentence: str
) -> None:
    variables(**launcher)
    trainer = Trainer.from_config(tiny(), lightning={"accelerator": "cpu", **asked})
    with pytest.raises(ConfigError, match=sentence):
        _ = trainer.lightning


def test_a_trial_of_resuming_wants_one_process(variables: Set, tiny: Make) -> None:
    variables()
    config = tiny(lightning={"accelerator": "cpu", "devices": 2})
    with pytest.raises(ConfigError, match="tries one process, and this would be 2: add --light"):
        verify_resume(config)


def objects(tiny: Make) -> dict[str, Any]:
    """A run whose parts are objects."""
    from torch import nn

    from lis2_lightning.data import SyntheticDataset

    config = tiny()
    dataset = SyntheticDataset(height=64, width=64, size=16)
    chosen = {key: config[key] for key in ("output_dir", "run_name")}
    return {**chosen, "model": nn.Conv2d(1, 1, 1), "train_dataset": dataset}
