"""What the writers of all formats of maps share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data import Raster
from lis2_lightning.data.rasters.packing import Packing

Shape = tuple[int, ...]
Write = Callable[[int, NDArray[Any]], None]
BAND: Final = 256
"""Rows that are written at once, from multiples of this on: no chunk is compressed twice."""


@dataclass(frozen=True, slots=True)
class NewMap:
    """All that a writer needs to know of a map."""

    shape: Shape
    """``(H, W)`` or ``(C, H, W)``."""
    dtype: np.dtype[Any]
    """Of the stored numbers: float32 or uint8."""
    like: Raster | None = None
    """What the map was made from: where it lies is written into the map."""
    packing: Packing = field(default_factory=Packing)
    """How the stored numbers become values."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Values for the header, or pairs of a value and a comment."""

    @property
    def gap(self) -> int | None:
        """The stored number that stands for no value; null where NaN does."""
        return int(self.packing.gaps[0]) if self.packing.gaps else None

    @property
    def values(self) -> dict[str, Any]:
        """The facts without their comments."""
        return {key: v[0] if isinstance(v, tuple) else v for key, v in self.facts.items()}

    @property
    def planes(self) -> tuple[int, int, int]:
        """The shape with channels, ``(C, H, W)``."""
        *channels, height, width = self.shape
        return channels[0] if channels else 1, height, width
