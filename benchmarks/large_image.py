"""Build a data set on an image of 10⁶ to 10⁹ pixels, read tiles at random, and map it.

    python benchmarks/large_image.py --pixels 1e6 1e7 1e8 1e9

Every figure comes from a process of its own, with its time and its peak of anonymous memory: what
files in the page cache take is not counted. Images are 32,768 px wide from 10⁷ pixels on; their
files have holes above that, so that the disk holds no more than the map and its rows. Beside ours:
MONAI's ``sliding_window_inference`` where image and map fit into memory, and one ``h5py`` read for
each tile of a compressed file of tiles, as LIS² stores them. ``loop`` is what a prediction takes
besides the forward passes of the network in it, tiles side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import rows
import torch
from torch import Tensor

from lis2_lightning import TileDataset, Trainer, UNet
from lis2_lightning.data import ImageTiles
from lis2_lightning.tiling import Tile

WIDTH = 32_768
SIZE = 256  # of the tiles that are mapped
SMALL = 32  # of those that are read at random
BATCH_SIZE = 16
FULL = 10**7  # pixels of the largest file without holes
NUM_READS = 200  # batches of 256 tiles


class Timed(UNet):
    """A network that counts the seconds of its forward passes."""

    def __init__(self) -> None:
        super().__init__(features=8, num_blocks=2)
        self.seconds = 0.0

    def forward(self, patch: Tensor) -> Tensor:  # type: ignore[override]  # it has no encoding
        """Call the network."""
        begun = time.perf_counter()
        probabilities = super().forward(patch)
        self.seconds += time.perf_counter() - begun
        return probabilities


def shape_of(num_pixels: int) -> tuple[int, int]:
    """Height and width of an image: whole tiles, about so many pixels."""
    width = 1024 if num_pixels < 10**7 else WIDTH
    return max(round(num_pixels / width / SIZE), 1) * SIZE, width


def make(path: Path, num_pixels: int, dtype: str) -> Path:
    """A file of random numbers, or one with holes, of which only some rows are written."""
    height, width = shape_of(num_pixels)
    values = np.lib.format.open_memmap(path, "w+", dtype, (height, width))
    rng = np.random.default_rng(0)
    for top in range(0, height, 1 if num_pixels <= FULL else 1000):
        values[top] = rng.random(width) * 2 if dtype != "u1" else rng.random(width) > 0.5
    return path


def build(folder: Path, num_pixels: int) -> dict[str, float]:
    """A data set with truth: all of it is scanned."""
    image = make(folder / "image.npy", num_pixels, "f4")
    target = make(folder / "target.npy", num_pixels, "u1")
    with measured() as figures:
        TileDataset(image, target=target, size=SIZE, stride=SIZE)
    return figures


def read(folder: Path, num_pixels: int) -> dict[str, float]:
    """Random small tiles in batches: their pixels alone, and normalised as a network gets them."""
    tiles = ImageTiles(make(folder / "image.npy", num_pixels, "f4"), size=SMALL)
    chosen = np.random.default_rng(0).integers(0, len(tiles), (NUM_READS, 256))
    corners = tiles.corners
    with measured() as figures:
        for indices in chosen:
            tops, lefts = np.ascontiguousarray(corners[indices].T)
            tiles.image.read_many(tops, lefts, SMALL)
    begun = time.perf_counter()
    for indices in chosen:
        tiles.fetch_unlabelled(indices)
    normalised = chosen.size / (time.perf_counter() - begun)
    per_second = chosen.size / figures["seconds"]
    return {**figures, "tiles_per_s": per_second, "normalised_per_s": normalised}


def read_h5py(folder: Path, num_pixels: int) -> dict[str, float]:
    """As many tiles that were cut beforehand, one read each."""
    tiles = ImageTiles(make(folder / "image.npy", num_pixels, "f4"), size=SMALL)
    rng, num = np.random.default_rng(0), 20_000
    with h5py.File(folder / "patches.h5", "w") as file:
        options: dict[str, Any] = {"chunks": (1, SMALL, SMALL), "compression": "gzip"}
        patches = file.create_dataset("patches", (num, SMALL, SMALL), "f4", **options)
        for index, at in enumerate(rng.integers(0, len(tiles), num)):
            top, left = tiles.fetch_unlabelled(np.array([at]))["corner"][0].tolist()
            patches[index] = tiles.image.read(Tile(top, left, SMALL, SMALL))[0]
    with h5py.File(folder / "patches.h5") as file:
        patches = file["patches"]
        with measured() as figures:
            for index in rng.integers(0, num, num).tolist():
                patches[index]
    return {**figures, "tiles_per_s": num / figures["seconds"]}


def predict(folder: Path, num_pixels: int) -> dict[str, float]:
    """A map in a file, tiles side by side."""
    image = make(folder / "image.npy", num_pixels, "f4")
    network = Timed()
    small = np.ones((SIZE, SIZE), np.float32)
    trainer = Trainer(
        folder,
        model=network,
        train_dataset=TileDataset(
            small, target=small, size=SIZE, stride=SIZE, normalization="direct"
        ),
        batch_size=BATCH_SIZE,
        num_workers=0,
        lightning={"enable_progress_bar": False, "accelerator": "cpu"},
    )
    trainer.predict(None, image=small * 2)  # what is done once
    network.seconds = 0.0
    with measured() as figures:
        trainer.predict(None, image=image, output=folder / "map.npy")
    over = figures["seconds"] / network.seconds - 1
    return {**figures, "forward_s": network.seconds, "loop": over}


def predict_monai(folder: Path, num_pixels: int) -> dict[str, float]:
    """The same by MONAI, in memory."""
    from monai.inferers import sliding_window_inference

    image = np.load(make(folder / "image.npy", num_pixels, "f4"), mmap_mode="r")
    network = Timed().eval()
    with measured() as figures, torch.inference_mode():
        patch = torch.from_numpy(np.array(image))[None, None]
        probabilities = sliding_window_inference(patch, SIZE, BATCH_SIZE, network, overlap=0.0)
        np.save(folder / "map.npy", probabilities[0, 0].numpy())
    return {**figures, "forward_s": network.seconds}


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Seconds, and the peak of this process's anonymous memory in MB, looked at each 5 ms."""
    figures: dict[str, float] = {}
    peak, over = [anonymous_mb()], threading.Event()

    def look() -> None:
        while not over.wait(0.005):
            peak[0] = max(peak[0], anonymous_mb())

    watch = threading.Thread(target=look)
    watch.start()
    begun = time.perf_counter()
    try:
        yield figures
    finally:
        figures["seconds"] = time.perf_counter() - begun
        over.set()
        watch.join()
    figures["peak_mb"] = max(peak[0], anonymous_mb())


def anonymous_mb() -> float:
    """The anonymous memory of this process now, MB."""
    with open("/proc/self/status") as status:  # noqa: PTH123 - read very often
        kilobytes = next(line for line in status if line.startswith("RssAnon:")).split()[1]
    return int(kilobytes) / 1000


MEASURES: dict[str, Callable[[Path, int], dict[str, float]]] = {
    "build": build,
    "read": read,
    "read_h5py": read_h5py,
    "predict": predict,
    "predict_monai": predict_monai,
}
# ours, the other side, the figure of both, its unit, what it is, what is wanted, larger is better
ROWS = [
    ("read", "read_h5py", "tiles_per_s", "tiles/s", "reading tiles at random", 10, True),
    ("predict", "predict_monai", "seconds", "s", "mapping an image", 1.1, False),
]
NOT_ABOVE = {"read_h5py": 10**7, "predict_monai": 10**8}


def in_process(name: str, num_pixels: int, folder: str) -> dict[str, float]:
    """A measure in a process of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        words = [sys.executable, __file__, "--only", name, place, str(num_pixels)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> int:
    """Print a row for each measure and number of pixels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pixels", type=float, nargs="+", default=[1e6, 1e7])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where the files go")
    parser.add_argument("--measures", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        name, place, num = options.only
        print(json.dumps(MEASURES[name](Path(place), int(num))))
        return 0
    print(f"{'measure':14} {'pixels':>8} {'seconds':>9} {'ns/px':>8} {'peak MB':>8}")
    for num in map(int, options.pixels):
        taken: dict[str, list[dict[str, float]]] = {name: [] for name in options.measures}
        for _ in range(options.rounds):
            for name in options.measures:
                if num <= NOT_ABOVE.get(name, num):
                    taken[name].append(in_process(name, num, options.folder))
                    show(name, num, taken[name][-1])
        compare(num, taken)
    return 0


def show(name: str, num_pixels: int, figures: Mapping[str, float]) -> None:
    """Print a measure's figures."""
    height, width = shape_of(num_pixels)
    seconds, shown = figures["seconds"], {"seconds", "peak_mb"}
    row = f"{name:14} {num_pixels:8.0e} {seconds:9.2f} {seconds / (height * width) * 1e9:8.2f}"
    others = "  ".join(f"{key} {figures[key]:,.4g}" for key in figures if key not in shown)
    print(f"{row} {figures['peak_mb']:8.0f}  {others}", flush=True)


def compare(num_pixels: int, taken: Mapping[str, list[dict[str, float]]]) -> None:
    """Leave the rows of those that were measured."""
    for ours, peer, key, unit, what, wanted, is_rate in ROWS:
        if taken.get(ours) and taken.get(peer):
            values = [[figures[key] for figures in taken[side]] for side in (ours, peer)]
            row = rows.Row.of(
                f"{what}, {num_pixels:.0e} px",
                *(values[0], peer, values[1]),
                unit=unit,
                wanted=wanted,
                larger_is_better=is_rate,
            )
            rows.add(row)


if __name__ == "__main__":
    sys.exit(main())
