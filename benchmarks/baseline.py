"""What a run's network reaches on its test set, beside the best single threshold on the image.

The threshold is chosen on the test pixels themselves, so it is the strongest there can be.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from lis2_lightning import TileDataset, Trainer


def best_threshold(image: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """The threshold on the image with the highest Dice, and that Dice."""
    order = np.argsort(-image, kind="stable")
    hits = np.cumsum(target[order])
    dice = 2 * hits / (np.arange(1, len(hits) + 1) + target.sum())
    best = int(np.argmax(dice))
    return float(image[order][best]), float(dice[best])


def labelled_pixels(tiles: TileDataset) -> tuple[np.ndarray, np.ndarray]:
    """Image and truth of each labelled pixel that a data set's tiles cover, once."""
    image, target, labelled = (part[0] for part in tiles.read_maps())
    covered = np.zeros(image.shape, bool)
    for top, left in tiles.corners:
        covered[top : top + tiles.size, left : left + tiles.size] = True
    chosen = covered & labelled.astype(bool) & np.isfinite(image)
    return image[chosen], target[chosen]


def main() -> None:
    """Print both Dice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path)
    folder = parser.parse_args().run_dir
    tiles = Trainer.from_config(folder / "config.yaml").data.test
    assert isinstance(tiles, TileDataset)
    image, target = labelled_pixels(tiles)
    threshold, dice = best_threshold(image, target)
    record = json.loads((folder / "result.json").read_text())
    print(f"test Dice of the network           {record['info']['metrics_test']['dice']:.3f}")
    print(f"test Dice of the best threshold    {dice:.3f}  (image > {threshold:.4g})")


if __name__ == "__main__":
    main()
