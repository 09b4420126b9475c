"""Whole images through Lightning's loop: what comes out, whatever is cut, dealt or resumed."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import PIPE
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lis2_lightning import ConfigError, TileDataset, Trainer, open_raster
from lis2_lightning.data import Normalize
from lis2_lightning.inference.scratch import RowsOnDisk
from lis2_lightning.tiling import Areas
from lis2_lightning.tiling.rows import RowStitcher
from lis2_lightning.trainer import DEFAULT_LOSS

fits = pytest.importorskip("astropy.io.fits")
Values = NDArray[np.float32]


class Wide(nn.Sequential):
    """A small network with a context of 7 px, which a tile's border cuts off."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels, 4, 5, padding=2), nn.Tanh(), nn.Conv2d(4, 1, 3, padding=1)
        )
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(3)
            for weight in self.parameters():
                weight.copy_(torch.randn(weight.shape) / 3)

    def forward(self, patch: Tensor) -> Tensor:
        probabilities: Tensor = super().forward(patch).sigmoid()
        return probabilities


def image_of(height: int, width: int, *, channels: int = 1, seed: int = 1) -> Values:
    values = np.random.default_rng(seed).random((channels, height, width), dtype=np.float32)
    return values[0] if channels == 1 else values


def trainer_of(
    folder: Path,
    network: nn.Module,
    *,
    size: int,
    stride: int,
    batch_size: int = 8,
    data: Mapping[str, Any] | None = None,
    loss: nn.Module = DEFAULT_LOSS,
    **keys: Any,
) -> Trainer:
    """A trainer that has been trained on some other image, or on ``data``."""
    other = image_of(size, size)
    own = data or {"image": other, "target": other > 0.5}
    return Trainer(
        folder,
        model=network,
        train_dataset=TileDataset(**own, size=size, stride=stride, normalization="none"),
        loss=loss,
        batch_size=batch_size,
        num_workers=0,
        lightning={"enable_progress_bar": False, "accelerator": "cpu", **keys},
    )


def slow_map(network: nn.Module, image: Values, *, size: int, stride: int) -> NDArray[np.float64]:
    """The map of an image, ``(H, W)``: tile by tile, its sums divided once."""
    height, width = image.shape
    padded = np.zeros((max(height, size), max(width, size)), np.float32)
    padded[:height, :width] = image
    hann = np.maximum(np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2, 1e-3)
    sums, weights = np.zeros(padded.shape), np.zeros(padded.shape)
    for top in {*range(0, padded.shape[0] - size, stride), padded.shape[0] - size}:
        for left in {*range(0, padded.shape[1] - size, stride), padded.shape[1] - size}:
            here = slice(top, top + size), slice(left, left + size)
            with torch.no_grad():
                tile = network(torch.from_numpy(padded[here][None, None]))[0, 0].numpy()
            sums[here] += np.outer(hann, hann) * tile
            weights[here] += np.outer(hann, hann)
    return (sums / weights)[:height, :width]


@pytest.mark.parametrize("seed", range(20))
def test_an_identity_network_gives_the_image_back(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 40))
    stride, batch_size = int(rng.integers(max(1, size // 4), size + 1)), int(rng.integers(1, 40))
    height, width = (int(side) for side in rng.integers(1, 90, 2))  # smaller than a tile, too
    image = image_of(height, width, seed=seed)
    trainer = trainer_of(tmp_path, nn.Identity(), size=size, stride=stride, batch_size=batch_size)
    (in_memory,) = trainer.predict(None, image=image)
    (in_file,) = trainer.predict(None, image=image, output=tmp_path / "map.npy")
    assert in_memory.shape == in_file.shape == (1, height, width)
    np.testing.assert_allclose(np.asarray(in_memory)[0], image, atol=1e-6)
    np.testing.assert_array_equal(np.load(tmp_path / "map.npy"), in_memory[0])
    assert [path.name for path in tmp_path.iterdir()] == ["map.npy"]


@pytest.mark.parametrize(
    ("height", "width", "size", "stride"), [(50, 33, 16, 8), (41, 60, 20, 7), (9, 30, 16, 16)]
)
def test_a_map_is_that_of_the_slow_way(
    height: int, width: int, size: int, stride: int, tmp_path: Path
) -> None:
    image, network = image_of(height, width), Wide()
    trainer = trainer_of(tmp_path, network, size=size, stride=stride)
    (probability,) = trainer.predict(None, image=image)
    expected = slow_map(network, image, size=size, stride=stride)
    np.testing.assert_allclose(probability[0], expected, atol=1e-6)


def test_another_stride_is_used_where_it_is_asked_for(tmp_path: Path) -> None:
    image, network = image_of(40, 50), Wide()
    trainer = trainer_of(tmp_path, network, size=16, stride=16)
    (probability,) = trainer.predict(None, image=image, stride=5)
    expected = slow_map(network, image, size=16, stride=5)
    np.testing.assert_allclose(probability[0], expected, atol=1e-6)


@pytest.mark.parametrize(("size", "overlap"), [(16, 0.5), (20, 0.25), (24, 0.0)])
def test_the_mean_of_tiles_is_that_of_monai(size: int, overlap: float) -> None:
    inferers = pytest.importorskip("monai.inferers")
    image, network = torch.from_numpy(image_of(50, 77)), Wide()
    with torch.no_grad():
        expected = inferers.sliding_window_inference(
            image[None, None], size, 4, network, overlap=overlap, mode="constant"
        )
        corners = (
            Areas.cut((50, 77), size=None).lattice(size, round(size * (1 - overlap))).corners()
        )
        tiles = torch.stack([image[None, t : t + size, x : x + size] for t, x in corners.tolist()])
        stitcher = RowStitcher(77, channels=1, blend="mean")
        bands = stitcher.add(corners, network(tiles)) + stitcher.finish(50)
    stitched = np.concatenate([band for _, band in bands], axis=1)
    np.testing.assert_allclose(stitched, expected[0].numpy(), atol=1e-6)


def test_the_size_of_a_batch_is_not_seen_in_the_map(tmp_path: Path) -> None:
    image = image_of(60, 47)
    maps = [
        np.asarray(
            trainer_of(tmp_path, Wide(), size=16, stride=6, batch_size=num).predict(
                None, image=image
            )[0]
        )
        for num in (1, 7, 64, 1000)
    ]
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], atol=1e-6)


def test_tiles_where_maps_have_nothing_stay_gaps(tmp_path: Path) -> None:
    image, missing = image_of(40, 50), np.ones((40, 50), np.float32)
    image[3:9, 30:44] = np.nan
    missing[20:31, 0:7] = 0
    tiles = TileDataset(image, target=image > 0.5, missing=missing, size=16, normalization="none")
    trainer = Trainer(
        tmp_path,
        model=Wide(),
        train_dataset=tiles,
        lightning={"enable_progress_bar": False, "accelerator": "cpu"},
    )
    (probability,) = trainer.predict(None)
    np.testing.assert_array_equal(np.isnan(probability[0]), np.isnan(image) | (missing == 0))


class EndsAt(pl.Callback):
    """Asks for the end of a prediction as a batch begins."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.batches = 0

    def on_predict_batch_start(self, *args: Any) -> None:
        self.batches += 1
        if self.batches == self.number:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def always_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the journal written after each band."""
    monkeypatch.setattr("lis2_lightning.inference.scratch._SAVE_S", -1.0)


@pytest.mark.usefixtures("always_saved")
def test_a_stopped_prediction_goes_on_where_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lis2_lightning")
    image, whole, output = image_of(90, 40), tmp_path / "whole.npy", tmp_path / "map.npy"
    np.save(tmp_path / "image.npy", image)

    def trainer(*callbacks: pl.Callback) -> Trainer:
        return trainer_of(
            tmp_path, Wide(), size=16, stride=6, batch_size=5, callbacks=list(callbacks)
        )

    undisturbed = EndsAt(0)
    trainer(undisturbed).predict(None, image=tmp_path / "image.npy", output=whole)
    stopped = EndsAt(9)
    with pytest.raises(SystemExit):
        trainer(stopped).predict(None, image=tmp_path / "image.npy", output=output)
    assert not output.exists()
    parts = {"map.npy.part", "map.npy.part.0.json"}
    assert parts < {path.name for path in tmp_path.iterdir()}
    goes_on = EndsAt(0)
    trainer(goes_on).predict(None, image=tmp_path / "image.npy", output=output)
    assert output.read_bytes() == whole.read_bytes()
    assert goes_on.batches < undisturbed.batches - 4
    assert "of the rows are there already" in caplog.text
    assert not parts & {path.name for path in tmp_path.iterdir()}


@pytest.mark.usefixtures("always_saved")
@pytest.mark.parametrize("change", ["weights", "image", "stride", "batch_size", "precision"])
def test_rows_of_another_prediction_are_not_gone_on_with(change: str, tmp_path: Path) -> None:
    image, output = image_of(90, 40), tmp_path / "map.npy"
    keys: dict[str, Any] = {"size": 16, "stride": 6, "batch_size": 5}
    with pytest.raises(SystemExit):
        trainer_of(tmp_path, Wide(), callbacks=[EndsAt(9)], **keys).predict(
            None, image=image, output=output
        )
    network = Wide()
    if change == "weights":
        torch.nn.init.zeros_(next(network.parameters()))
    elif change == "image":
        image = image_of(90, 40, seed=2)
    elif change == "precision":
        keys["precision"] = "bf16-mixed"
    else:
        keys[change] += 1
    trainer = trainer_of(tmp_path, network, **keys)
    trainer.predict(None, image=image, output=output)
    (expected,) = trainer.predict(None, image=image)
    np.testing.assert_array_equal(np.load(output), expected[0])


@pytest.mark.usefixtures("always_saved")
@pytest.mark.parametrize("keys", [{}, {"mean": 0.00118}, {"loss": nn.BCEWithLogitsLoss()}])
def test_rows_of_other_data_are_not_gone_on_with(keys: dict[str, Any], tmp_path: Path) -> None:
    image, output, missing = image_of(90, 40), tmp_path / "map.npy", tmp_path / "missing.npy"
    np.save(missing, np.ones((90, 40), np.uint8))

    def trainer(mean: float = 0.00123, **keys: Any) -> Trainer:
        data: dict[str, Any] = {"image": image, "target": image > 0.5, "missing": missing}
        data["data_augmentations"] = [Normalize(mean=mean, std=1.0)]
        return trainer_of(tmp_path, Wide(), size=16, stride=6, batch_size=5, data=data, **keys)

    with pytest.raises(SystemExit):
        trainer(callbacks=[EndsAt(9)]).predict(None, output=output)
    if not keys:
        np.save(missing, np.eye(90, 40) == 0)
    trainer(**keys).predict(None, output=output)
    expected = np.load(output)
    trainer(**keys).predict(None, output=output, overwrite=True)
    np.testing.assert_array_equal(np.load(output), expected)


@pytest.mark.usefixtures("always_saved")
def test_what_a_stopped_prediction_may_not_replace_it_does_not(tmp_path: Path) -> None:
    # it is stopped, and then another file gets the name
    image, output = image_of(90, 40), tmp_path / "map.npy"
    keys: dict[str, Any] = {"size": 16, "stride": 6, "batch_size": 5}
    with pytest.raises(SystemExit):
        trainer_of(tmp_path, Wide(), callbacks=[EndsAt(9)], **keys).predict(
            None, image=image, output=output
        )
    output.write_bytes(b"precious")
    with pytest.raises(Exception, match="exists already"):
        trainer_of(tmp_path, Wide(), **keys).predict(None, image=image.T, output=output)
    assert output.read_bytes() == b"precious"


def test_a_mask_is_cut_at_the_threshold(tmp_path: Path) -> None:
    image = image_of(40, 50)
    image[0, :7] = np.nan
    trainer = trainer_of(tmp_path, nn.Identity(), size=16, stride=16)
    output, mask = tmp_path / "map.fits", tmp_path / "mask.npy"
    trainer.predict(None, image=image, output=output, mask=mask, threshold=0.3, dtype="uint8")
    gaps = np.isnan(image)
    expected = np.where(gaps, 255, image >= np.float32(0.3))
    np.testing.assert_array_equal(np.load(mask), expected)
    stored = fits.getdata(output, do_not_scale_image_data=True)
    assert (stored.dtype, np.load(mask).dtype) == (np.uint8, np.uint8)
    assert (stored[gaps] == 255).all()
    np.testing.assert_allclose(stored[~gaps] / 254, image[~gaps], atol=0.5 / 254 + 1e-6)


def test_bytes_go_into_a_file_that_has_a_place_for_their_scale(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, nn.Identity(), size=16, stride=16)
    with pytest.raises(ConfigError, match=r"dtype uint8 needs .*map\.npy is not: choose \.fits"):
        trainer.predict(None, image=image_of(40, 50), output=tmp_path / "map.npy", dtype="uint8")


@pytest.mark.usefixtures("always_saved")
def test_rows_on_disk_begin_anew_without_a_journal_of_their_own(tmp_path: Path) -> None:

    band = np.arange(12, dtype=np.float32).reshape(2, 2, 3)

    def begin(digest: str, **bands: int) -> int:
        rows = RowsOnDisk(tmp_path / "map.npy", (2, 10, 3))
        first = rows.begin(digest, (0, 10), 0)
        for top in bands.values():
            rows.write(top, band)
            np.testing.assert_array_equal(rows.read(top, top + 2), band)
        rows.close()
        return first

    assert begin("a", band=4) == 0
    assert begin("a") == 6
    (tmp_path / "map.npy.part.1.json").write_text(json.dumps({"digest": "a", "finished": 9}))
    assert begin("b") == 0
    # of the former digest nothing is left, for its rows are replaced from here on
    names = [path.name for path in sorted(tmp_path.iterdir())]
    assert names == ["map.npy.part", "map.npy.part.0.json"]
    assert begin("a") == 0
    assert RowsOnDisk(tmp_path / "map.npy", (1, 10, 3)).is_begun() is False


def test_two_predictions_do_not_write_one_file(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from lis2_lightning.inference.scratch import RowsOnDisk;"
        f"rows = RowsOnDisk(pathlib.Path({str(tmp_path / 'map.npy')!r}), (1, 9, 3));"
        "rows.begin('a', (0, 9), 0);"
        "print(flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"\n"
        rows = RowsOnDisk(tmp_path / "map.npy", (1, 9, 3))
        with pytest.raises(ConfigError, match=r"another prediction is writing .*map\.npy\.part"):
            rows.begin("b", (0, 9), 0)
        rows.close()
    finally:
        other.communicate(b"", timeout=60)
    assert rows.begin("b", (0, 9), 0) == 0
    rows.close()


def test_prediction_says_how_many_pixels_are_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[int, int, str]] = []
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)

    def note(bar: Any, **_: Any) -> None:
        shown.append((bar.n, bar.total, bar.unit))

    bars = "lis2_lightning.callbacks.progress_bars"
    monkeypatch.setattr(f"{bars}._REFRESH_S", 0)
    monkeypatch.setattr(f"{bars}.TerminalBar.refresh", note)
    trainer = trainer_of(
        tmp_path, Wide(), size=16, stride=16, batch_size=2, enable_progress_bar=True
    )
    trainer.predict(None, image=image_of(32, 64))
    assert shown[1:] == [
        (512, 2048, "px"),
        (1024, 2048, "px"),
        (1536, 2048, "px"),
        (2048, 2048, "px"),
    ]


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("suffix", [".fits", ".tif", ".zarr", ".h5"])
def test_a_file_of_each_format_reads_as_the_map(suffix: str, dtype: Any, tmp_path: Path) -> None:
    image = image_of(40, 50)
    image[3:9, 30:44] = np.nan
    trainer = trainer_of(tmp_path, nn.Identity(), size=16, stride=7)
    output, mask = tmp_path / f"map{suffix}", tmp_path / f"mask{suffix}"
    (lazy,) = trainer.predict(
        None, image=image, output=output, mask=mask, threshold=0.4, dtype=dtype
    )
    atol = 1e-6 if dtype == "float32" else 0.5 / 254 + 1e-6
    np.testing.assert_allclose(lazy[0], image, atol=atol)
    expected = np.where(np.isnan(image), np.nan, image >= np.float32(0.4))
    np.testing.assert_array_equal(np.asarray(open_raster(mask))[0], expected)
    assert {path.name for path in tmp_path.iterdir()} == {output.name, mask.name}
    with pytest.raises(ConfigError, match="exists already"):
        trainer.predict(None, image=image, output=output)
    trainer.predict(None, image=image, output=output, overwrite=True)
