"""What the values of a target mean: object, no object, or unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.tiling.grid import Tile

Labels = int | float | Sequence[int | float]  # both, so that a configuration shows 255 as 255
"""One or several values of a target."""
Positive = Labels | Literal["nonzero"]

MOST_NAMED = 6  # values of a target that an error lists


@dataclass(frozen=True, slots=True)
class Legend:
    """The values of a target that are objects, no objects, and unknown; so is NaN.

    >>> Legend.of("nonzero", ignore=2).decode(np.array([0, 1, 2, 255], np.float32)).tolist()
    [0.0, 1.0, nan, 1.0]
    """

    positive: tuple[float, ...] | Literal["nonzero"] = (1.0,)
    negative: tuple[float, ...] = (0.0,)
    ignore: tuple[float, ...] = ()

    @classmethod
    def of(
        cls,
        positive: Positive | None = None,
        negative: Labels | None = None,
        ignore: Labels | None = None,
    ) -> Self:
        """1 is positive where nothing else is; 0 is negative unless it is named elsewhere.

        Raises:
            ConfigError: A value has two meanings, or ``positive`` is another word.
        """
        if isinstance(positive, str) and positive != "nonzero":
            raise ConfigError(
                f"positive is one value, a list of values or nonzero, not {positive!r}: write it "
                "as in positive: [255]"
            )
        objects: tuple[float, ...] = () if isinstance(positive, str) else _values(positive, (1.0,))
        unknown = _values(ignore, ())
        empty = _values(negative, ())
        empty += () if 0 in objects + unknown + empty else (0.0,)
        for value in objects + unknown + empty:
            if (objects + unknown + empty).count(value) > 1:
                raise ConfigError(
                    f"the value {value:g} of the target has two meanings: name it once, in "
                    "positive, negative or ignore"
                )
        return cls("nonzero" if isinstance(positive, str) else objects, empty, unknown)

    def decode(self, target: NDArray[np.float32]) -> NDArray[np.float32]:
        """1 on objects, 0 elsewhere, NaN where that is unknown; others are not looked for."""
        if self == Legend():
            return target
        decoded = self._is_positive(target).astype(np.float32)
        decoded[_among(target, self.ignore) | np.isnan(target)] = np.nan
        return decoded

    def check(self, target: NDArray[np.float32], source: str, tile: Tile) -> None:
        """Check that each value of a tile of a target, ``(C, h, w)``, has a meaning.

        Raises:
            DataError: One has none.
        """
        named = self._is_positive(target) | _among(target, self.negative + self.ignore)
        if named.all():
            return
        wrong = ~(named | np.isnan(target))
        if not wrong.any():
            return
        channel, row, column = np.unravel_index(int(wrong.argmax()), wrong.shape)
        values = np.unique(target[wrong])
        raise DataError(
            f"{source} holds {target[channel, row, column]:g} at row {tile.top + row}, column "
            f"{tile.left + column}: a target must be {self._allowed()}, or NaN where unknown"
            f"{_advice(values[np.isfinite(values)].tolist())}"
        )

    def _is_positive(self, target: NDArray[np.float32]) -> NDArray[np.bool_]:
        if self.positive == "nonzero":
            return np.isfinite(target) & ~_among(target, self.negative + self.ignore)
        return _among(target, self.positive)

    def _allowed(self) -> str:
        positive = [self.positive] if isinstance(self.positive, str) else self.positive
        return ", ".join(_word(value) for value in (*self.negative, *positive, *self.ignore))


def _values(given: Labels | None, default: tuple[float, ...]) -> tuple[float, ...]:
    return default if given is None else tuple(map(float, np.atleast_1d(given)))


def _among(target: NDArray[np.float32], values: tuple[float, ...]) -> NDArray[np.bool_]:
    # file and configuration may round a value such as 0.1 differently beyond float32
    among = np.zeros(target.shape, np.bool_)
    for value in np.array(values, np.float32):  # a few, for which this is faster than np.isin
        among |= target == value
    return among


def _word(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _advice(values: Sequence[float]) -> str:
    """How to say what these values mean."""
    if not values:
        return ""
    named = ", ".join(f"{value:g}" for value in values[:MOST_NAMED])
    if len(values) > MOST_NAMED:
        return (
            f"; it holds {len(values)} other values ({named}, ...): say what they mean by "
            f"positive: nonzero, or list them in positive, negative or ignore"
        )
    return (
        f"; say what other values mean by positive: [{named}] (or positive: nonzero), "
        f"negative: [{named}] or ignore: [{named}]"
    )
