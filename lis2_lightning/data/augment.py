"""Augmentations of whole batches, decided by the random key of each sample.

Names and keys are those of LIS². LIS² augments each array of a sample on its own; here one draw
moves `patch`, `target` and `labelled` together, so that the truth stays aligned with the image.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lis2_lightning.data.sampling import fork, normal, uniform
from lis2_lightning.errors import ConfigError, did_you_mean

Tensors = dict[str, Tensor]
SPATIAL = ("patch", "target", "labelled", "weight")
TOGETHER = 2**18  # values of the image that are augmented at a time, 1 MB
SPELLINGS = {"patch": "patch", "target": "target", "spines": "target", "labelled": "labelled"}
"""The values of `keys_to_augment`, and the key of a sample that each stands for."""


class Augmentation(ABC):
    """Changes a batch, the same way for the same keys.

    Args:
        name: A label without effect.
        keys_to_augment: What to change: `patch`, `target` (`spines` in LIS²) or `labelled`; the
            default depends on the augmentation.

    Raises:
        ConfigError: An unknown name in `keys_to_augment`.
    """

    random = True
    """Whether the keys have an effect; other augmentations apply to prediction too."""

    def __init__(
        self, *, name: str | None = None, keys_to_augment: Sequence[str] | None = None
    ) -> None:
        unknown = [key for key in keys_to_augment or () if key not in SPELLINGS]
        if unknown:
            hint = did_you_mean(unknown[0], SPELLINGS)
            raise ConfigError(f"unknown key {unknown[0]!r} in keys_to_augment: {hint}")
        self.name = name
        self.keys_to_augment = tuple(SPELLINGS[key] for key in keys_to_augment or ())

    @abstractmethod
    def __call__(self, tensors: Tensors, keys: NDArray[np.uint64]) -> Tensors:
        """Change a batch, possibly in place.

        Args:
            tensors: `patch` `(B, C, H, W)` float32, optionally `target`, `labelled` and others.
            keys: A random key for each sample, `(B,)`.
        """


class ToTensor(Augmentation):
    """Does nothing, because batches are tensors already; LIS²'s configurations have it."""

    random = False

    def __call__(self, tensors: Tensors, keys: NDArray[np.uint64]) -> Tensors:  # noqa: ARG002
        """Return the batch."""
        return tensors


class _Geometric(Augmentation):
    """Moves pixels: the image and its truth together, or not at all."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.keys_to_augment and not {"patch", "target"} <= set(self.keys_to_augment):
            raise ConfigError(
                f"{type(self).__name__} with keys_to_augment {list(self.keys_to_augment)} would "
                f"misalign image and target: name both patch and target, or neither"
            )


class _RandomFlip(_Geometric):
    """Mirrors tiles along one axis with a probability."""

    axis: int

    def __init__(self, p: float = 0.5, **options: Any) -> None:
        super().__init__(**options)
        if not 0 <= p <= 1:
            raise ConfigError(f"p must be a probability in [0, 1], not {p}")
        self.p = p

    def __call__(self, tensors: Tensors, keys: NDArray[np.uint64]) -> Tensors:
        """Mirror some of the tiles."""
        chosen = np.flatnonzero(uniform(keys, 0) < self.p)
        for key in present(tensors):
            # in place in NumPy, which wakes no threads: they would cost more
            values = tensors[key].numpy()
            values[chosen] = np.flip(values[chosen], self.axis)
        return tensors


class RandomHorizontalFlip(_RandomFlip):
    """Mirrors tiles left to right.

    Args:
        p: Probability for each tile, in [0, 1].
        **options: `name` and `keys_to_augment`; `labelled` always goes with `target`.

    Raises:
        ConfigError: The probability is outside [0, 1], or `patch` is named without `target`.
    """

    axis = -1


class RandomVerticalFlip(_RandomFlip):
    """Mirrors tiles top to bottom; see :class:`RandomHorizontalFlip`."""

    axis = -2


class RandomRotation(_Geometric):
    """Turns tiles about their centre by any angle.

    The image is interpolated bilinearly, target and labelled by the nearest pixel. Pixels from
    outside the tile are 0 and unlabelled.

    Args:
        degrees: Angles are uniform in `-degrees` to `degrees`, or in a range of two values;
            anticlockwise with rows counted downwards.
        **options: `name` and `keys_to_augment`; `labelled` always goes with `target`.

    Raises:
        ConfigError: A single angle is negative, there are not one or two angles, or `patch` is
            named without `target`.
    """

    def __init__(self, degrees: float | Sequence[float], **options: Any) -> None:
        super().__init__(**options)
        angles = (-degrees, degrees) if isinstance(degrees, int | float) else tuple(degrees)
        if len(angles) != 2 or angles[0] > angles[1]:
            raise ConfigError(
                f"degrees must be one angle of at least 0 or a range of two, not {degrees}"
            )
        self.degrees = angles

    def __call__(self, tensors: Tensors, keys: NDArray[np.uint64]) -> Tensors:
        """Turn the tiles."""
        low, high = self.degrees
        angles = np.deg2rad(low + (high - low) * uniform(keys, 0))
        patch = tensors["patch"]
        grid = _rotated_grid(angles, patch.shape[-2], patch.shape[-1])
        truth = {key: tensors[key] for key in present(tensors)[1:]}
        turned = {"patch": _sample(patch, grid, "bilinear")}
        if truth:  # in one call, which looks up the nearest pixels once
            channels = [values.shape[1] for values in truth.values()]
            nearest = _sample(torch.cat([v.float() for v in truth.values()], 1), grid, "nearest")
            parts = zip(truth.items(), torch.split(nearest, channels, 1), strict=True)
            turned |= {key: part.to(values.dtype) for (key, values), part in parts}
        return {**tensors, **turned}


class NoiseDataAugmentation(Augmentation):
    """Adds normal noise and clips to [0, 1].

    A pixel of `target` changes its class if the noisy value is nearer to the other class.

    Args:
        name: A label without effect.
        noise_var: Standard deviation of the noise, in units of the normalised image. (LIS², whose
            name this is, uses it as a standard deviation too.)
        **options: `keys_to_augment`: `patch`, `target` or both; `patch` by default.

    Raises:
        ConfigError: The noise is negative, or `labelled` is named.
    """

    def __init__(self, name: str | None = None, *, noise_var: float = 0.0, **options: Any) -> None:
        super().__init__(name=name, **options)
        if noise_var < 0:
            raise ConfigError(f"noise_var must be at least 0, not {noise_var}")
        if "labelled" in self.keys_to_augment:
            raise ConfigError("noise on labelled is meaningless: name patch or target")
        self.noise_var = noise_var

    def __call__(self, tensors: Tensors, keys: NDArray[np.uint64]) -> Tensors:
        """Add the noise."""
        if self.noise_var == 0:
            return tensors
        for key in self.keys_to_augment or ("patch",):
            tensor = tensors[key]
            noise = normal(keys, SPATIAL.index(key), tensor[0].numel())
            noise *= np.float32(self.noise_var)
            noise += tensor.numpy().reshape(noise.shape)
            if key == "target":
                noise = (noise >= 0.5).astype(np.float32)
            tensors[key] = torch.from_numpy(np.clip(noise, 0, 1, out=noise)).view_as(tensor)
        return tensors


class Normalize(Augmentation):
    """Shifts and scales the image: (patch - mean) / std, as torchvision's class of this name.

    Args:
        mean: One value, or one per channel, in units of the normalised image.
        std: The same, above 0.
        **options: `name`, and `keys_to_augment`, which can only be `patch`.

    Raises:
        ConfigError: A deviation is not above 0, or something other than `patch` is named.
    """

    random = False

    def __init__(
        self, mean: float | Sequence[float], std: float | Sequence[float], **options: Any
    ) -> None:
        super().__init__(**options)
        self.mean, self.std = (_per_channel(values) for values in (mean, std))
        if not bool((self.std > 0).all()):
            raise ConfigError(f"std must be above 0, not {std}")
        if set(self.keys_to_augment) - {"patch"}:
            raise ConfigError("Normalize changes the patch only: omit keys_to_augment")

    def __call__(self, tensors: Tensors, keys: NDArray[np.uint64]) -> Tensors:  # noqa: ARG002
        """Shift and scale the image."""
        channels = tensors["patch"].shape[1]
        wrong = {len(self.mean), len(self.std)} - {1, channels}
        if wrong:
            raise ConfigError(
                f"Normalize has {max(wrong)} values for an image of {channels} channels: "
                f"use one value, or one per channel"
            )
        return {**tensors, "patch": (tensors["patch"] - self.mean) / self.std}


def augment(
    tensors: Tensors, keys: NDArray[np.uint64], augmentations: Sequence[Augmentation]
) -> Tensors:
    """Apply augmentations in sequence; the draws of each follow from its position.

    A few samples at a time, which stay in the processor's cache from one augmentation to the next.
    """
    if not augmentations:
        return tensors
    step = max(1, TOGETHER // max(1, tensors["patch"][0].numel()))
    done = []
    for begin in range(0, len(keys), step):
        part = slice(begin, begin + step)
        some = {key: values[part] for key, values in tensors.items()}
        for place, augmentation in enumerate(augmentations):
            some = augmentation(some, fork(keys[part], place))
        done.append(some)
    if len(done) == 1:
        return done[0]
    return {key: torch.cat([some[key] for some in done]) for key in done[0]}


def present(tensors: Tensors) -> list[str]:
    """Which of `patch`, `target`, `labelled` and `weight` a batch has, in this order."""
    return [key for key in SPATIAL if key in tensors]


def _per_channel(values: float | Sequence[float]) -> Tensor:
    """Values that broadcast with `(B, C, H, W)`."""
    listed = [values] if isinstance(values, int | float) else list(values)
    return torch.tensor(listed, dtype=torch.float32).view(-1, 1, 1)


def _rotated_grid(angles: NDArray[np.float64], height: int, width: int) -> Tensor:
    """The source of each pixel of the rotated tiles, `(B, H, W, 2)` in [-1, 1]."""
    # one by one: vectorised sines may round differently depending on the position in the array,
    # and a sample must not depend on its batch
    turns = [(math.cos(angle), math.sin(angle)) for angle in angles]
    cosines, sines = np.array(turns, dtype=np.float32).reshape(-1, 2, 1).transpose(1, 0, 2)
    x = np.arange(width, dtype=np.float32) - np.float32((width - 1) / 2)
    y = np.arange(height, dtype=np.float32) - np.float32((height - 1) / 2)
    scale = np.array([2 / width, 2 / height], dtype=np.float32)
    columns = np.stack((cosines * x, sines * x), axis=-1) * scale
    rows = np.stack((-sines * y, cosines * y), axis=-1) * scale
    # adding pairs of float32 as complex numbers is four times as fast
    pairs = (
        rows.view(np.complex64)[..., 0][:, :, None] + columns.view(np.complex64)[..., 0][:, None]
    )
    return torch.from_numpy(pairs.view(np.float32).reshape(len(turns), height, width, 2))


def _sample(tensor: Tensor, grid: Tensor, mode: str) -> Tensor:
    """Sample a batch of float32 at other positions; zero outside."""
    return functional.grid_sample(
        tensor, grid, mode=mode, padding_mode="zeros", align_corners=False
    )
