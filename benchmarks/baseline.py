"""What a run's network reaches on its test set, beside the best single threshold on the image.

The threshold is chosen on the test pixels themselves, so it is the strongest there can be. Both are
scored alike: on the same tiles, where a pixel counts once for each tile that covers it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from lis2_lightning import TileDataset, Trainer


def best_threshold(
    image: np.ndarray, target: np.ndarray, counts: np.ndarray
) -> tuple[float, float]:
    """The threshold on the image with the highest Dice, and that Dice.

    Image, truth and how often each pixel counts, ``(N,)``; a pixel is positive from the threshold
    on.
    """
    order = np.argsort(-image, kind="stable")
    counted = counts[order]
    hits = np.cumsum(target[order] * counted)
    dice = 2 * hits / (np.cumsum(counted) + hits[-1])
    # pixels of one value lie on the same side of any threshold
    dice[:-1][image[order][:-1] == image[order][1:]] = 0
    best = int(np.argmax(dice))
    return float(image[order][best]), float(dice[best])


def labelled_pixels(tiles: TileDataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, truth and number of tiles of each labelled pixel of a data set, ``(N,)`` each."""
    image, target, labelled = (part[0] for part in tiles.read_maps())
    counts = np.zeros(image.shape, np.int64)
    for tile in tiles.tiles:
        counts[tile.rows, tile.columns] += 1
    chosen = labelled & (counts > 0)
    return image[chosen], target[chosen], counts[chosen]


def main() -> None:
    """Print both Dice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path)
    folder = parser.parse_args().run_dir
    tiles = Trainer.from_config(folder / "config.yaml").data.test
    assert isinstance(tiles, TileDataset)
    threshold, dice = best_threshold(*labelled_pixels(tiles))
    record = json.loads((folder / "result.json").read_text())
    print(f"test Dice of the network           {record['info']['metrics_test']['dice']:.3f}")
    print(f"test Dice of the best threshold    {dice:.3f}  (image from {threshold:.4g} on)")


if __name__ == "__main__":
    main()
