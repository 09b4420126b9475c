"""Flips, rotation and noise of tiles, beside the same by torch's own functions.

    python benchmarks/augment.py --size 256

Both sides change the same batches, in turns, with one thread. The other side draws its numbers from
a generator, and turns by ``affine_grid`` and ``grid_sample``; a run that was interrupted would not
see the same again. Prints the tiles a second of each part, and of ours the ratio.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import rows
import torch
from torch import Tensor
from torch.nn import functional

from lis2_lightning.data.augment import (
    Augmentation,
    NoiseDataAugmentation,
    RandomHorizontalFlip,
    RandomRotation,
    RandomVerticalFlip,
    augment,
)
from lis2_lightning.data.sampling import random_keys

Tensors = dict[str, Tensor]
NOISE = 0.05


def tiles(num: int, size: int) -> Tensors:
    """A batch of `num` tiles."""
    rng = torch.Generator().manual_seed(0)
    image, truth, known = (torch.rand((num, 1, size, size), generator=rng) for _ in range(3))
    return {"patch": image, "target": (truth > 0.9).float(), "labelled": known > 0.3}


def flips(batch: Tensors) -> Tensors:
    """Mirror some of the tiles along each axis."""
    for axis in (-1, -2):
        chosen = torch.rand(len(batch["patch"])) < 0.5
        for values in batch.values():
            values[chosen] = values[chosen].flip(axis)
    return batch


def rotation(batch: Tensors) -> Tensors:
    """Turn each tile by any angle."""
    shape = batch["patch"].shape
    angles = (torch.rand(shape[0]) * 2 - 1) * math.pi
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    turns = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3)
    grid = functional.affine_grid(turns, list(shape), align_corners=False)
    return {
        key: functional.grid_sample(
            values.float(),
            grid,
            mode="bilinear" if key == "patch" else "nearest",
            align_corners=False,
        ).to(values.dtype)
        for key, values in batch.items()
    }


def noise(batch: Tensors) -> Tensors:
    """Add normal noise to the image."""
    image = batch["patch"]
    return {**batch, "patch": (image + torch.randn_like(image) * NOISE).clamp_(0, 1)}


OURS: dict[str, Sequence[Augmentation]] = {
    "flips": [RandomHorizontalFlip(), RandomVerticalFlip()],
    "rotation": [RandomRotation(180)],
    "noise": [NoiseDataAugmentation(noise_var=NOISE)],
}
THEIRS: dict[str, Callable[[Tensors], Tensors]] = {
    "flips": flips,
    "rotation": rotation,
    "noise": noise,
}


def seconds(work: Callable[[Tensors], Tensors], batch: Tensors) -> float:
    """The time that a batch takes."""
    copied = {key: values.clone() for key, values in batch.items()}
    begun = time.perf_counter()
    work(copied)
    return time.perf_counter() - begun


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--size", type=int, default=256, help="side of a tile, px")
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    batch = tiles(options.batch_size, options.size)
    keys = random_keys(0, 0, np.arange(options.batch_size))
    every = [one for part in OURS.values() for one in part]
    for name in (*OURS, "all three"):
        mine = OURS.get(name, every)
        parts = [THEIRS[name]] if name in THEIRS else list(THEIRS.values())

        def ours(changed: Tensors, mine: Sequence[Augmentation] = mine) -> Tensors:
            return augment(changed, keys, mine)

        def theirs(
            changed: Tensors, parts: Sequence[Callable[[Tensors], Tensors]] = parts
        ) -> Tensors:
            for part in parts:
                changed = part(changed)
            return changed

        taken: tuple[list[float], list[float]] = ([], [])
        for counted in range(-1, options.rounds):
            for work, times in zip((ours, theirs), taken, strict=True):
                needed = seconds(work, batch)
                if counted >= 0:  # the first round warms up
                    times.append(1e3 * needed / options.batch_size)
        what = f"augmenting a tile of {options.size} px, {name}"
        row = rows.Row.of(what, taken[0], "torch's functions", taken[1], unit="ms", wanted=1)
        medians = [1e3 / statistics.median(times) for times in taken]
        print(f"{name:<10} {medians[0]:7.0f} tiles/s, torch {medians[1]:7.0f}; time {row.spread}")
        rows.add(row)


if __name__ == "__main__":
    main()
