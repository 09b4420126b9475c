"""A synthetic image that resembles a map of the galactic plane, and its data set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data.filaments import REACH, Filament, draw, log_uniform, network, tangle
from lis2_lightning.data.open_raster import ArrayRaster
from lis2_lightning.data.scanning import scan
from lis2_lightning.data.tiles import TileDataset
from lis2_lightning.errors import ConfigError

Floats = NDArray[np.float64]
Map = NDArray[np.float32]
Mask = NDArray[np.bool_]
Difficulty = Literal["easy", "hard"]
COLUMN_DENSITY = 1.2e22  # cm⁻², the median of the maps for which LIS² was made
PX_PER_FILAMENT = {"easy": 2800, "hard": 4200}  # px²; the hard ones are longer and wider
PX_PER_SOURCE = {"easy": 9000, "hard": 900}  # px²
LEAST_SIDE = 32
STRIPES, SATURATION = 2.0, 40.0  # relative to the noise; relative to the clouds' mean


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticMaps:
    """The maps of one synthetic field, ``(H, W)`` float32 each, in LIS²'s convention.

    Attributes:
        image: Column density, cm⁻², positive; NaN where nothing was observed.
        target: 1 on labelled filament pixels, else 0.
        background: 1 on pixels labelled as background, else 0.
        missing: 1 where the image is valid, 0 where data are missing.
        truth: 1 on all filament pixels, labelled or not; unknown for real maps.
    """

    image: Map
    target: Map
    background: Map
    missing: Map
    truth: Map

    @property
    def labelled(self) -> Mask:
        """Where the truth is known: (target + background) × missing > 0."""
        return (self.target + self.background) * self.missing > 0


@lru_cache(maxsize=2)
def synthetic_maps(
    height: int = 512,
    width: int = 512,
    seed: int = 0,
    *,
    noise: float = 0.02,
    difficulty: Difficulty = "hard",
) -> SyntheticMaps:
    """A field of filaments over clouds, the same for the same arguments.

    The clouds are log-normal with a power spectrum of slope -3, brighter towards the middle row.
    Filaments are proportional to the cloud behind them: in dark regions they are fainter than
    bright clouds, so that no threshold selects them all.

    The hard field also has what misleads a ridge filter: filaments that cross, of widths and
    contrasts that change along them, many bright compact sources, stripes along two directions of
    scanning, noise that grows where these covered the sky less, and lost scan lines.

    Args:
        height: Height, px, at least 32.
        width: Width, px, at least 32.
        seed: Decides every draw.
        noise: Standard deviation of the noise, as a fraction of the median column density; in the
            hard field where the coverage is median, and stripes are proportional to it.
        difficulty: Which field.

    Returns:
        The maps, which are cached and read-only.

    Raises:
        ConfigError: A side is too short, the noise is negative or the difficulty is unknown.
    """
    if difficulty not in {"easy", "hard"}:
        raise ConfigError(f"difficulty must be easy or hard, not {difficulty!r}")
    if min(height, width) < LEAST_SIDE or noise < 0:
        raise ConfigError(
            f"a synthetic image needs sides of at least {LEAST_SIDE} px and noise of at least 0, "
            f"not {height} x {width} px and {noise}"
        )
    rng, shape = np.random.default_rng(seed), (height, width)
    density, distance, observed, known = (_easy if difficulty == "easy" else _hard)(
        rng, shape, noise
    )
    truth = distance <= 1.0
    known &= observed
    image = np.where(observed, np.maximum(density, 0.05) * COLUMN_DENSITY, np.nan)
    maps = (image, truth & known, ~truth & known, observed, truth)
    return SyntheticMaps(*(_frozen(values) for values in maps))


def _easy(
    rng: np.random.Generator, shape: tuple[int, int], noise: float
) -> tuple[Floats, Floats, Mask, Mask]:
    """The column density, the distance from filaments, and where there are data and labels."""
    clouds = _clouds(rng, shape)
    count = max(3, shape[0] * shape[1] // PX_PER_FILAMENT["easy"])
    excess, distance = _filaments(network(rng, shape, count=count), shape)
    density = clouds * (1 + excess + _sources(rng, shape))
    density = smooth(density, 0.8) + noise * np.median(clouds) * _grain(rng, shape)
    observed = _observed(rng, shape)
    return density, distance, observed, _known(rng, shape, distance)


def _hard(
    rng: np.random.Generator, shape: tuple[int, int], noise: float
) -> tuple[Floats, Floats, Mask, Mask]:
    """As above; sources beside filaments are labelled as background."""
    clouds = _clouds(rng, shape)
    count = max(3, shape[0] * shape[1] // PX_PER_FILAMENT["hard"])
    filaments = tangle(rng, shape, count=count)
    excess, distance = _filaments(filaments, shape)
    sources = _bright_sources(rng, shape, filaments)
    density = smooth(clouds * (1 + excess + sources), 0.8)
    seen = scan(rng, shape)
    observed = _observed(rng, shape) & ~seen.lost & (density < SATURATION)
    errors = _grain(rng, shape) / np.sqrt(seen.coverage) + STRIPES * seen.stripes
    density += noise * np.median(clouds) * errors
    known = _known(rng, shape, distance) | ((sources > 0.1) & (distance > 1.5))
    return density, distance, observed, known


class SyntheticDataset(TileDataset):
    """Tiles of a synthetic field; three with different `folds` are training, validation and test.

    Args:
        height: Height of the field, px, at least 32.
        width: Width of the field, px, at least 32.
        seed: Decides the field.
        noise: Standard deviation of the noise, as a fraction of the median column density.
        difficulty: ``hard`` has what misleads a ridge filter: crossings, changing widths, bright
            sources, stripes and uneven noise; ``easy`` has even noise and few sources.
        **kwargs: Arguments of :class:`~lis2_lightning.data.tiles.TileDataset` other than maps.

    Raises:
        ConfigError: A side is too short.

    >>> tiles = SyntheticDataset(height=64, width=96, size=32, stride=16)
    >>> tiles[0]["patch"].shape
    torch.Size([1, 32, 32])
    """

    def __init__(
        self,
        *,
        height: int = 512,
        width: int = 512,
        seed: int = 0,
        noise: float = 0.02,
        difficulty: Difficulty = "hard",
        **kwargs: Any,
    ) -> None:
        rasters = _rasters(height, width, seed, noise, difficulty)
        super().__init__(  # spelled out: jsonargparse reads the arguments from here
            image=rasters["image"],
            target=rasters["target"],
            background=rasters["background"],
            missing=rasters["missing"],
            labelled=None,
            weight=None,
            **kwargs,
        )
        self.maps = synthetic_maps(height, width, seed, noise=noise, difficulty=difficulty)


@lru_cache(maxsize=2)
def _rasters(
    height: int, width: int, seed: int, noise: float, difficulty: Difficulty
) -> dict[str, ArrayRaster]:
    """The maps as rasters, shared by all data sets of a field."""
    maps = synthetic_maps(height, width, seed, noise=noise, difficulty=difficulty)
    field = f"the synthetic field of {height} x {width} px and seed {seed}"
    return {
        name: ArrayRaster(getattr(maps, name), source=f"the {name} of {field}")
        for name in ("image", "target", "background", "missing")
    }


def spectrum(
    rng: np.random.Generator, shape: tuple[int, int], slope: float, *, longest_px: float = np.inf
) -> Floats:
    """A Gaussian random field with a power-law spectrum, mean 0, standard deviation 1, ``(H, W)``.

    The power is constant beyond a wavelength of `longest_px`.
    """
    # larger, then cropped, because the field is periodic
    height, width = (side + side // 4 for side in shape)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf
    amplitude = np.maximum(frequency, 1 / min(longest_px, max(shape))) ** (slope / 2)
    waves = np.fft.rfft2(rng.standard_normal((height, width))) * amplitude
    field = np.fft.irfft2(waves, s=(height, width))[: shape[0], : shape[1]]
    return np.asarray((field - field.mean()) / field.std())


def smooth(values: Floats, sigma_px: float) -> Floats:
    """Convolve with a Gaussian beam, ``(H, W)``."""
    pad = int(4 * sigma_px) + 1
    padded = np.pad(values, pad, mode="reflect")
    rows = np.fft.fftfreq(padded.shape[0])[:, None]
    columns = np.fft.rfftfreq(padded.shape[1])[None, :]
    beam = np.exp(-2 * (np.pi * sigma_px) ** 2 * (rows**2 + columns**2))
    result = np.fft.irfft2(np.fft.rfft2(padded) * beam, s=padded.shape)
    return np.asarray(result[pad:-pad, pad:-pad])


def _clouds(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Clouds around 1, with a few large bright complexes."""
    middle = rng.uniform(0.35, 0.65)
    latitude = (np.arange(shape[0]) / shape[0] - middle)[:, None] / 0.28
    plane = 0.55 + 0.75 * np.exp(-0.5 * latitude**2)
    rise = spectrum(rng, shape, -3.6, longest_px=300) - 1.5
    complexes = np.exp(0.8 * np.logaddexp(0, 4 * rise) / 4)  # a soft threshold leaves no rims
    return np.asarray(plane * complexes * np.exp(0.4 * spectrum(rng, shape, -3.0)))


def _filaments(filaments: list[Filament], shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """The total excess of filaments, and the distance from the closest, in its widths."""
    excess, distance = np.zeros(shape), np.full(shape, REACH)
    for filament in filaments:
        drawing = draw(filament, shape)
        here = drawing.tile.rows, drawing.tile.columns
        excess[here] += drawing.excess
        distance[here] = np.minimum(distance[here], drawing.distance)
    return excess, distance


def _sources(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """The excess of round, compact sources, as bright as filaments."""
    excess = np.zeros(shape)
    for _ in range(max(2, shape[0] * shape[1] // PX_PER_SOURCE["easy"])):
        centre = rng.uniform((0, 0), shape)
        _add_source(excess, centre, log_uniform(rng, 1.2, 4.0), log_uniform(rng, 0.3, 2.0))
    return excess


def _bright_sources(
    rng: np.random.Generator, shape: tuple[int, int], filaments: list[Filament]
) -> Floats:
    """The excess of compact sources, up to many times brighter; a third sit on filaments."""
    excess = np.zeros(shape)
    for _ in range(max(4, shape[0] * shape[1] // PX_PER_SOURCE["hard"])):
        centre = rng.uniform((0, 0), shape)
        if rng.random() < 0.3:
            points = filaments[int(rng.integers(len(filaments)))].points
            centre = points[int(rng.integers(len(points)))]
        _add_source(excess, centre, log_uniform(rng, 1.0, 3.2), log_uniform(rng, 0.5, 6.0))
    return excess


def _add_source(excess: Floats, centre: Floats, radius: float, peak: float) -> None:
    """Add a Gaussian of a radius, px, in place."""
    row, column = centre
    top, left = (max(0, int(place - 5 * radius)) for place in centre)
    here = (
        slice(top, max(0, int(row + 5 * radius))),
        slice(left, max(0, int(column + 5 * radius))),
    )
    rows, columns = np.ogrid[: excess[here].shape[0], : excess[here].shape[1]]
    squared = ((rows + top - row) ** 2 + (columns + left - column) ** 2) / radius**2
    excess[here] += peak * np.exp(-0.5 * squared)


def _grain(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Noise of unit standard deviation, correlated over a beam."""
    grain = smooth(rng.standard_normal(shape), 0.7)
    return np.asarray(grain / grain.std())


def _observed(rng: np.random.Generator, shape: tuple[int, int]) -> Mask:
    """Where there are data: not along part of an edge, in two blocks and in single pixels."""
    observed = np.ones(shape, dtype=np.bool_)
    unit = max(2, min(shape) // 80)
    begin, depth = int(rng.integers(0, shape[1] // 2)), 3
    for left in range(begin, begin + shape[1] // 3, unit):
        depth = min(max(depth + int(rng.integers(-1, 2)), 0), 5)
        observed[: depth * unit, left : left + unit] = False
    for _ in range(2):
        top, left = (int(rng.integers(0, side)) for side in shape)
        tall, wide = (int(side) for side in rng.integers(unit, 4 * unit, size=2))
        observed[top : top + tall, left : left + wide] = False
    observed[rng.random(shape) < 2e-5] = False
    return observed


def _known(rng: np.random.Generator, shape: tuple[int, int], distance: Floats) -> Mask:
    """Where labels exist: most filaments with their flanks, and patches of background."""
    visited = spectrum(rng, shape, -3.0, longest_px=120) > -0.9
    near = (distance <= 1.0) | ((distance > 1.5) & (distance < 2.5))
    patches = spectrum(rng, shape, -3.0, longest_px=80) > 0.75
    return (near & visited) | (patches & (distance > 3.0))


def _frozen(values: NDArray[Any]) -> Map:
    result: Map = values.astype(np.float32)
    result.flags.writeable = False
    return result
