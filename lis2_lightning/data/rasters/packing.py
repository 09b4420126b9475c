"""How stored numbers become values: a scale, an offset, and numbers that stand for no value."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data.rasters.contract import to_float32


@dataclass(frozen=True, slots=True)
class Packing:
    """How stored numbers become values: ``scale * stored + offset``, NaN where they are a gap."""

    gaps: tuple[float, ...] = ()
    scale: float = 1.0
    offset: float = 0.0

    @property
    def is_scaled(self) -> bool:
        """Whether a stored number is not the value itself."""
        return (self.scale, self.offset) != (1.0, 0.0)

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> Self:
        """The packing that the attributes of an array describe by the CF conventions.

        >>> Packing.of({"_FillValue": 255, "scale_factor": 0.5})
        Packing(gaps=(255.0,), scale=0.5, offset=0.0)
        """
        gaps = (*_numbers(attributes, "_FillValue"), *_numbers(attributes, "missing_value"))
        scale, offset = _numbers(attributes, "scale_factor"), _numbers(attributes, "add_offset")
        return cls(gaps, scale[0] if scale else 1.0, offset[0] if offset else 0.0)

    def unpack(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Copy stored numbers as float32 values."""
        exact = stored
        if self.is_scaled:
            exact = stored.astype(np.float64)
            exact *= self.scale
            exact += self.offset
        values = to_float32(exact)
        for gap in self.gaps:
            with np.errstate(over="ignore"):
                # a gap may be written with fewer digits than the pixels have
                same = stored.dtype.type(gap) if stored.dtype.kind == "f" else gap
                values[stored == same] = np.nan
        return values


def _numbers(attributes: Mapping[str, Any], name: str) -> tuple[float, ...]:
    """The numbers of an attribute; none if it is missing or a text."""
    value = attributes.get(name)
    if isinstance(value, str):
        return _packed_number(value)
    values = np.ravel([] if value is None else value)
    return tuple(map(float, values)) if values.dtype.kind in "biuf" else ()


def _packed_number(text: str) -> tuple[float, ...]:
    """A float as xarray writes it to Zarr: eight bytes in base 64."""
    try:
        return struct.unpack("<d", base64.b64decode(text, validate=True))
    except (ValueError, struct.error):
        return ()
