"""Where tiles lie in the large image, and which fold each belongs to."""

from lis2_lightning.tiling.folds import Areas, areas_meet, assign_folds, shared_pixel
from lis2_lightning.tiling.grid import Lattice, Tile
from lis2_lightning.tiling.shares import Blocks

__all__ = [
    "Areas",
    "Blocks",
    "Lattice",
    "Tile",
    "areas_meet",
    "assign_folds",
    "shared_pixel",
]
