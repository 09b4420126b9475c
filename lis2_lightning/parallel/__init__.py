"""Several processes: who they are, how they start, what they tell each other, how they end.

Only what needs no torch can be imported from here: the command line asks before it is imported.

====================  ==========================================================================
``environment``       which process this is, and what ``torchrun`` or SLURM have started
``devices``           devices and hosts that are left to the launcher
``once``              only the main process speaks
``exchange``          the small sum of each step
``launcher``          starts the other processes; ``children`` watches them, ``parent`` the main one
``peers``             what happens to a process that has lost another; ``ending`` its last words
``outside``           signals before, between and after the loops
``notebook``          strategies there; ``fork``, ``workers`` and ``failures`` run its processes
``strategies``        ``fsdp``, which ``sharded`` and ``sharding`` do; ``shards`` looks at a part
``batchnorm``         batch normalisation over processes
====================  ==========================================================================
"""

from lis2_lightning.parallel.processes import is_main, local_rank

__all__ = ["is_main", "local_rank"]
