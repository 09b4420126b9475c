"""Which of a run's processes this is, and how many there are, as their launcher's variables tell.

Lightning asks its trainer for ``devices`` and ``num_nodes`` and believes the answer: on CPUs two
processes of ``torchrun`` would become two runs, each with one device, in one folder.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Final, Literal

from lis2_lightning.errors import ConfigError

# Lightning takes a job of such a name for a shell, and starts its own processes there.
_SHELLS: Final = ("bash", "interactive")
# A batch script and an interactive shell are no steps of srun's: SLURM numbers them from the top.
_LAST_STEP: Final = 0xFFFF_FFF0


@dataclass(frozen=True)
class Launch:
    """The processes that a launcher has started.

    Args:
        launcher: Which one it is.
        devices: How many processes it has started on each host, one for each device.
        num_nodes: On how many hosts.
    """

    launcher: Literal["torchrun", "SLURM"]
    devices: int
    num_nodes: int

    def __str__(self) -> str:
        """As the subject of a sentence.

        >>> str(Launch("torchrun", 2, 1))
        'torchrun with 2 processes on 1 host'
        """
        return (
            f"{self.launcher} with {_counted(self.devices, 'process', 'processes')} on "
            f"{'each of ' * (self.num_nodes > 1)}{_counted(self.num_nodes, 'host', 'hosts')}"
        )


def is_main() -> bool:
    """Whether this is the process that writes, shows and tells, also before Lightning starts it."""
    if "RANK" in os.environ:
        return _number("RANK") == 0
    if "LOCAL_RANK" in os.environ or "NODE_RANK" in os.environ:
        # Lightning's own launcher, also inside a job of SLURM, of which this is task 0 throughout
        return local_rank() == 0 and _number("NODE_RANK", "GROUP_RANK", "SLURM_NODEID") == 0
    return _number("SLURM_PROCID") == 0


def local_rank() -> int:
    """Which of this machine's processes this is, from 0."""
    return _number("LOCAL_RANK", "SLURM_LOCALID")


def are_joined() -> bool:
    """Whether this process can talk to the others by now; torch is not imported to find out."""
    # a module that is being imported has not all of its names
    is_initialized = getattr(sys.modules.get("torch.distributed"), "is_initialized", None)
    return is_initialized is not None and bool(is_initialized())


def launched() -> Launch | None:
    """What ``torchrun`` or SLURM has started; null where neither has.

    Raises:
        ConfigError: Hosts have different numbers of processes, or processes were reserved that
            nobody has started, so that a run would wait for them.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return _by_torchrun()
    return _by_slurm() if os.environ.get("SLURM_NTASKS") else None


def _by_torchrun() -> Launch:
    world, here = _number("WORLD_SIZE"), _number("LOCAL_WORLD_SIZE")
    hosts = _number("GROUP_WORLD_SIZE") or world // here
    if hosts * here != world:
        raise ConfigError(
            f"torchrun has started {here} of {world} processes on this host, one of {hosts}: start "
            "equally many on each, with the same --nproc-per-node"
        )
    return Launch("torchrun", here, hosts)


def _by_slurm() -> Launch | None:
    tasks, name = _number("SLURM_NTASKS"), os.environ.get("SLURM_JOB_NAME")
    if name in _SHELLS:
        started = max(_number("SLURM_STEP_NUM_TASKS"), _number("SLURM_PROCID") + 1)
        if started > 1:
            raise ConfigError(
                f"srun has started {started} tasks under the job name {name!r}, which Lightning "
                "takes for a shell: give srun another --job-name"
            )
        return None
    if tasks == 1:
        return Launch("SLURM", 1, 1)  # a step of one task, however many the job has
    if _waits_for_srun():
        raise ConfigError(
            f"SLURM has reserved {tasks} tasks, and srun has started none of them: put srun before "
            "the command, or set SLURM_NTASKS=1 to train in this process alone"
        )
    return _tasks_of_srun(tasks)


def _waits_for_srun() -> bool:
    """Whether this is a batch script or a shell inside a job, and not a task of ``srun``."""
    if "SLURM_PROCID" not in os.environ:
        return True
    # what only imitates SLURM's variables names neither; SLURM itself names where each job is from
    is_slurm = "SLURM_SUBMIT_DIR" in os.environ or "SLURM_SUBMIT_HOST" in os.environ
    step = _number("SLURM_STEP_ID", "SLURM_STEPID", unset=_LAST_STEP if is_slurm else 0)
    return step >= _LAST_STEP


def _tasks_of_srun(tasks: int) -> Launch:
    here = _number("SLURM_NTASKS_PER_NODE")
    if here == 0:
        raise ConfigError(
            f"SLURM has started {tasks} tasks without saying how many on each host: ask for them "
            "with --nodes and --ntasks-per-node in place of --ntasks"
        )
    hosts = _number("SLURM_NNODES") or tasks // here
    if hosts * here != tasks:
        raise ConfigError(
            f"SLURM has started {tasks} tasks, which are not {here} on each of {hosts} hosts: give "
            "sbatch and srun the same --nodes and --ntasks-per-node"
        )
    return Launch("SLURM", here, hosts)


def _counted(num: int, one: str, many: str) -> str:
    return f"{num} {one if num == 1 else many}"


def _number(*names: str, unset: int = 0) -> int:
    """The first of these variables that is set."""
    values = (os.environ.get(name) for name in names)
    return int(next((value for value in values if value), unset))
