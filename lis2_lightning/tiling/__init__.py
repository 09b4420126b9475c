"""Where tiles lie in the large image, and which fold each belongs to."""

from __future__ import annotations

from lis2_lightning.tiling.folds import Areas, assign_folds, shared_pixel
from lis2_lightning.tiling.grid import Lattice, Tile, grid, starts

__all__ = ["Areas", "Lattice", "Tile", "assign_folds", "grid", "shared_pixel", "starts"]
