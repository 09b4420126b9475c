"""Which of a run's processes this is, and how many there are, by their launcher's variables.

Lightning believes the user's ``devices`` and ``num_nodes``: on CPUs two processes of ``torchrun``
would become two runs in one folder.
"""

from __future__ import annotations

import os
import sys
from typing import Final, Literal, NamedTuple

from lis2_lightning.errors import ConfigError

# Lightning takes a job of such a name for a shell, and starts its own processes there.
_SHELLS: Final = ("bash", "interactive")
# A batch script and an interactive shell are no steps of srun's: SLURM numbers them from the top.
_LAST_STEP: Final = 0xFFFF_FFF0


class Launch(NamedTuple):
    """The processes that a launcher has started: so many ``devices`` on each of the hosts."""

    launcher: Literal["torchrun", "SLURM"]
    devices: int
    num_nodes: int


def is_main() -> bool:
    """Whether this is the process that writes and reports, also before Lightning starts it."""
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
    """Whether this process can reach the others already; torch is not imported to find out."""
    # a module that is being imported does not have all of its names yet
    is_initialized = getattr(sys.modules.get("torch.distributed"), "is_initialized", None)
    return is_initialized is not None and bool(is_initialized())


def launched() -> Launch | None:
    """What ``torchrun`` or SLURM has started; null where neither has.

    Raises:
        ConfigError: Hosts differ in their processes, or some were reserved and never started.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        world, here = _number("WORLD_SIZE"), _number("LOCAL_WORLD_SIZE")
        hosts, mend = _number("GROUP_WORLD_SIZE"), "start torchrun with the same --nproc-per-node"
        return _equal_on_hosts(Launch("torchrun", here, hosts or world // here), world, mend)
    tasks = _number("SLURM_NTASKS")
    is_shell = os.environ.get("SLURM_JOB_NAME") in _SHELLS
    if is_shell and max(_number("SLURM_STEP_NUM_TASKS"), _number("SLURM_PROCID") + 1) > 1:
        raise ConfigError(
            "srun has started several tasks under the job name "
            f"{os.environ['SLURM_JOB_NAME']!r}, which Lightning takes for a shell: give srun "
            "another --job-name"
        )
    if tasks == 0 or is_shell:
        return None
    # a step of one task, however many the job has
    return Launch("SLURM", 1, 1) if tasks == 1 else _by_srun(tasks)


def _by_srun(tasks: int) -> Launch:
    # what only imitates SLURM's variables names neither; SLURM itself names where each job is from
    is_slurm = "SLURM_SUBMIT_DIR" in os.environ or "SLURM_SUBMIT_HOST" in os.environ
    step = _number("SLURM_STEP_ID", "SLURM_STEPID", unset=_LAST_STEP if is_slurm else 0)
    if "SLURM_PROCID" not in os.environ or step >= _LAST_STEP:  # a batch script or a shell
        raise ConfigError(
            f"SLURM has reserved {tasks} tasks, and srun has started none of them: put srun before "
            "the command, or set SLURM_NTASKS=1 to train in this process alone"
        )
    here = _number("SLURM_NTASKS_PER_NODE")
    mend = "give sbatch and srun the same --nodes and --ntasks-per-node"
    if here == 0:
        raise ConfigError(f"SLURM does not say how many tasks it has started on each host: {mend}")
    return _equal_on_hosts(
        Launch("SLURM", here, _number("SLURM_NNODES") or tasks // here), tasks, mend
    )


def _equal_on_hosts(launch: Launch, world: int, mend: str) -> Launch:
    if launch.num_nodes * launch.devices != world:
        raise ConfigError(
            f"{launch.launcher} has started {world} processes, which are not {launch.devices} on "
            f"each of {launch.num_nodes} hosts: {mend}"
        )
    return launch


def _number(*names: str, unset: int = 0) -> int:
    """The first of these variables that is set."""
    values = (os.environ.get(name) for name in names)
    return int(next((value for value in values if value), unset))
