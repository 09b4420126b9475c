"""Several processes: who they are, what they tell each other, and how they end together.

Only what needs no torch can be imported from here: the command line asks before it is imported.

====================  ==========================================================================
``processes``         which process this is, and what ``torchrun`` or SLURM has started
``output``            only the main process speaks; last words
``devices``           devices, hosts and strategies
``exchange``          the small sum of each step
``children``          the main process and those it has started watch each other
``peers``             an exception in one process, or the loss of another, ends all of them
``batchnorm``         batch normalisation over processes
====================  ==========================================================================
"""

from lis2_lightning.parallel.processes import is_main, local_rank

__all__ = ["is_main", "local_rank"]
