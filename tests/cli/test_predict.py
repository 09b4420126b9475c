"""``lis2 predict``: images mapped with a snapshot alone, and with a configuration."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from lis2_lightning import Segmenter, SnapshotError, Trainer
from lis2_lightning.base.files import size_text
from lis2_lightning.inference.map_formats import num_bytes
from lis2_lightning.snapshots import read_snapshot, write_snapshot
from lis2_lightning.snapshots.describe import summary

fits = pytest.importorskip("astropy.io.fits")
WCS = pytest.importorskip("astropy.wcs").WCS
Typed = Callable[..., tuple[int, str, str]]
Contents = Callable[[Path], dict[str, bytes]]
Finished = tuple[Path, dict[str, Any]]
Values = NDArray[np.float32]
CONFIG = Path(__file__).parents[2] / "configs" / "predict.yaml"
SIZE, STRIDE, MEAN, STD = 16, 6, 1.5, 0.7
CARDS = {
    "CTYPE1": "GLON-CAR",
    "CTYPE2": "GLAT-CAR",
    "CRVAL1": 30.25,
    "CRVAL2": 0.0,
    "CRPIX1": 17.5,
    "CRPIX2": -3.0,
    "CDELT1": -0.0032,
    "CDELT2": 0.0032,
}


def sky(height: int, width: int, seed: int) -> tuple[Values, NDArray[np.uint8]]:
    """An image whose objects are brighter than the rest, and its truth."""
    rng = np.random.default_rng(seed)
    truth = rng.random((height, width)) < 0.3
    noise = rng.random((height, width))
    return (2 * truth + noise + 0.5).astype(np.float32), truth.astype(np.uint8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best snapshot of a run on a FITS image, of which nothing else is left."""
    folder = tmp_path_factory.mktemp("trained")
    image, truth = sky(64, 64, 0)
    fits.PrimaryHDU(image, fits.Header(CARDS)).writeto(folder / "image.fits")
    np.save(folder / "target.npy", truth)
    normalize = {"type": "Normalize", "mean": MEAN, "std": STD}
    maps = {
        "type": "TileDataset",
        "image": str(folder / "image.fits"),
        "target": str(folder / "target.npy"),
        "size": SIZE,
        "stride": STRIDE,
        "num_folds": 2,
        "normalization": "none",
        "data_augmentations": [normalize],
    }
    flips = [normalize, "RandomHorizontalFlip"]
    Trainer.from_config(
        {
            "output_dir": str(folder / "runs"),
            "run_name": "sky",
            "seed": 1,
            "model": {"type": "unet", "features": 2, "num_blocks": 1},
            "loss": "BCEWithLogitsLoss",
            "train_dataset": {**maps, "folds": [0], "data_augmentations": flips},
            "val_dataset": {**maps, "folds": [1]},
            "optimizer": {"type": "Adam", "lr": 0.03},
            "epochs": 2,
            "batch_size": 8,
            "num_workers": 0,
            "lightning": {"enable_progress_bar": False, "accelerator": "cpu"},
        }
    ).fit()
    kept: Path = tmp_path_factory.mktemp("kept") / "best.pt"
    shutil.copy(folder / "runs/sky/best.pt", kept)
    shutil.rmtree(folder)
    return kept


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Path) -> Path:
    """Another folder, with the snapshot and another image alone."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(trained, tmp_path / "best.pt")
    hdu = fits.PrimaryHDU(sky(50, 70, 5)[0], fits.Header(CARDS))
    hdu.writeto(tmp_path / "other.fits")
    return tmp_path


def slow_map(snapshot: Path, image: Values) -> Values:
    """The map of an image, tile by tile: Hann's weights, sums divided once."""
    trainer = Trainer.from_config({**NETWORK, "train_dataset": _Anything()})
    trainer.model.load_state_dict(read_snapshot(snapshot)["MODEL"]["MODEL_STATE"])
    network = trainer.model.eval()
    along = np.maximum(np.sin(np.pi * (np.arange(SIZE) + 0.5) / SIZE) ** 2, 1e-3)
    weight = np.outer(along, along)
    total, weights = np.zeros(image.shape), np.zeros(image.shape)
    for top in _starts(image.shape[0]):
        for left in _starts(image.shape[1]):
            here = slice(top, top + SIZE), slice(left, left + SIZE)
            patch = torch.from_numpy((image[here] - MEAN) / STD)[None, None]
            with torch.no_grad():
                probability = network(patch).sigmoid()[0, 0].numpy()
            total[here] += weight * probability
            weights[here] += weight
    return (total / weights).astype(np.float32)


NETWORK = {"model": {"type": "unet", "features": 2, "num_blocks": 1}}


class _Anything(torch.utils.data.Dataset[Any]):
    """Never read."""


def _starts(extent: int) -> list[int]:
    return sorted({*range(0, extent - SIZE + 1, STRIDE), extent - SIZE})


def test_a_snapshot_alone_maps_another_image_as_in_training(
    elsewhere: Path, typed: Typed, contents: Contents, said: pytest.LogCaptureFixture
) -> None:
    before = contents(elsewhere)
    words = ["--ckpt_path", "best.pt", "--image", "other.fits", "--output", "map.fits"]
    code, _, error = typed("predict", *words)
    assert code == 0, error
    assert "mapping other.fits (50 x 70 px) into map.fits" in said.text
    after = contents(elsewhere)
    assert after.keys() - before.keys() == {"map.fits"}
    assert {name: after[name] for name in before} == before

    written = fits.getdata("map.fits")
    image = fits.getdata("other.fits").astype(np.float32)
    np.testing.assert_allclose(written, slow_map(elsewhere / "best.pt", image), atol=1e-6)
    sky_of = [WCS(fits.getheader(name)) for name in ("other.fits", "map.fits")]
    pixels = np.random.default_rng(0).uniform(-10, 80, (2, 50))
    positions = [wcs.wcs_pix2world(*pixels, 0) for wcs in sky_of]
    np.testing.assert_array_equal(positions[0], positions[1])


def test_the_map_is_written_in_the_format_of_its_name(elsewhere: Path, typed: Typed) -> None:
    np.save("other.npy", fits.getdata("other.fits").astype(np.float32))
    snapshot = ["--ckpt_path", elsewhere / "best.pt"]
    for image, output in (("other.fits", "map.npy"), ("other.npy", "map.fits")):
        assert typed("predict", *snapshot, "--image", image, "--output", output)[0] == 0
    np.testing.assert_array_equal(np.load("map.npy"), fits.getdata("map.fits"))


def test_json_names_the_file_of_the_map(elsewhere: Path, typed: Typed) -> None:
    words = ["--ckpt_path", elsewhere, "--image", "other.fits", "--output", "map.npy"]
    code, output, _ = typed("predict", *words, "--json")
    assert (code, json.loads(output)) == (
        0,
        {"output": "map.npy", "mask": None, "shapes": [[1, 50, 70]]},
    )


def test_the_shipped_configuration_maps_an_image_with_its_mask(
    elsewhere: Path, typed: Typed
) -> None:
    Path("runs/demo").mkdir(parents=True)
    shutil.copy("best.pt", "runs/demo/best.pt")
    code, _, error = typed("predict", "--config", CONFIG)
    assert code == 0, error
    threshold = summary(elsewhere / "best.pt")["threshold"]
    probability, mask = fits.getdata("map.fits"), fits.getdata("mask.fits")
    np.testing.assert_array_equal(mask, probability >= np.float32(threshold))
    assert 0 < mask.mean() < 1
    assert fits.getheader("mask.fits")["THRESH"] == pytest.approx(threshold)
    for name in ("map.fits", "mask.fits"):
        assert fits.getheader(name)["SNAPSHOT"] == "best.pt"
    sky_of = [WCS(fits.getheader(name)) for name in ("other.fits", "mask.fits")]
    positions = [wcs.wcs_pix2world(np.arange(9), np.arange(9), 0) for wcs in sky_of]
    np.testing.assert_array_equal(positions[0], positions[1])


def test_stride_threshold_and_type_are_those_that_are_typed(
    elsewhere: Path, typed: Typed, said: pytest.LogCaptureFixture
) -> None:
    words = ["--ckpt_path", elsewhere / "best.pt", "--image", "other.fits"]
    assert typed("predict", *words, "--output", "usual.npy", "--stride", "6")[0] == 0
    assert typed("predict", *words, "--output", "own.npy")[0] == 0
    more = ["--mask", "mask.npy", "--threshold", "0.25", "--dtype", "uint8"]
    assert typed("predict", *words, "--output", "wide.fits", "--stride", "16", *more)[0] == 0
    assert "the map is in wide.fits" in said.messages
    assert "the mask, cut at 0.25, is in mask.npy" in said.messages
    usual, own, mask = (np.load(f"{name}.npy") for name in ("usual", "own", "mask"))
    wide = fits.getdata("wide.fits")
    np.testing.assert_array_equal(usual, own)
    assert (fits.getheader("wide.fits")["BITPIX"], mask.dtype) == (8, np.uint8)
    assert 0 < np.abs(wide - own).max() < 0.5
    assert np.abs((wide >= 0.25) ^ mask.astype(bool)).mean() < 0.02


def test_a_segmenter_needs_nothing_but_the_snapshot(
    elsewhere: Path, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(elsewhere)
    segmenter = Segmenter.from_snapshot("best.pt", num_workers=0)
    image = fits.getdata("other.fits").astype(np.float32)
    (elsewhere / "other").mkdir()
    monkeypatch.chdir("other")
    probability = segmenter.segment(image)
    assert contents(elsewhere) == before
    assert isinstance(probability, np.ndarray)
    np.testing.assert_allclose(probability[0], slow_map(elsewhere / "best.pt", image), atol=1e-6)
    lazy = segmenter.segment(elsewhere / "other.fits", output="map.fits", mask="mask.fits")
    assert not isinstance(lazy, np.ndarray)
    assert lazy.shape == (1, 50, 70)
    np.testing.assert_array_equal(np.asarray(lazy), probability)
    np.testing.assert_array_equal(lazy[0, 3:9, ::2], probability[0, 3:9, ::2])
    np.testing.assert_array_equal(segmenter.segment(image.T.copy()).shape, (1, 70, 50))
    with pytest.raises(SnapshotError, match=r"other\.fits is no snapshot"):
        Segmenter.from_snapshot(elsewhere / "other.fits")


def test_too_little_space_is_told_with_both_figures(
    elsewhere: Path, typed: Typed, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(elsewhere)
    usage = shutil.disk_usage(elsewhere)._replace(free=20_000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    words = ["--ckpt_path", "best.pt", "--image", "other.fits", "--output", "map.npy"]
    code, _, error = typed("predict", *words, "--mask", "mask.npy")
    assert (code, error.count("\n")) == (2, 1)
    types = {"map.npy": "f4", "mask.npy": "u1"}
    files = [num_bytes(Path(n), shape=(50, 70), dtype=np.dtype(t)) for n, t in types.items()]
    assert f"the map needs {size_text(sum(files) + 4 * 50 * 70)} in" in error  # and its rows
    assert "where 20 kB are free" in error
    assert contents(elsewhere) == before


def test_a_snapshot_without_a_threshold_says_so_before_the_first_tile(
    elsewhere: Path, typed: Typed, contents: Contents
) -> None:
    snapshot = read_snapshot("best.pt")
    snapshot["LIGHTNING"]["checkpoint"].pop("threshold")
    write_snapshot(snapshot, elsewhere / "best.pt")
    before = contents(elsewhere)
    words = ["--ckpt_path", "best.pt", "--image", "other.fits", "--output", "map.npy"]
    code, _, error = typed("predict", *words, "--mask", "mask.npy")
    assert (code, error.count("\n")) == (2, 1)
    assert "the snapshot has no threshold" in error
    assert contents(elsewhere) == before
    assert typed("predict", *words, "--mask", "mask.npy", "--threshold", "0.5")[0] == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--output map.xyz", "map.xyz has no known format of a map: its name must end in .fits or"),
        ("--output map", "map has no known format of a map"),
        ("--output no/map.npy", "the folder of no/map.npy does not exist"),
        ("--output taken.npy", "taken.npy exists already"),
        ("--output folder.npy", "folder.npy is a folder"),
        ("--output other.fits --overwrite", "other.fits is the image itself"),
        (
            "--image colour.npy",
            "no tiles of colour.npy (30 x 30 px), which have 2 channels of 16 x 16",
        ),
        ("--image small.npy", "small.npy (1 x 40 px) is smaller than 2 px, the least side of"),
        ("--image gone.fits", "gone.fits does not exist"),
        ("--image best.pt", "best.pt has no known"),
        ("--ckpt_path gone.pt", "there is no snapshot gone.pt"),
        ("--ckpt_path other.fits", "other.fits is no snapshot"),
        ("--ckpt_path folder.npy", "the folder folder.npy holds no best.pt"),
        ("--ckpt_path best", "add --config, or --ckpt_path with a snapshot"),
        ("--overwrite=no", "--overwrite takes no value"),
        ("--mask taken.npy", "taken.npy exists already"),
        ("--mask mask.xyz", "mask.xyz has no known format of a map"),
        ("--mask map.fits", "output and mask are both map.fits"),
        ("--mask no/mask.npy", "the folder of no/mask.npy does not exist"),
        ("--mask mask.npy --threshold 1.5", "threshold must be auto or in [0, 1], not 1.5"),
        ("--mask mask.npy --threshold many", "threshold must be auto or in [0, 1], not 'many'"),
        ("--threshold 0.5", "threshold is where a mask is cut: name its file with mask"),
        ("--stride 0", "stride must be at least 1 px, not 0"),
        ("--stride 1.5", "stride must be a whole number of at least 1, not '1.5'"),
        ("--stride 17", "a stride of 17 px leaves gaps between tiles of 16 px"),
        ("--dtype int8", "dtype must be float32 or uint8, not 'int8'"),
        ("--output map.npy --dtype uint8", "a place for its scale, which map.npy is not: choose"),
    ],
)
def test_what_cannot_be_mapped_is_one_sentence_and_leaves_nothing_behind(
    elsewhere: Path, typed: Typed, contents: Contents, words: str, sentence: str
) -> None:
    Path("taken.npy").touch()
    Path("folder.npy").mkdir()
    np.save("colour.npy", np.ones((2, 30, 30), np.float32))
    np.save("small.npy", np.ones((1, 40), np.float32))
    before, folders = contents(elsewhere), sorted(elsewhere.rglob("*"))
    usual = ["--ckpt_path", "best.pt", "--image", "other.fits", "--output", "map.fits"]
    code, output, error = typed("predict", *usual, *words.split())
    assert (code, output) == (2, "")
    assert sentence in error
    assert error.count("\n") == 1
    assert contents(elsewhere) == before
    assert sorted(elsewhere.rglob("*")) == folders


@pytest.mark.usefixtures("elsewhere")
def test_an_image_needs_an_output(typed: Typed) -> None:
    code, _, error = typed("predict", "--ckpt_path", "best.pt", "--image", "other.fits")
    assert (code, "--image needs --output" in error) == (2, True)


@pytest.mark.usefixtures("elsewhere")
def test_a_map_is_replaced_only_when_asked(typed: Typed) -> None:
    words = ["--ckpt_path", "best.pt", "--image", "other.fits", "--output", "map.npy"]
    Path("map.npy").write_bytes(b"precious")
    assert typed("predict", *words)[0] == 2
    assert Path("map.npy").read_bytes() == b"precious"
    assert typed("predict", "--overwrite", *words)[0] == 0
    assert np.load("map.npy").shape == (50, 70)


def test_patches_that_were_cut_elsewhere_do_not_say_how_an_image_is_cut(
    elsewhere: Path, typed: Typed
) -> None:
    config = elsewhere / "patches.yaml"
    patches = {"type": "FilamentsDataset", "dataset_path": "gone.h5"}
    config.write_text(yaml.safe_dump({**NETWORK, "train_dataset": patches}), encoding="utf-8")
    words = ["--config", config, "--ckpt_path", "best.pt", "--image", "other.fits"]
    code, _, error = typed("predict", *words, "--output", "map.npy")
    assert code == 2
    assert "(PatchDataset) does not say how tiles are cut from another image" in error

    tiles = "{type: TileDataset, size: 16, stride: 6, normalization: none}"
    code, _, error = typed("predict", *words, "--output", "map.npy", "--train_dataset", tiles)
    assert code == 0, error


@pytest.mark.usefixtures("elsewhere")
def test_flags_decide_how_a_snapshot_is_used(typed: Typed) -> None:
    words = ["--ckpt_path", "best.pt", "--image", "other.fits"]
    assert typed("predict", *words, "--output", "map.npy")[0] == 0
    fine = ["--val_dataset.stride", "2", "--batch_size", "5", "--lightning.accelerator", "cpu"]
    assert typed("predict", *words, "--output", "fine.npy", *fine)[0] == 0
    coarse, dense = np.load("map.npy"), np.load("fine.npy")
    assert np.abs(coarse - dense).max() > 1e-3
    np.testing.assert_allclose(coarse, dense, atol=0.2)


def test_a_configuration_maps_another_image_without_its_own_data(
    elsewhere: Path, typed: Typed
) -> None:
    config = elsewhere / "config.yaml"
    text = yaml.safe_dump(read_snapshot(elsewhere / "best.pt")["GLOBAL_CONFIG"])
    config.write_text(text, encoding="utf-8")
    words = ["--ckpt_path", "best.pt", "--image", "other.fits"]
    assert typed("predict", "--config", config, *words, "--output", "a.npy")[0] == 0
    assert typed("predict", *words, "--output", "b.npy")[0] == 0
    np.testing.assert_array_equal(np.load("a.npy"), np.load("b.npy"))
