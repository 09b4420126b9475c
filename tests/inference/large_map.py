"""Map an image of so many pixels, 32,768 px wide; prints the peak of anonymous memory, in MB.

    python tests/inference/large_map.py FOLDER 100000000

The image's file has holes, so that the disk holds the map and its rows alone.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Final

import numpy as np
from torch import nn

from lis2_lightning import TileDataset, Trainer

WIDTH: Final = 32_768
SIZE: Final = 256


def anonymous_mb() -> float:
    """The anonymous memory of this process now: what files in the page cache take is not in it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon:")).split()[1]) / 1000


def main() -> None:
    """Map it."""
    folder, num_pixels = Path(sys.argv[1]), int(sys.argv[2])
    image = folder / "image.npy"
    height = round(num_pixels / WIDTH)
    values = np.lib.format.open_memmap(image, "w+", np.float32, (height, WIDTH))
    values[-1, :5] = (0.125, 0.25, 0.5, 0.75, np.nan)
    small = np.ones((SIZE, SIZE), np.float32)
    trainer = Trainer(
        folder / "runs",
        model=nn.Identity(),
        train_dataset=TileDataset(
            small, target=small, size=SIZE, stride=SIZE // 2, normalization="none"
        ),
        batch_size=16,
        num_workers=0,
        lightning={"enable_progress_bar": False, "accelerator": "cpu"},
    )
    peak, over = [0.0], threading.Event()

    def look() -> None:
        while not over.wait(0.005):
            peak[0] = max(peak[0], anonymous_mb())

    watch = threading.Thread(target=look)
    watch.start()
    (probability,) = trainer.predict(None, image=image, output=folder / "map.fits")
    over.set()
    watch.join()
    assert probability.shape == (1, height, WIDTH)
    np.testing.assert_allclose(probability[0, -1, :5], (0.125, 0.25, 0.5, 0.75, np.nan), rtol=1e-6)
    assert not probability[0, ::997].any()
    sys.stdout.write(f"{peak[0]}\n")


if __name__ == "__main__":
    main()
