"""What the writers of all formats of maps share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data import Raster

Shape = tuple[int, ...]
Write = Callable[[int, NDArray[Any]], None]
BAND: Final = 256
"""Rows that are written at once, from multiples of this on: no chunk is compressed twice."""


@dataclass(frozen=True, slots=True)
class Packing:
    """The stored number without a value, and what turns the others into values."""

    KEYS: ClassVar = ("BLANK", "BSCALE", "BZERO")
    gap: int | None = None
    scale: float = 1.0
    offset: float = 0.0

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> Self:
        """The packing that FITS keywords describe."""
        return cls(header.get("BLANK"), header.get("BSCALE", 1.0), header.get("BZERO", 0.0))

    @property
    def is_scaled(self) -> bool:
        """Whether a stored number is not the value itself."""
        return (self.scale, self.offset) != (1.0, 0.0)


@dataclass(frozen=True, slots=True)
class NewMap:
    """All that a writer needs to know of a map."""

    shape: Shape
    dtype: np.dtype[Any]
    like: Raster | None
    packing: Packing
    facts: Mapping[str, Any]
    """Values, or pairs of a value and a comment."""

    @property
    def values(self) -> dict[str, Any]:
        """The facts without their comments."""
        return {key: v[0] if isinstance(v, tuple) else v for key, v in self.facts.items()}

    @property
    def planes(self) -> tuple[int, int, int]:
        """The shape with channels, ``(C, H, W)``."""
        *channels, height, width = self.shape
        return channels[0] if channels else 1, height, width
