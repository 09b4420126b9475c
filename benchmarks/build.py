"""Building a data set of tiles of a huge image, beside the obvious way where that one fits.

    python benchmarks/build.py --pixels 1000000000

The image and its labels are sparse files, a few per cent of which hold numbers. The obvious way
cuts every tile of the maps and looks into it; it stands beside ours where it takes seconds. Each
row has the time and the peak of anonymous memory, above that of the imports.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rows
from numpy.typing import NDArray

from lis2_lightning.data import TileDataset, census_cache, check_no_shared_pixels

WIDTH = 32_768
SIZE = 64
FOLDS = ([0, 1, 2], [3], [4])


class Peak:
    """The most anonymous memory of this process while the block runs, bytes, above the start."""

    def __enter__(self) -> Peak:
        self._start = self.most = anonymous()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self.most -= self._start

    def _watch(self) -> None:
        while not self._is_over.wait(0.005):
            self.most = max(self.most, anonymous())


def anonymous() -> int:
    """Anonymous memory of this process, bytes: pages of mapped files do not count."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def measure(name: str, work: Callable[[], Any]) -> tuple[Any, float]:
    """Run something once, and print its row."""
    with Peak() as peak:
        start = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - start
    print(f"{name:58}{seconds:10.3f}{peak.most / 1e6:10.0f}", flush=True)
    return result, seconds


def obvious(image: NDArray[Any], target: NDArray[Any], size: int, stride: int) -> int:
    """How many tiles hold a labelled pixel: cut each of them, and look."""
    height, width = image.shape
    num = 0
    for top in range(0, height - size + 1, stride):
        for left in range(0, width - size + 1, stride):
            here = np.s_[top : top + size, left : left + size]
            num += bool((np.isfinite(image[here]) & np.isfinite(target[here])).any())
    return num


def sparse(folder: Path, num_pixels: int) -> dict[str, Path]:
    """An image and its labels on disk, mostly holes."""
    height = max(SIZE, num_pixels // WIDTH)
    paths = {name: folder / f"{name}.npy" for name in ("image", "target", "background")}
    for name, path in paths.items():
        kind = np.float32 if name == "image" else np.uint8
        values = np.lib.format.open_memmap(path, "w+", kind, (height, WIDTH))
        for top in range(0, height, 1000):
            first = 0 if name == "target" else 40
            values[top + first : top + first + 40, :WIDTH:2] = 1
    return paths


def both_sides() -> None:
    """The 219,961 tiles of 32 px at stride 1 of 500 x 500 px."""
    rng = np.random.default_rng(0)
    image = rng.random((500, 500), dtype=np.float32)
    target = (image > 0.9).astype(np.float32)
    name = "219,961 tiles of 500 x 500 px"
    fast, slow = [], []
    for _ in range(3):
        ours, seconds = measure(name, lambda: TileDataset(image, target=target, size=32, stride=1))
        fast.append(seconds)
        num, seconds = measure(f"{name}, cut one by one", lambda: obvious(image, target, 32, 1))
        slow.append(seconds)
        if len(ours) != num:
            raise SystemExit(f"the two ways disagree: {len(ours)} tiles and {num}")
    row = rows.Row.of(
        "finding the tiles with labels", fast, "cutting each", slow, unit="s", wanted=0.1
    )
    print(f"  ours over the obvious way: {row.spread}")
    rows.add(row)


def huge(num_pixels: int, stride: int) -> None:
    """A first start, a second one, and the check of three splits."""
    with tempfile.TemporaryDirectory() as name:
        paths: dict[str, Any] = sparse(Path(name), num_pixels)
        options: dict[str, Any] = {"size": SIZE, "stride": stride, "num_folds": 5}

        def build() -> list[TileDataset]:
            return [TileDataset(**paths, **options, folds=folds) for folds in FOLDS]

        title = f"{num_pixels:.0e} px at stride {stride}"
        with census_cache.censuses_in(Path(name) / ".census"):
            first = measure(
                f"{title}, one data set", lambda: TileDataset(**paths, **options, folds=FOLDS[0])
            )[1]
            splits, second = measure(f"{title}, three splits, counted before", build)
        print(f"  the first start takes {first / second:.0f} times as long as a second one")
        parts = dict(zip(("train", "val", "test"), splits, strict=True))
        measure(f"{title}, no pixel shared", lambda: check_no_shared_pixels(parts))


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pixels", type=int, default=10**8, help="pixels of the huge image")
    parser.add_argument("--strides", type=int, nargs="+", default=[32, 8], help="px")
    options = parser.parse_args(arguments)
    print(f"{'':58}{'seconds':>10}{'peak MB':>10}")
    both_sides()
    for stride in options.strides:
        huge(options.pixels, stride)


if __name__ == "__main__":
    main()
