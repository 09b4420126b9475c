"""Filters of whole images that need no training: what a network has to beat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.evaluation.fields import Field

Floats = NDArray[np.float32]
Method = Literal["brightness", "high-pass", "Sato", "Frangi"]
MOST_PIXELS: Final = 100_000_000  # a filter holds several copies of the image
RIDGE_PX: Final = (1.0, 1.5, 2.0, 3.0, 4.0)
HIGH_PASS_PX: Final = (2.0, 4.0, 8.0, 16.0)
_SIGMAS_PX: Final[dict[Method, Sequence[float]]] = {
    "brightness": (0.0,),
    "high-pass": HIGH_PASS_PX,
    "Sato": RIDGE_PX,
    "Frangi": RIDGE_PX,
}


@dataclass(frozen=True)
class Filter:
    """A filter with its parameters.

    Attributes:
        method: What it does.
        sigma_px: Its scale, px; none for brightness.
        is_log: Whether it filters the logarithm of the image.
        is_dark: Whether objects are darker than what is around them.
        channel: The channel of the image.
    """

    method: Method
    sigma_px: float = 0.0
    is_log: bool = False
    is_dark: bool = False
    channel: int = 0

    def __str__(self) -> str:
        parts = [
            f"sigma {self.sigma_px:g} px" if self.sigma_px else "",
            "log" if self.is_log else "",
            "dark" if self.is_dark else "bright",
            f"channel {self.channel}" if self.channel else "",
        ]
        return ", ".join(part for part in parts if part)

    def respond(self, image: Floats) -> Floats:
        """Filter a channel without gaps, ``(H, W)``: the higher, the more of an object."""
        filters: Any = _skimage()
        values = np.log(image) if self.is_log else image
        values = -values if self.is_dark else values
        match self.method:
            case "brightness":
                response = values
            case "high-pass":
                response = values - filters.gaussian(values, self.sigma_px)
            case _:
                ridges = filters.sato if self.method == "Sato" else filters.frangi
                response = ridges(values, sigmas=[self.sigma_px], black_ridges=False)
        return np.asarray(response, np.float32)


def is_available() -> bool:
    """Whether scikit-image, which filters, is installed."""
    return find_spec("skimage") is not None


def _skimage() -> Any:
    """The filters of scikit-image.

    Raises:
        ConfigError: It is not installed.
    """
    if not is_available():
        raise ConfigError('baselines need scikit-image: pip install "lis2-lightning[baselines]"')
    from skimage import filters

    return filters


def grid(images: Sequence[Floats]) -> Iterator[Filter]:
    """All filters that are tried on images, ``(C, H, W)`` each.

    Logarithms are left out where a value is not positive, and for brightness, whose order they do
    not change.
    """
    for channel in range(len(images[0])):
        is_positive = all(bool((image[channel] > 0).all()) for image in images)
        for method, sigmas in _SIGMAS_PX.items():
            scales = (False, True) if is_positive and method != "brightness" else (False,)
            for is_log in scales:
                for sigma_px in sigmas:
                    for is_dark in (False, True):
                        yield Filter(method, sigma_px, is_log, is_dark, channel)


def read_filled(field: Field) -> Floats:
    """The whole image, ``(C, H, W)``, in units of its standard deviation.

    A gap has the value of the nearest pixel with data, so that its rim is no ridge.

    Raises:
        ConfigError: There is no image, as for stored patches.
        DataError: It is too large, or has no data.
    """
    height, width = field.shape
    if field.image is None:
        raise ConfigError("baselines filter an image, and stored patches have none")
    if height * width > MOST_PIXELS:
        raise DataError(
            f"{field.image.source} has {height} x {width} px, and baselines filter images of at "
            f"most {MOST_PIXELS:,} px in memory: choose a part of it"
        )
    _skimage()
    from scipy.ndimage import distance_transform_edt

    whole = field.band(0, height)
    image = field.image.read(whole)
    gaps = ~np.isfinite(image).all(axis=0)
    if field.missing is not None:
        gaps |= ~(field.missing.read(whole) > 0).any(axis=0)
    if gaps.all():
        raise DataError(f"{field.image.source} has no data: there is nothing to filter")
    if gaps.any():
        nearest = distance_transform_edt(gaps, return_distances=False, return_indices=True)
        image = image[:, nearest[0], nearest[1]]
    scale = image.std(axis=(1, 2), keepdims=True, dtype=np.float64)
    return np.asarray(image / np.where(scale > 0, scale, 1), np.float32)
