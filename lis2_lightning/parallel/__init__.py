"""Several processes: who they are, how they start, and what they tell each other."""

from lis2_lightning.parallel.environment import Launch, is_main, launched, local_rank

__all__ = ["Launch", "is_main", "launched", "local_rank"]
