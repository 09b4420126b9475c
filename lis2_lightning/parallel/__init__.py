"""Several processes: which they are, what they exchange, how they end; it imports no torch."""

from lis2_lightning.parallel.processes import is_main, local_rank

__all__ = ["is_main", "local_rank"]
