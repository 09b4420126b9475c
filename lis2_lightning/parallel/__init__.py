"""Several processes: who they are, how they start, and what they tell each other.

Only what needs no torch can be imported from here: the command line asks before it is imported.
"""

from lis2_lightning.parallel.environment import Launch, is_main, launched, local_rank

__all__ = ["Launch", "is_main", "launched", "local_rank"]
