"""Bringing the values of a tile to [0, 1], as LIS² does it when it cuts tiles."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.errors import ConfigError, did_you_mean

Normalization = Literal["direct", "log", "none"]
"""How the pixels of a tile are brought to [0, 1]; see :func:`normalize`."""

LARGEST = np.finfo(np.float32).max


def normalize(patch: NDArray[np.float32], mode: Normalization) -> NDArray[np.float32]:
    """Normalise each channel of each tile by its own values.

    `direct`: positive pixels go to (x - min) / (max - min), where the minimum and the maximum are
    those of the positive pixels. `log`: the same of their logarithms. `none`: values stay.
    Where all positive pixels are equal they go to 0, as in LIS².

    In all modes pixels that are NaN or infinite become 0 and enter no minimum and no maximum. In
    `direct` and `log` so do negative ones, at which nothing was observed: everything is in [0, 1].
    (LIS² leaves negative pixels as they are, in the units of the image, beside others in [0, 1].)

    Args:
        patch: Values in the units of the image, `(B, C, H, W)`.
        mode: One of the three.

    Returns:
        Finite values, of the same shape; the argument's own memory may hold them.

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
    """Set all that is no positive number to the least positive one, which will be 0.

    Returns:
        The values, `(N, P)`, and their minimum, `(N, 1)`; ones where none is positive.
    """
    valid = (values > 0) & (values < np.inf)
    low = np.where(valid, values, np.float32(np.inf)).min(axis=1, keepdims=True)
    low[np.isinf(low)] = 1
    return np.where(valid, values, low), low


def _scale(
    values: NDArray[np.float32], low: NDArray[np.float32], mode: Normalization
) -> NDArray[np.float32]:
    """Bring positive values whose minimum is known to [0, 1], in place."""
    if mode == "log":
        # a ratio first: in float32 the difference of two logarithms would have five digits less
        with np.errstate(over="ignore"):
            values /= low
        np.log(np.minimum(values, LARGEST, out=values), out=values)
    else:
        values -= low
    span = values.max(axis=1, keepdims=True)
    values /= np.where(span > 0, span, np.float32(1))
    return values


def check_normalization(mode: str) -> None:
    """Refuse an unknown mode, as a :class:`ConfigError`."""
    if mode not in get_args(Normalization):
        hint = did_you_mean(mode, get_args(Normalization))
        raise ConfigError(f"unknown normalization {mode!r}: {hint}")
