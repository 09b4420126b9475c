"""Structural similarity of the predicted and the true map."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.metrics.pixel_metric import PixelMetric

_C1 = _C2 = 1e-5**2  # (K * data range)**2 with LIS²'s K1 = K2 = 1e-5 and maps of zeros and ones
_SCALE = 2**30  # similarities are added as integers: exact in any order, up to 8e9 pixels


class MaskedSSIM(PixelMetric):
    """Mean structural similarity of the maps ``probs >= threshold`` and ``target``.

    Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity",
    equation 13, with LIS²'s choices: a flat window, population variances, K1 = K2 = 1e-5. The mean
    is over the labelled pixels whose window lies inside the patch, and the moments of a window are
    over its labelled pixels; with all pixels labelled this is scikit-image's
    ``structural_similarity``. NaN without such pixels.

    Args:
        threshold: A pixel is predicted positive where its probability is at least this.
        win_size: Side of the window in px, odd, at least 3.

    >>> metric = MaskedSSIM(win_size=3)
    >>> target = torch.eye(5).reshape(1, 1, 5, 5)
    >>> metric.update(0.9 * target, target)
    >>> metric.compute().item()
    1.0
    """

    name = "ssim"
    needs_maps = True

    def __init__(self, *, threshold: float = 0.5, win_size: int = 7) -> None:
        super().__init__((2,))  # sum of the similarities times _SCALE, number of windows
        if not 0 <= threshold <= 1:
            raise ConfigError(f"threshold must lie in [0, 1], got {threshold}")
        if win_size < 3 or win_size % 2 == 0:
            raise ConfigError(f"win_size must be odd and at least 3 px, got {win_size}")
        self.threshold = threshold
        self.win_size = win_size

    @property
    def family(self) -> Hashable:
        """Equal for equal thresholds and windows."""
        return "ssim", self.threshold, self.win_size

    def count(self, probs: Tensor, target: Tensor, labelled: Tensor | None = None) -> Tensor:
        """The scaled sum of similarities and their number, see :meth:`PixelMetric.count`."""
        sides = tuple(probs.shape[2:])
        if not sides or min(sides) < self.win_size:
            raise DataError(
                f"ssim needs patches of at least {self.win_size} px per side, got {sides}: use "
                "larger tiles or a smaller win_size"
            )
        if labelled is None:
            labelled = torch.ones_like(target, dtype=torch.bool)
        predicted = (probs.float() >= self.threshold) & labelled
        positive = (target >= 0.5) & labelled
        similarity = _similarity(labelled, predicted, positive, self.win_size)
        centre = labelled
        for axis in range(2, labelled.ndim):
            centre = centre.narrow(axis, self.win_size // 2, similarity.shape[axis])
        scaled = (similarity * _SCALE).round().long() * centre
        return torch.stack([scaled.sum(), centre.count_nonzero()])

    def evaluate(self, sums: Tensor) -> Tensor:
        """The mean similarity, in [-1, 1]: a ``float64`` scalar on the CPU."""
        scaled, num_windows = map(int, sums.tolist())
        value = scaled / _SCALE / num_windows if num_windows else float("nan")
        return torch.tensor(value, dtype=torch.float64)


def _similarity(labelled: Tensor, predicted: Tensor, positive: Tensor, size: int) -> Tensor:
    """Similarity in each window, ``float32``, smaller than the maps by ``size - 1`` px an axis."""
    maps = torch.stack([labelled, predicted, positive, predicted & positive])
    n, x, y, xy = _window_sums(maps.float(), size).unbind()
    n = n.clamp(min=1)  # no 0 / 0 in windows without labelled pixels, which do not count
    # means times n, variances times n squared: integers, exact in float32
    luminance = (2 * x * y + _C1 * n * n) / (x * x + y * y + _C1 * n * n)
    covariance, variances = n * xy - x * y, n * (x + y) - x * x - y * y
    return luminance * (2 * covariance + _C2 * n * n) / (variances + _C2 * n * n)


def _window_sums(maps: Tensor, size: int) -> Tensor:
    """Sums over all windows inside the spatial axes (from the fourth on: maps, batch, channel)."""
    for axis in range(3, maps.ndim):
        upto = maps.cumsum(axis)
        num = maps.shape[axis] - size
        ends = upto.narrow(axis, size - 1, num + 1)
        # the first window starts at the border: nothing is subtracted
        starts = torch.cat(
            [torch.zeros_like(ends.narrow(axis, 0, 1)), upto.narrow(axis, 0, num)], axis
        )
        maps = ends - starts
    return maps
