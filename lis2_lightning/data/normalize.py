"""Scaling the values of a tile to [0, 1], as LIS² does when it cuts tiles."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.errors import ConfigError, did_you_mean

Normalization = Literal["direct", "log", "none"]
"""How the pixels of a tile are scaled to [0, 1]; see :func:`normalize`."""

LARGEST = np.finfo(np.float32).max


def normalize(patch: NDArray[np.float32], mode: Normalization) -> NDArray[np.float32]:
    """Normalise each channel of each tile by its own values.

    `direct`: (x - min) / (max - min), with minimum and maximum of the positive pixels. `log`: the
    same with logarithms. `none`: unchanged. If all positive pixels are equal they become 0, as in
    LIS².

    NaN and infinite pixels become 0 and are excluded from minimum and maximum. So are negative
    pixels in `direct` and `log`, where nothing was observed. (LIS² keeps negative pixels, in the
    units of the image.) Tiles are `(B, C, H, W)`; the result may use the same memory.

    >>> patch = np.array([[[[2, 4, 6, 0, np.nan]]]], dtype=np.float32)
    >>> normalize(patch, "direct").ravel().tolist()
    [0.0, 0.5, 1.0, 0.0, 0.0]
    """
    if mode == "none":
        return np.nan_to_num(patch, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    values = patch.reshape(-1, patch.shape[-2] * patch.shape[-1])
    low = values.min(axis=1, keepdims=True)
    clean = (low > 0) & (values.max(axis=1, keepdims=True) < np.inf)  # false for NaN
    rows = np.flatnonzero(~clean)
    if len(rows):
        values[rows], low[rows] = _fill(values[rows])
    return _scale(values, low, mode).reshape(patch.shape)


def _fill(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Set all but positive finite values to the row's minimum (1 if there is none); return both."""
    valid = (values > 0) & (values < np.inf)
    low = np.where(valid, values, np.float32(np.inf)).min(axis=1, keepdims=True)
    low[np.isinf(low)] = 1
    return np.where(valid, values, low), low


def _scale(
    values: NDArray[np.float32], low: NDArray[np.float32], mode: Normalization
) -> NDArray[np.float32]:
    """Scale positive values with known minimum to [0, 1], in place."""
    if mode == "log":
        # the logarithm of a ratio: a difference of float32 logarithms would lose five digits
        with np.errstate(over="ignore"):
            values /= low
        np.log(np.minimum(values, LARGEST, out=values), out=values)
    else:
        values -= low
    span = values.max(axis=1, keepdims=True)
    values /= np.where(span > 0, span, np.float32(1))
    return values


def check_normalization(mode: str) -> None:
    """Raise a :class:`ConfigError` for an unknown mode."""
    if mode not in get_args(Normalization):
        hint = did_you_mean(mode, get_args(Normalization))
        raise ConfigError(f"unknown normalization {mode!r}: {hint}")
