"""A starting configuration for a user's own images, after looking at them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.base.files import atomic
from lis2_lightning.data import TileDataset, open_raster
from lis2_lightning.data.open_raster import Raster
from lis2_lightning.data.truth import Truth
from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.tiling import Tile

_MOST_PIXELS: Final = 50_000_000  # of one image that are looked at, in bands spread over it
_BAND: Final = 2_000_000
_SAMPLE: Final = 20_000  # values of a band from which percentiles are taken
_SIZES: Final = (64, 32, 16, 8)
_PERCENTILES: Final = (1, 50, 99)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was seen of a user's images.

    Attributes:
        shape: Channels, height and width of the image, px.
        channels: Of the target.
        looked_at: Share of the pixels that were looked at, in (0, 1].
        finite: Share of those that are numbers.
        negative: Share of those that are below 0.
        percentiles: The 1st, 50th and 99th of the finite values, in the image's units.
        least: The least value.
        most: The greatest one.
        mean: Of the finite values in the sample.
        spread: Their standard deviation.
        labelled: Share of pixels whose truth is known.
        positive: Share of those that are 1.
    """

    shape: tuple[int, int, int]
    channels: int
    looked_at: float
    finite: float
    negative: float
    percentiles: tuple[float, float, float]
    least: float
    most: float
    mean: float
    spread: float
    labelled: float
    positive: float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is suggested.

    Attributes:
        size: Side of a tile, px.
        num_folds: How many folds there are.
        folds: Which of them train, validate and test; a single one only trains.
        normalization: As :class:`~lis2_lightning.data.TileDataset` takes it.
        num_blocks: Depth of the U-Net.
    """

    size: int
    num_folds: int
    folds: Mapping[str, list[int]]
    normalization: str
    num_blocks: int


def look(maps: Mapping[str, str]) -> Look:
    """Look at an image and what is known of it.

    Args:
        maps: Paths of ``image`` and ``target``, and of ``background``, ``missing`` or ``labelled``.

    Raises:
        DataError: A file cannot be read, or shapes differ.
        ConfigError: Both ``background`` and ``labelled`` are given.
    """
    rasters = {name: open_raster(path) for name, path in maps.items()}
    image = rasters.pop("image")
    truth = Truth(image, **rasters)
    counts = np.zeros(5)  # pixels, finite, negative, of the truth: labelled, positive
    sample: list[NDArray[np.float64]] = []
    least, most, seen = np.inf, -np.inf, 0
    for band in _bands(image):
        values = image.read(band).astype(np.float64)
        finite = values[np.isfinite(values)]
        target, known = truth.read(band)
        counts += (values.size, finite.size, (finite < 0).sum(), known.mean() * band_area(band), 0)
        counts[4] += (
            (target[known] == 1).mean() * known.mean() * band_area(band) if known.any() else 0
        )
        seen += band_area(band)
        if finite.size:
            least, most = min(least, float(finite.min())), max(most, float(finite.max()))
            sample.append(finite[:: max(1, finite.size // _SAMPLE)])
    if not sample:
        raise DataError(f"{image.source} holds no number: is it the image?")
    drawn = np.concatenate(sample)
    low, middle, high = np.percentile(drawn, _PERCENTILES)
    _, height, width = image.shape
    return Look(
        shape=image.shape,
        channels=truth.target.shape[0],
        looked_at=seen / (height * width),
        finite=float(counts[1] / counts[0]),
        negative=float(counts[2] / max(counts[1], 1)),
        percentiles=(float(low), float(middle), float(high)),
        least=least,
        most=most,
        mean=float(drawn.mean()),
        spread=float(drawn.std()) or 1.0,
        labelled=float(counts[3] / seen),
        positive=float(counts[4] / counts[3]) if counts[3] else 0.0,
    )


def _bands(image: Raster) -> Iterator[Tile]:
    channels, height, width = image.shape
    rows = max(1, min(height, _BAND // (channels * width)))
    tops = range(0, height, rows)
    every = max(1, round(channels * height * width / _MOST_PIXELS))
    for top in tops[::every]:
        yield Tile(top, 0, min(rows, height - top), width)


def band_area(band: Tile) -> int:
    """How many pixels a rectangle has."""
    return band.height * band.width


def choose(seen: Look, maps: Mapping[str, Any]) -> Choice:
    """Choose tile size, folds and normalisation, such that every fold has something to learn.

    Args:
        seen: What :func:`look` gives.
        maps: As for :func:`look`.

    Raises:
        DataError: The image is too small, or nothing in it is labelled.
    """
    side = min(seen.shape[1:])
    sizes = [size for size in _SIZES if 10 * size <= side] or [8]
    mode = normalization(seen)
    problem: Exception | None = None
    for num_folds in (5, 3, 1):
        folds = _folds(num_folds)
        for size in sizes:
            try:
                for numbers in folds.values():
                    TileDataset(
                        **maps, size=size, num_folds=num_folds, folds=numbers, normalization=mode
                    )
            except DataError as error:
                problem = error
                continue
            blocks = 3 if size >= 32 else 2
            return Choice(
                size=size, num_folds=num_folds, folds=folds, normalization=mode, num_blocks=blocks
            )
    raise DataError(f"no tiles can be cut from these images: {problem}")


def _folds(num_folds: int) -> dict[str, list[int]]:
    if num_folds == 1:
        return {"train": [0]}
    *train, val, test = range(num_folds)
    return {"train": train, "val": [val], "test": [test]}


def normalization(seen: Look) -> Any:
    """``none`` where values are in [0, 1] or have both signs, ``log`` over a wide range."""
    low, _, high = seen.percentiles
    if (seen.least >= 0 and seen.most <= 1) or seen.negative > 0.01:
        return "none"
    return "log" if low > 0 and high / low > 100 else "direct"


def write(path: Path, seen: Look, choice: Choice, maps: Mapping[str, str]) -> None:
    """Write the configuration.

    Raises:
        ConfigError: The file is there already, or cannot be written.
    """
    if path.exists():
        raise ConfigError(f"{path} exists already: choose another name with --output")
    try:
        with atomic(path) as file:
            file.write(text(path.stem, seen, choice, maps).encode())
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def text(name: str, seen: Look, choice: Choice, maps: Mapping[str, str]) -> str:
    """The configuration as commented YAML.

    Args:
        name: Of the run.
        seen: What was seen.
        choice: What is suggested.
        maps: The paths.
    """
    files = "\n".join(f"  {key}: {json.dumps(value)}" for key, value in maps.items())
    normalize = f"    - {{type: Normalize, mean: {seen.mean:.6g}, std: {seen.spread:.6g}}}\n"
    fixed = normalize if choice.normalization == "none" and seen.negative > 0.01 else ""
    always = f"[{fixed.strip().removeprefix('- ')}]"
    others = "".join(
        f"{split}_dataset: {{<<: *maps, folds: {numbers}, data_augmentations: {always}}}\n"
        for split, numbers in choice.folds.items()
        if split != "train"
    )
    return _TEMPLATE.format(
        name=json.dumps(name),
        files=files,
        fixed=fixed,
        others=others,
        size=choice.size,
        stride=choice.size // 2,
        num_folds=choice.num_folds,
        train=choice.folds["train"],
        normalization=choice.normalization,
        blocks=choice.num_blocks,
        inputs=seen.shape[0],
        outputs=seen.channels,
        monitor="val_loss" if "val" in choice.folds else "train_loss",
        seen="".join(f"#   {line}\n" for line in lines(seen)),
    )


def lines(seen: Look) -> list[str]:
    """What was seen, for people."""
    channels, height, width = seen.shape
    low, middle, high = seen.percentiles
    part = "" if seen.looked_at == 1 else f" ({seen.looked_at:.0%} of the pixels were looked at)"
    return [
        f"image: {height} x {width} px, {channels} channel{'s' * (channels > 1)}{part}",
        f"values: {seen.least:.4g} to {seen.most:.4g}; 1 %, 50 % and 99 % lie below "
        f"{low:.4g}, {middle:.4g} and {high:.4g}",
        f"missing or not finite: {1 - seen.finite:.1%}; below 0: {seen.negative:.1%}",
        f"labelled: {seen.labelled:.1%} of the pixels, of which {seen.positive:.1%} are 1",
    ]


_TEMPLATE: Final = """\
# Written by `lis2 init`. It trains as it is: lis2 fit --config THIS_FILE
# Every key: docs/configuration.md. What was seen:
{seen}
output_dir: runs
run_name: {name}
seed: 1

model:
  type: unet
  in_channels: {inputs}
  out_channels: {outputs}
  features: 16  # more learn more, and take longer
  num_blocks: {blocks}  # the side of a tile must be a multiple of 2 to this power

train_dataset: &maps
  type: TileDataset
{files}
  size: {size}  # side of a tile, px
  stride: {stride}  # step from one tile to the next, px
  # tiles of different folds share no pixel; each fold has its share of what is labelled
  num_folds: {num_folds}
  folds: {train}
  normalization: {normalization}  # direct, log or none: how each tile is brought to [0, 1]
  data_augmentations:
{fixed}    - type: RandomHorizontalFlip
    - type: RandomVerticalFlip
{others}
optimizer: {{type: Adam, lr: 1.0e-3}}
# loss: bce_dice_loss  # where few of the labelled pixels are 1
early_stopper: true  # after 10 epochs without a lower validation loss
monitor: {monitor}  # what best.pt follows

epochs: 50
batch_size: 32
save_last: true  # so that an interrupted run can go on: --resume auto
"""
