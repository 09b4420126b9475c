"""Reading FITS images, and writing maps with their coordinates."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from lis2_lightning.data.open_raster import open_raster
from lis2_lightning.errors import DataError
from lis2_lightning.tiling.grid import Tile

fits = pytest.importorskip("astropy.io.fits")

HEIGHT, WIDTH = 90, 130


def picture(channels: int = 1) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(channels, HEIGHT, WIDTH)) * 100
    return values.round().astype(np.float32)


def scaled_fits(path: Path, *, bitpix: str, scale: float, zero: float, blank: int | None):
    stored = np.random.default_rng(2).integers(0, 100, (HEIGHT, WIDTH)).astype(bitpix)
    hdu = fits.PrimaryHDU(stored)
    hdu.header["BSCALE"], hdu.header["BZERO"] = scale, zero
    if blank is not None:
        hdu.header["BLANK"] = blank
    hdu.writeto(path / "map.fits")
    values = (stored.astype(np.float64) * scale + zero).astype(np.float32)
    if blank is not None:
        values[stored == blank] = np.nan
    return path / "map.fits", values


@pytest.mark.parametrize(
    ("bitpix", "scale", "zero", "blank"),
    [
        ("u1", 1.0, 0.0, None),
        ("i2", 0.25, -3.0, 7),
        ("i2", 1.0, 0.0, 7),
        ("i4", 1e20, 5e21, 0),
        ("i8", 1.0, 2.0**31, None),
        ("f4", 2.0, 1.0, None),
        ("f8", 1.0, 0.0, None),
    ],
)
def test_fits_values_are_scaled_and_blank_ones_are_nan(tmp_path, bitpix, scale, zero, blank):
    path, values = scaled_fits(tmp_path, bitpix=bitpix, scale=scale, zero=zero, blank=blank)
    raster = open_raster(path)
    read = raster.read(Tile(10, 20, 50, 60))[0]
    np.testing.assert_array_equal(read, values[10:60, 20:80])
    np.testing.assert_array_equal(
        raster.read_many(np.array([10]), np.array([20]), 50)[0, 0], values[10:60, 20:70]
    )
    if blank != 0:  # which astropy 8.0 overlooks, against the standard
        theirs = fits.getdata(path)[10:60, 20:80].astype(np.float32)
        np.testing.assert_allclose(read, theirs, rtol=1e-6)


def test_unsigned_integers_as_fits_stores_them_are_read(tmp_path):
    fits.writeto(tmp_path / "map.fits", np.array([[0, 65535], [1, 32768]], dtype="u2"))
    read = open_raster(tmp_path / "map.fits").read(Tile(0, 0, 2, 2))
    assert read.tolist() == [[[0.0, 65535.0], [1.0, 32768.0]]]


@pytest.mark.parametrize("tile_shape", [(1, WIDTH), (30, 40)])
def test_a_compressed_hdu_is_scaled_and_blank_ones_are_nan(tmp_path, tile_shape):
    values = picture()[0]
    values[3:20, 5:60] = np.nan
    hdu = fits.CompImageHDU(
        values, compression_type="GZIP_2", quantize_level=0, tile_shape=tile_shape
    )
    hdu.writeto(tmp_path / "map.fits")
    np.testing.assert_array_equal(
        open_raster(tmp_path / "map.fits").read(Tile(2, 4, 60, 70))[0], values[2:62, 4:74]
    )


def several_hdus(path: Path):
    table = fits.BinTableHDU.from_columns([fits.Column("x", "E", array=np.zeros(3))])
    images = [fits.ImageHDU(np.full((4, 5), n, "f4"), name=f"MAP{n}") for n in (1, 2)]
    again = fits.ImageHDU(np.full((4, 5), 3, "f4"), name="MAP2", ver=2)
    fits.HDUList([fits.PrimaryHDU(), table, *images, again]).writeto(path / "map.fits")
    return path / "map.fits"


@pytest.mark.parametrize(
    ("which", "value"),
    [("", 1), ("[2]", 1), ("[3]", 2), ("[MAP2]", 2), ("[map1]", 1), ("[MAP2,2]", 3)],
)
def test_an_hdu_is_chosen_by_number_or_name(tmp_path, which, value):
    raster = open_raster(f"{several_hdus(tmp_path)}{which}")
    assert raster.source.endswith(f"map.fits{which}")
    assert raster.read(Tile(0, 0, 1, 1)).item() == value


@pytest.mark.parametrize(
    ("which", "sentence"),
    [
        ("[0]", r"\[0\] is a table or empty: its HDUs are 0 PRIMARY, 1 \(no name\), 2 MAP1"),
        ("[1]", r"is a table or empty"),
        ("[9]", r"has no HDU '9': it has 0 PRIMARY"),
        ("[MAP7]", r"has no HDU 'MAP7': it has"),
        ("[MAP2,x]", r"has no HDU 'MAP2,x'"),
    ],
)
def test_an_hdu_that_is_no_image_is_refused(tmp_path, which, sentence):
    with pytest.raises(DataError, match=sentence):
        open_raster(f"{several_hdus(tmp_path)}{which}")


def test_leading_axes_of_length_one_are_no_axes(tmp_path):
    values = picture()
    fits.writeto(tmp_path / "map.fits", values[None])
    np.testing.assert_array_equal(
        open_raster(tmp_path / "map.fits").read(Tile(0, 0, HEIGHT, WIDTH)), values
    )
    with h5py.File(tmp_path / "map.h5", "w") as file:
        file["map"] = values[None]
    np.testing.assert_array_equal(
        open_raster(tmp_path / "map.h5").read(Tile(1, 2, 3, 4)), values[:, 1:4, 2:6]
    )


def test_a_damaged_fits_file_is_refused_and_never_crashes(tmp_path):
    path = tmp_path / "map.fits"
    hdu = fits.PrimaryHDU(picture()[0].astype("i2"))
    hdu.header["BSCALE"], hdu.header["BZERO"], hdu.header["BLANK"] = 2.0, 1.0, 5
    hdu.writeto(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(3)
    refused = 0
    for attempt in range(100):
        damaged = bytearray(whole)
        if attempt % 2:
            damaged = damaged[: rng.integers(len(whole) - 2880)]
        else:
            for position in rng.integers(80 * 9, size=10):
                damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            raster = open_raster(path)
            raster.read(Tile(0, 0, *raster.shape[1:]))
        except DataError as error:
            refused += 1
            assert "map.fits" in str(error)  # noqa: PT017 - some damage goes unnoticed
    assert refused > 50


def test_the_real_maps_read_as_astropy_reads_them(lis2_sample):
    for path in sorted(lis2_sample.glob("*.fits")):
        raster = open_raster(path)
        assert raster.shape == (1, 500, 500)
        expected = fits.getdata(path).astype(np.float32)
        np.testing.assert_array_equal(raster.read(Tile(0, 0, 500, 500))[0], expected)
