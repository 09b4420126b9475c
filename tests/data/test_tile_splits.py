"""Splits of one image by folds, and the arguments of a data set of tiles that are refused."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lis2_lightning.data import TileDataset, check_no_shared_pixels
from lis2_lightning.data.identity import identity
from lis2_lightning.data.open_raster import ArrayRaster
from lis2_lightning.errors import ConfigError, DataError
from tests.data.fields import SHAPE, maps, union


@pytest.mark.parametrize("buffer", [0, 3])
def test_splits_of_different_folds_share_no_pixel_and_keep_the_buffer(buffer):
    options: dict[str, Any] = {
        "size": 8,
        "stride": 3,
        "area_size": 16,
        "num_folds": 4,
        "buffer": buffer,
    }
    splits = [TileDataset(**maps(), **options, folds=folds) for folds in ([0, 1], [2], [3])]
    for number, first in enumerate(splits):
        grown = np.zeros(SHAPE, dtype=bool)
        for tile in first.tiles:
            # a pixel right beside a tile is at a distance of 0 from it
            grown[
                max(0, tile.top - buffer) : tile.bottom + buffer,
                max(0, tile.left - buffer) : tile.right + buffer,
            ] = True
        for second in splits[number + 1 :]:
            assert not (grown & union(second)).any()
    check_no_shared_pixels(dict(zip(("train", "val", "test"), splits, strict=True)))


def test_all_folds_together_are_all_tiles():
    options: dict[str, Any] = {"size": 8, "stride": 4, "area_size": 16, "num_folds": 4}
    parts = [TileDataset(**maps(), **options, folds=[fold]).corners for fold in range(4)]
    whole = TileDataset(**maps(), **options).corners
    assert sorted(map(tuple, np.concatenate(parts))) == sorted(map(tuple, whole))


def test_folds_do_not_depend_on_the_stride():
    options: dict[str, Any] = {"size": 8, "area_size": 16, "num_folds": 4, "folds": [2]}
    coarse, fine = (union(TileDataset(**maps(), **options, stride=s)) for s in (8, 1))
    assert (coarse & ~fine).sum() == 0


def test_splits_of_one_cut_are_told_apart_without_a_look_at_their_tiles(monkeypatch):
    options: dict[str, Any] = {"area_size": 32, "num_folds": 2}
    splits = [TileDataset(**maps(), **options, size=8 + fold, folds=[fold]) for fold in (0, 1)]
    monkeypatch.setattr("lis2_lightning.data.splits.shared_pixel", None)
    check_no_shared_pixels(dict(zip(("train", "val"), splits, strict=True)))


def test_a_leak_names_both_splits_and_a_shared_pixel():
    first = TileDataset(**maps(), size=16, area_size=32, num_folds=2, folds=[0])
    second = TileDataset(**maps(), size=16, stride=16)
    with pytest.raises(DataError, match="train and test share pixels of an array") as caught:
        check_no_shared_pixels({"train": first, "val": None, "test": second})
    row, column = map(int, re.findall(r"row (\d+), column (\d+)", str(caught.value))[0])
    assert union(first)[row, column]
    assert union(second)[row, column]


def test_data_sets_of_different_images_are_not_compared(tmp_path):
    np.save(tmp_path / "one.npy", maps()["image"])
    np.save(tmp_path / "two.npy", maps()["image"])
    target = maps()["target"]
    check_no_shared_pixels(
        {
            "one": TileDataset(tmp_path / "one.npy", target=target),
            "two": TileDataset(tmp_path / "two.npy", target=target),
            "array": TileDataset(maps()["image"], target=target),
            "other": TileDataset(maps(seed=1)["image"], target=target),
            "smaller": TileDataset(maps()["image"][:64], target=target[:64]),
        }
    )


def test_one_file_under_two_spellings_of_its_path_is_one_image(tmp_path, monkeypatch):
    np.save(tmp_path / "one.npy", maps()["image"])
    monkeypatch.chdir(tmp_path)
    splits = {
        "train": TileDataset("one.npy", target=maps()["target"]),
        "val": TileDataset(str(tmp_path / "one.npy"), target=maps()["target"]),
    }
    with pytest.raises(DataError, match="train and val share pixels"):
        check_no_shared_pixels(splits)


@pytest.mark.parametrize(
    ("train", "val", "is_shared"),
    [
        ("cube.fits[0][0]", "cube.fits[0][2]", True),
        ("cube.fits[0][1]", "cube.fits", True),
        ("cube.fits[0][1]", "link.fits[0][1]", True),
        ("cube.fits[0][0]", "cube.fits[TWO][0]", False),
        ("cube.npy[0]", "cube.npy[1]", True),
        ("cube.h5:/one[0]", "cube.h5:/one[1]", True),
        ("cube.h5:/one", "cube.h5:/two", False),
        ("cube.npy[0]", "cube.fits[0][0]", False),
        ("maps.fits[1]", "maps.fits[SCI]", True),
        ("maps.fits[sci]", "maps.fits", True),
        ("maps.fits[1]", "maps.fits[2]", False),
        ("packed.fits.fz", "packed.fits.fz[1]", True),
    ],
)
def test_planes_of_one_image_share_its_pixels_and_images_of_one_file_do_not(
    tmp_path, train, val, is_shared
):
    from astropy.io import fits

    cube = np.ones((3, *SHAPE), np.float32)
    np.save(tmp_path / "cube.npy", cube)
    two = fits.ImageHDU(cube, name="TWO")
    fits.HDUList([fits.PrimaryHDU(cube), two]).writeto(tmp_path / "cube.fits")
    maps_ = [fits.ImageHDU(cube[number], name=name) for number, name in enumerate(("SCI", "ERR"))]
    fits.HDUList([fits.PrimaryHDU(), *maps_]).writeto(tmp_path / "maps.fits")
    packed = [fits.PrimaryHDU(), fits.CompImageHDU(cube[0])]
    fits.HDUList(packed).writeto(tmp_path / "packed.fits.fz")
    (tmp_path / "link.fits").symlink_to(tmp_path / "cube.fits")
    with h5py.File(tmp_path / "cube.h5", "w") as file:
        file["one"] = file["two"] = cube
    splits = {
        name: TileDataset(str(tmp_path / source), target=maps()["target"])
        for name, source in (("train", train), ("val", val))
    }
    with pytest.raises(DataError, match="share pixels") if is_shared else nullcontext():
        check_no_shared_pixels(splits)


def test_a_raster_of_ones_own_may_have_brackets_in_its_name(monkeypatch):
    class Own(ArrayRaster):
        pass

    monkeypatch.setattr("lis2_lightning.data.census_cache.LEAST_PIXELS", 0)
    splits = {}
    for name in ("train", "val"):
        raster = Own(maps()["image"])
        raster.source = "made up [v=3]"
        splits[name] = TileDataset(raster, target=maps()["target"])
    with pytest.raises(DataError, match=r"share pixels of made up \[v=3\]"):
        check_no_shared_pixels(splits)
    assert identity(splits["train"].image) == identity(splits["val"].image)


def test_a_file_is_known_by_its_path_and_not_read(tmp_path, monkeypatch):
    np.save(tmp_path / "one.npy", maps()["image"])
    splits = {
        name: TileDataset(tmp_path / "one.npy", target=maps()["target"])
        for name in ("train", "val")
    }
    monkeypatch.setattr("numpy.array_equal", None)
    with pytest.raises(DataError, match="train and val share pixels"):
        check_no_shared_pixels(splits)


def test_a_copy_of_an_array_is_the_same_image():
    splits = {name: TileDataset(**maps()) for name in ("train", "val")}
    with pytest.raises(DataError, match="train and val share pixels"):
        check_no_shared_pixels(splits)


def with_value(value):
    target = maps()["target"]
    target[33, 44] = value
    return target


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"target": with_value(2)}, DataError, "an array in memory holds 2 at row 33, column 44"),
        (
            {"target": with_value(0.5)},
            DataError,
            "holds 0.5 at row 33, column 44: a target must be 0, 1",
        ),
        ({"target": with_value(np.inf)}, DataError, "holds inf at row 33, column 44"),
        ({"missing": np.ones((70, 92))}, DataError, "is 70 x 92 px and .* 70 x 93 px"),
        ({"background": np.ones((2, *SHAPE))}, DataError, "has 2 channels and the target"),
        ({"size": 71}, DataError, "a tile of 71 px does not fit an image of 70 x 93 px"),
        ({"missing": np.zeros(SHAPE)}, DataError, "no pixel of an array in memory is labelled"),
        ({"area_size": 32, "num_folds": 7}, DataError, "7 folds need at least 7 areas"),
        ({"image": "none.fits"}, DataError, "none.fits"),
        ({"labelled": np.ones(SHAPE)}, ConfigError, "pass only one of them"),
        ({"size": 0}, ConfigError, "size must be at least 1 px, not 0"),
        ({"stride": 0}, ConfigError, "stride must be at least 1 px, not 0"),
        ({"area_size": 0}, ConfigError, "area_size must be at least 1 px, not 0"),
        ({"buffer": -1}, ConfigError, "buffer must be at least 0 px, not -1"),
        ({"num_folds": 0}, ConfigError, "num_folds must be at least 1, not 0"),
        ({"folds": [1]}, ConfigError, "fold 1 does not exist: folds are numbered 0 to 0"),
        ({"folds": []}, ConfigError, "folds is empty"),
        ({"area_size": 32, "buffer": 9}, ConfigError, "use an area_size of at least 41"),
        ({"normalization": "lgo"}, ConfigError, "did you mean 'log'"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(changes, error, message):
    with pytest.raises(error, match=message) as caught:
        TileDataset(**{**maps(), **changes})
    assert "\n" not in str(caught.value)


def test_a_fold_without_a_labelled_tile_is_refused():
    known = np.zeros(SHAPE)
    known[5, 5] = 1
    fields = {**maps(), "background": None, "labelled": known}
    with pytest.raises(DataError, match="has no tile with a labelled pixel"):
        TileDataset(**fields, size=8, num_folds=4)
    # the others hold the tiles that are kept for prediction only
    assert len(TileDataset(**fields, size=8, num_folds=4, keep_unlabelled=True))


def test_the_real_maps_have_the_published_numbers(lis2_sample: Path):
    files: dict[str, Any] = {
        name: lis2_sample / f"sample_{name}.fits" for name in ("target", "background", "missing")
    }
    image = lis2_sample / "sample_image.fits"
    whole = TileDataset(image, **files, size=500)
    assert whole.image_shape == (500, 500)
    assert int(whole[0]["target"].sum()) == 22_496
    assert whole.num_without_data == 28  # labelled, and NaN in the image
    assert float(whole[0]["labelled"].float().mean()) == pytest.approx(0.167712 - 28 / 500**2)

    whole_labelled = whole[0]["labelled"][0].numpy()
    options: dict[str, Any] = {"size": 32, "stride": 8, "area_size": 64, "num_folds": 5}
    train, val, test = (
        TileDataset(image, **files, **options, folds=folds) for folds in ([0, 1, 2], [3], [4])
    )
    assert not (union(train) & union(val)).any()
    assert not (union(train) & union(test)).any()
    check_no_shared_pixels({"train": train, "val": val, "test": test})
    parts = [TileDataset(image, **files, **options, folds=[fold]) for fold in range(5)]
    areas = [(union(part) & (whole_labelled)).sum() for part in parts]
    assert max(areas) < 1.15 * min(areas)
    patch = train.__getitems__(range(len(train))).tensors["patch"]
    assert patch.isfinite().all()
    assert float(patch.min()) == 0
    assert float(patch.max()) == 1
