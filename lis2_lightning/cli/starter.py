"""A starting configuration for a user's own images, after looking at them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np

from lis2_lightning.base.files import written
from lis2_lightning.data import TileDataset, has_data, open_raster
from lis2_lightning.data.legend import Legend
from lis2_lightning.data.open_raster import Raster
from lis2_lightning.data.truth import Truth
from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.tiling import Tile

_MOST_PIXELS: Final = 50_000_000  # of one image that are looked at, in bands spread over it
_BAND: Final = 2_000_000
_SAMPLE: Final = 20_000  # values of a band from which percentiles are taken
_SIZES: Final = (64, 32, 16, 8)
# Below this share of positive pixels, binary cross-entropy alone finds few of them: on synthetic
# fields with spots, its mean Dice at 0.5 after 25 epochs and that of BceDiceLoss were 0.00 and 0.46
# with 1 % of positive pixels, 0.46 and 0.57 with 3 %.
_RARE: Final = 0.05
_FOLDS: Final[tuple[dict[str, list[int]], ...]] = (
    {"train": [0, 1, 2], "val": [3], "test": [4]},
    {"train": [0], "val": [1], "test": [2]},
    {"train": [0]},
)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a user's images are like; shares are in [0, 1], values in the image's units."""

    shape: tuple[int, int, int]  # channels, height and width of the image, px
    channels: int  # of the target
    looked_at: float  # share of the pixels that were looked at
    finite: float  # share of those that are numbers in all channels
    negative: float  # share of these numbers that are below 0
    percentiles: tuple[float, float, float]  # the 1st, 50th and 99th
    least: float
    most: float
    mean: float
    spread: float  # the standard deviation
    labelled: float  # share of the pixels whose truth is known
    positive: float  # share of the labelled ones that are 1


def start(
    path: Path, maps: Mapping[str, str], meaning: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Write a configuration for the images at the paths in ``maps``.

    What the values of the target mean, as TileDataset takes it, is found out where ``meaning`` is
    empty. The result is what was seen and chosen, as text and as data.

    Raises:
        DataError: The images cannot be read or used.
        ConfigError: The file to write exists already or cannot be written.
    """
    meaning = meaning or _meaning_of(open_raster(maps["target"]))
    look = _look_at(maps, Legend.of(**meaning))
    choice = {**_choose(look, {**maps, **meaning}), **meaning}
    if path.exists():
        raise ConfigError(f"{path} exists already: choose another name with --output")
    with written(path) as file:
        file.write(_text(path.stem, look, choice, maps).encode())
    rare = ["these are few: the loss is bce_dice_loss"] if look.positive < _RARE else []
    lost = f"labels where the image has no data, which do not count: {choice['without_data']}"
    rare += [lost] if choice["without_data"] else []
    lines = [*_lines(look), *rare, f"{path} is written: lis2 fit --config {path}"]
    return "\n".join(lines), {"written": path, "seen": asdict(look), "chosen": choice}


def _meaning_of(target: Raster) -> dict[str, list[float]]:
    """What a target of 0 and one other value means; nothing where it holds more."""
    others: set[float] = set()
    for band in _bands(target):
        values = target.read(band)
        others |= set(np.unique(values[(values != 0) & np.isfinite(values)]).tolist())
        if len(others) > 1:
            return {}
    return {"positive": [int(v) if v.is_integer() else v for v in others]} if others - {1} else {}


def _look_at(maps: Mapping[str, str], legend: Legend) -> Look:
    image = open_raster(maps["image"])
    labels = {name: path for name, path in maps.items() if name != "image"}
    truth = Truth(image, target=labels.pop("target"), legend=legend, **labels)
    _, height, width = image.shape
    num_pixels = num_present = num_finite = num_negative = labelled = positive = 0.0
    sample, extremes = [], []
    for band in _bands(image):
        values = image.read(band)
        present = has_data(values)[0]
        finite = values[:, present].ravel().astype(np.float64)
        target, known = truth.read_labels(band)
        known &= present
        area = band.height * band.width
        num_pixels += area
        num_present += int(np.count_nonzero(present))
        num_finite += finite.size
        num_negative += int((finite < 0).sum())
        labelled += float(known.mean()) * area
        positive += float(((target == 1) & known).mean()) * area
        if finite.size:
            extremes += [finite.min(), finite.max()]
            sample.append(finite[:: max(1, finite.size // _SAMPLE)])
    if not sample:
        raise DataError(f"{image.source} holds no number: is it the image?")
    if not positive and num_pixels == height * width:
        raise DataError(
            f"no labelled pixel of {truth.target.source} is 1: is it the target? It must be 1 on "
            "objects, or --positive says what is"
        )
    drawn = np.concatenate(sample)
    low, middle, high = np.percentile(drawn, (1, 50, 99))
    return Look(
        shape=image.shape,
        channels=truth.target.shape[0],
        looked_at=num_pixels / (height * width),
        finite=num_present / num_pixels,
        negative=num_negative / num_finite,
        percentiles=(float(low), float(middle), float(high)),
        least=float(min(extremes)),
        most=float(max(extremes)),
        mean=float(drawn.mean()),
        spread=float(drawn.std()) or 1.0,
        labelled=labelled / num_pixels,
        positive=positive / labelled if labelled else 0.0,
    )


def _bands(image: Raster) -> Iterator[Tile]:
    channels, height, width = image.shape
    rows = max(1, min(height, _BAND // (channels * width)))
    every = max(1, round(channels * height * width / _MOST_PIXELS))
    for top in range(0, height, rows)[::every]:
        yield Tile(top, 0, min(rows, height - top), width)


def _choose(look: Look, maps: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of TileDataset with which every fold has something to learn."""
    side = min(look.shape[1:])
    loss = "bce_dice_loss" if look.positive < _RARE else "bce"
    sizes = [size for size in _SIZES if 10 * size <= side] or [8]
    mode, problem = _normalization(look), ""
    for folds, size in product(_FOLDS, sizes):
        num_folds = sum(map(len, folds.values()))
        cut: dict[str, Any] = {"size": size, "num_folds": num_folds, "normalization": mode}
        try:
            tiles = [TileDataset(**maps, **cut, folds=numbers) for numbers in folds.values()]
        except DataError as error:
            problem = str(error)
        else:
            return {
                **cut,
                "folds": folds,
                "num_blocks": 3 if size >= 32 else 2,
                "loss": loss,
                "without_data": tiles[0].num_without_data,
            }
    raise DataError(f"no tiles can be cut from these images: {problem}")


def _normalization(look: Look) -> str:
    """``none`` where values are in [0, 1] or have both signs, ``log`` over a wide range."""
    low, _, high = look.percentiles
    if (look.least >= 0 and look.most <= 1) or look.negative > 0.01:
        return "none"
    return "log" if low > 0 and high / low > 100 else "direct"


def _text(name: str, look: Look, choice: Mapping[str, Any], maps: Mapping[str, str]) -> str:
    """The configuration as commented YAML."""
    normalize = f"{{type: Normalize, mean: {look.mean:.6g}, std: {look.spread:.6g}}}"
    if choice["normalization"] != "none" or look.negative <= 0.01:
        normalize = ""
    folds = choice["folds"]
    others = "".join(
        f"{split}_dataset: {{<<: *maps, folds: {folds[split]}, "
        f"data_augmentations: [{normalize}]}}\n"
        for split in ("val", "test")
        if split in folds
    )
    return _TEMPLATE.format(
        **choice,
        name=json.dumps(name),
        files="\n".join(
            f"  {key}: {json.dumps(value)}{note}"
            for key, value, note in (
                *((key, value, "") for key, value in maps.items()),
                *((k, choice[k], note) for k, note in _MEANINGS.items() if k in choice),
            )
        ),
        normalize=f"    - {normalize}\n" if normalize else "",
        others=others,
        stride=choice["size"] // 2,
        train=folds["train"],
        inputs=look.shape[0],
        outputs=look.channels,
        monitor="val_loss" if "val" in folds else "train_loss",
        seen="".join(f"#   {line}\n" for line in _lines(look)),
    )


def _lines(look: Look) -> list[str]:
    channels, height, width = look.shape
    low, middle, high = look.percentiles
    part = "" if look.looked_at == 1 else f" ({look.looked_at:.0%} of the pixels were looked at)"
    return [
        f"image: {height} x {width} px, {channels} channel{'s' * (channels > 1)}{part}",
        f"values: {look.least:.4g} to {look.most:.4g}; 1 %, 50 % and 99 % lie below "
        f"{low:.4g}, {middle:.4g} and {high:.4g}",
        f"missing or not finite: {1 - look.finite:.1%}; below 0: {look.negative:.1%}",
        f"labelled: {look.labelled:.1%} of the pixels, of which {look.positive:.1%} are 1",
    ]


_MEANINGS: Final = {
    "positive": "  # values of the target on objects",
    "negative": "  # its values elsewhere",
    "ignore": "  # its values where the truth is unknown",
}
_TEMPLATE: Final = """\
# Written by `lis2 init`. It trains as it is: lis2 fit --config THIS_FILE
# All keys: docs/configuration.md. The images:
{seen}
output_dir: runs
run_name: {name}
seed: 1

model:
  type: unet
  in_channels: {inputs}
  out_channels: {outputs}
  features: 16  # more learn more, and take longer
  num_blocks: {num_blocks}  # the side of a tile must be a multiple of 2 to this power

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
{normalize}    - type: RandomHorizontalFlip
    - type: RandomVerticalFlip
{others}
optimizer: {{type: Adam, lr: 1.0e-3}}
scheduler: {{type: CosineAnnealingLR, T_max: 50}}  # from lr to 0 in so many epochs
loss: {loss}  # bce_dice_loss where less than 5 % of the labelled pixels are 1, else bce
early_stopper: true  # after 10 epochs without a lower validation loss
monitor: {monitor}  # what best.pt follows

epochs: 50
batch_size: 32
save_last: true  # so that an interrupted run can be resumed: --resume auto
"""
