"""Which sources are accepted as images, and how the others are refused."""

from __future__ import annotations

import os
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from lis2_lightning.data.open_raster import ArrayRaster, open_raster
from lis2_lightning.data.rasters.arrays import MappedRaster
from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.tiling.grid import Tile

fits = pytest.importorskip("astropy.io.fits")
tifffile = pytest.importorskip("tifffile")
zarr = pytest.importorskip("zarr")


def test_an_array_is_taken_as_it_is():
    values = np.arange(12).reshape(3, 4)
    raster = open_raster(values)
    assert raster.read(Tile(1, 1, 2, 2)).tolist() == [[[5, 6], [9, 10]]]
    assert open_raster(raster) is raster
    assert isinstance(raster, ArrayRaster)
    assert np.shares_memory(raster._array, values)


def test_a_single_data_set_needs_no_name(tmp_path):
    with h5py.File(tmp_path / "map.h5", "w") as file:
        file["deep/down"] = np.ones((3, 4))
    assert open_raster(str(tmp_path / "map.h5")).shape == (1, 3, 4)
    group = zarr.open_group(tmp_path / "map.zarr", mode="w")
    group.create_array("a/b", shape=(5, 6), dtype="f4")
    assert open_raster(tmp_path / "map.zarr").shape == (1, 5, 6)
    group.create_array("c", shape=(7, 6), dtype="f4")
    assert open_raster(f"{tmp_path / 'map.zarr'}:c").shape == (1, 7, 6)
    with pytest.raises(DataError, match="has 2 arrays and none was selected: valid are 'a/b', 'c'"):
        open_raster(tmp_path / "map.zarr")


def test_colours_that_are_stored_last_become_channels(tmp_path):
    values = np.arange(60 * 70 * 3).reshape(60, 70, 3).astype("u2")
    tifffile.imwrite(tmp_path / "plain.tif", values, photometric="rgb")
    tifffile.imwrite(
        tmp_path / "tiled.tif", values, photometric="rgb", tile=(16, 16), compression="zlib"
    )
    for name in ("plain.tif", "tiled.tif"):
        raster = open_raster(tmp_path / name)
        assert raster.shape == (3, 60, 70)
        np.testing.assert_array_equal(
            raster.read(Tile(3, 4, 20, 30)), values[3:23, 4:34].transpose(2, 0, 1)
        )


def test_a_plain_tiff_is_mapped(tmp_path):
    tifffile.imwrite(tmp_path / "map.tif", np.zeros((60, 70), "f4"))
    assert isinstance(open_raster(tmp_path / "map.tif"), MappedRaster)


def bad_sources(path: Path):
    (path / "text.fits").write_text("hello")
    (path / "map.fits.gz").write_bytes(b"\x1f\x8b123")
    (path / "text.npy").write_text("hello")
    (path / "text.h5").write_text("hello")
    (path / "text.tif").write_text("hello")
    (path / "folder.fits").mkdir()
    (path / "empty.zarr").mkdir()
    fits.writeto(path / "line.fits", np.zeros(5))
    packed = fits.CompImageHDU(np.arange(40, dtype="f4"))
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(path / "packed.fits")
    np.save(path / "last.npy", np.zeros((40, 50, 3)))
    os.mkfifo(path / "pipe.npy")
    (path / "loop.npy").symlink_to(path / "loop.npy")
    (path / "nothing.png").write_bytes(b"")
    fits.writeto(path / "hyper.fits", np.zeros((2, 2, 5, 5)))
    fits.PrimaryHDU().writeto(path / "empty.fits")
    np.save(path / "complex.npy", np.zeros((4, 4), dtype=complex))
    np.save(path / "object.npy", np.array([[None]]), allow_pickle=True)
    np.save(path / "none.npy", np.zeros((0, 4)))
    np.save(path / "cut.npy", np.zeros((40, 40)))
    (path / "cut.npy").write_bytes((path / "cut.npy").read_bytes()[:-8])
    with h5py.File(path / "two.h5", "w") as file:
        file["first"], file["second"] = np.zeros((4, 4)), np.zeros((4, 4))
    cut = (path / "two.h5").read_bytes()
    (path / "cut.h5").write_bytes(cut[: len(cut) // 2])
    tifffile.imwrite(path / "one.tif", np.zeros((4, 4), "f4"))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nothing.fits", "does not exist: check the path"),
        ("nothing.fits[2]", "nothing.fits does not exist"),
        ("nothing.zarr", "does not exist: check the path"),
        ("folder.fits", "is a folder"),
        ("text.fits", "is not a FITS file: it does not begin with the keyword SIMPLE"),
        ("map.fits.gz", "is compressed as a whole: unpack it first"),
        ("packed.fits", r"has shape \(40,\)"),
        ("last.npy", r"looks like \(height, width, channels\): store the channels first"),
        ("pipe.npy", "is a pipe or a device"),
        ("loop.npy", "does not exist"),
        ("nothing.png", "is not a PNG or JPEG file"),
        ("line.fits", r"has shape \(5,\), an image is \(height, width\)"),
        ("hyper.fits", r"has shape \(2, 2, 5, 5\).* as in .*hyper.fits\[0\]\[0, 0\]"),
        ("empty.fits", "has no image: its HDUs are 0 PRIMARY"),
        ("text.npy", "is not a NumPy file"),
        ("complex.npy", "holds values of type complex128"),
        ("object.npy", "holds values of type object"),
        ("none.npy", "needs at least one pixel"),
        ("cut.npy", "is truncated, 8 bytes are missing"),
        ("cut.npy[name]", r"names no plane: .* as in .*cut.npy\[0\]"),
        ("map.npz", "does not exist"),
        ("map.gif", "has no known image format: its name must end in .fits, "),
        ("map", "has no known image format"),
        ("text.h5", "is damaged or not an HDF5 file"),
        ("cut.h5", "is truncated"),
        ("two.h5", r"holds 2 data sets \(first, second\): name one, as in .*two.h5:/first"),
        ("two.h5:/fist", "has no data set 'fist': did you mean 'first'"),
        ("text.tif", "is damaged or not a TIFF file"),
        ("one.tif[3]", "has no image '3': choose one of 0 to 0"),
        ("empty.zarr", "is damaged or not a Zarr array or group"),
    ],
)
def test_a_bad_source_is_one_sentence_that_names_the_file(tmp_path, name, sentence):
    bad_sources(tmp_path)
    with pytest.raises(DataError, match=sentence) as caught:
        open_raster(tmp_path / name)
    file = re.split(r"[\[:]", name)[0]
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_sources_are_refused():
    with pytest.raises(DataError, match="an image must be a path, an array or a raster, not list"):
        open_raster([[1, 2], [3, 4]])  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("several", [["a.npy", "b.npy"], (np.eye(3), np.eye(3)), [Path("a.fits")]])
def test_several_images_are_listed_elsewhere(several):
    sentence = f"got a {type(several).__name__} of {len(several)}: .* a TileDataset takes a list"
    with pytest.raises(ConfigError, match=sentence):
        open_raster(several)
