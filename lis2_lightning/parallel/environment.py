"""Which of a run's processes this is, as its launcher's variables tell."""

from __future__ import annotations

import os


def is_main() -> bool:
    """Whether this is the process that writes, shows and tells, also before Lightning starts it."""
    return _number("RANK", "SLURM_PROCID", "LOCAL_RANK") == 0


def local_rank() -> int:
    """Which of this machine's processes this is, from 0."""
    return _number("LOCAL_RANK", "SLURM_LOCALID")


def _number(*names: str) -> int:
    """The first of these variables that is set; 0 where none is."""
    values = (os.environ.get(name) for name in names)
    return int(next((value for value in values if value), "0"))
