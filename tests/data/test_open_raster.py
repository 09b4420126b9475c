from __future__ import annotations

import multiprocessing
import os
import pickle  # noqa: TID251 - rasters cross process borders this way
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from lis2_lightning.data.open_raster import ArrayRaster, Raster, open_raster, write_map
from lis2_lightning.data.rasters.arrays import MappedRaster
from lis2_lightning.data.rasters.fits import FitsRaster
from lis2_lightning.data.rasters.hdf5 import Hdf5Raster
from lis2_lightning.errors import DataError
from lis2_lightning.tiling.grid import Tile

fits = pytest.importorskip("astropy.io.fits")
tifffile = pytest.importorskip("tifffile")
zarr = pytest.importorskip("zarr")

HEIGHT, WIDTH = 90, 130


def picture(channels: int = 1) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(channels, HEIGHT, WIDTH)) * 100
    return values.round().astype(np.float32)


def write_npy(path: Path, values):
    np.save(path / "map.npy", values)
    return path / "map.npy"


def write_fortran(path: Path, values):
    np.save(path / "map.npy", np.asfortranarray(values.astype(">f8")))
    return path / "map.npy"


def write_plain_fits(path: Path, values):
    fits.writeto(path / "map.fits", values)
    return path / "map.fits"


def write_packed_fits(path: Path, values):
    hdu = fits.CompImageHDU(values.astype("i2"), compression_type="RICE_1")
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path / "map.fits.fz")
    return path / "map.fits.fz"


def write_hdf5(path: Path, values):
    with h5py.File(path / "map.h5", "w") as file:
        file.create_dataset("sky/map", data=values, chunks=True, compression="gzip")
        file["other"] = 1.0
    return f"{path / 'map.h5'}:/sky/map"


def write_tiff(path: Path, values):
    tifffile.imwrite(
        path / "map.tif", values.astype(">f4"), byteorder=">", photometric="minisblack"
    )
    return path / "map.tif"


def write_tiled_tiff(path: Path, values):
    tifffile.imwrite(
        path / "map.tif", values, tile=(32, 48), compression="zlib", photometric="minisblack"
    )
    return path / "map.tif"


def write_zarr(path: Path, values):
    chunks = (*(1,) * (values.ndim - 2), 32, 48)
    array = zarr.create_array(path / "map.zarr", shape=values.shape, chunks=chunks, dtype="f4")
    array[...] = values
    return path / "map.zarr"


WRITERS = [
    write_npy,
    write_fortran,
    write_plain_fits,
    write_packed_fits,
    write_hdf5,
    write_tiff,
    write_tiled_tiff,
    write_zarr,
]
every_format = pytest.mark.parametrize("write", WRITERS, ids=lambda writer: writer.__name__)


@every_format
@pytest.mark.parametrize("channels", [1, 3])
def test_every_format_gives_the_array_back(tmp_path, write, channels):
    values = picture(channels)
    raster = open_raster(write(tmp_path, values if channels > 1 else values[0]))
    assert isinstance(raster, Raster)
    assert raster.shape == values.shape
    read = raster.read(Tile(0, 0, HEIGHT, WIDTH))
    assert read.dtype == np.float32
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, values)


@every_format
def test_a_tile_is_the_slice_of_the_array(tmp_path, write):
    values = picture(2)
    raster = open_raster(write(tmp_path, values))
    for tile in (Tile(0, 0, 1, 1), Tile(30, 45, 7, 9), Tile(HEIGHT - 5, WIDTH - 64, 5, 64)):
        np.testing.assert_array_equal(raster.read(tile), values[:, tile.rows, tile.columns])


@every_format
def test_many_squares_are_the_same_as_one_after_the_other(tmp_path, write):
    raster = open_raster(write(tmp_path, picture(2)))
    rng = np.random.default_rng(1)
    tops, lefts = rng.integers(0, HEIGHT - 16, 40), rng.integers(0, WIDTH - 16, 40)
    many = raster.read_many(tops, lefts, 16)
    assert many.shape == (40, 2, 16, 16)
    assert many.flags.c_contiguous
    for square, top, left in zip(many, tops.tolist(), lefts.tolist(), strict=True):
        np.testing.assert_array_equal(square, raster.read(Tile(top, left, 16, 16)))
    assert raster.read_many(tops[:0], lefts[:0], 16).shape == (0, 2, 16, 16)


def test_what_is_read_may_be_written_to_and_is_no_part_of_the_image(tmp_path):
    values = picture()[0]
    values.flags.writeable = False
    for raster in (open_raster(values), open_raster(write_npy(tmp_path, values))):
        raster.read(Tile(0, 0, HEIGHT, WIDTH))[:] = 0
        raster.read_many(np.array([0]), np.array([0]), HEIGHT)[:] = 0
        np.testing.assert_array_equal(raster.read(Tile(0, 0, HEIGHT, WIDTH))[0], values)


@every_format
def test_reading_outside_of_the_image_is_refused(tmp_path, write):
    raster = open_raster(write(tmp_path, picture()[0]))
    for tile in (Tile(-1, 0, 4, 4), Tile(0, WIDTH - 3, 4, 4)):
        with pytest.raises(DataError, match=r"is an image of 90 x 130 px: rows .* inside it"):
            raster.read(tile)
    with pytest.raises(DataError, match="are not inside it"):
        raster.read_many(np.array([0, -1]), np.array([0, 0]), 4)
    with pytest.raises(DataError, match="are not inside it"):
        raster.read_many(np.array([0, 87]), np.array([0, 0]), 4)


@every_format
def test_a_pickle_holds_the_path_and_not_the_pixels(tmp_path, write):
    values = picture()
    raster = open_raster(write(tmp_path, values[0]))
    raster.read(Tile(0, 0, 4, 4))
    stored = pickle.dumps(raster)
    assert len(stored) < 1000
    np.testing.assert_array_equal(
        pickle.loads(stored).read(Tile(3, 5, 8, 9)),  # noqa: S301 - our own bytes
        values[:, 3:11, 5:14],
    )


class Squares(Dataset[Any]):
    """Reads one square an index and tells the process that read it."""

    def __init__(self, raster):
        self.raster = raster

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return self.raster.read(Tile(index, 2 * index, 16, 16)), os.getpid()


@pytest.mark.parametrize(
    "write", [write_plain_fits, write_packed_fits, write_hdf5, write_tiled_tiff, write_zarr]
)
def test_forked_workers_open_the_file_themselves(tmp_path, write):
    values = picture()
    raster = open_raster(write(tmp_path, values[0]))
    raster.read(Tile(0, 0, 4, 4))  # the parent has it open before the fork
    loader = DataLoader(
        Squares(raster), batch_size=2, num_workers=2, multiprocessing_context="fork", timeout=30
    )
    processes = set()
    for batch, (squares, pids) in enumerate(loader):
        processes |= set(pids.tolist())
        for square, index in zip(squares, (2 * batch, 2 * batch + 1), strict=True):
            expected = values[:, index : index + 16, 2 * index : 2 * index + 16]
            np.testing.assert_array_equal(square, expected)
    assert len(processes) == 2
    assert os.getpid() not in processes


@pytest.mark.slow
def test_spawned_workers_open_the_file_themselves(tmp_path):
    values = picture()
    raster = open_raster(write_hdf5(tmp_path, values[0]))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        squares = pool.map(raster.read, [Tile(index, 0, 8, 8) for index in range(6)])
    for index, square in enumerate(squares):
        np.testing.assert_array_equal(square, values[:, index : index + 8, :8])


def test_a_handle_of_another_process_is_not_used(tmp_path):
    raster = open_raster(write_hdf5(tmp_path, picture()[0]))
    assert isinstance(raster, Hdf5Raster)
    first = raster.handle
    assert raster.handle is first
    raster._process = os.getpid() + 1  # as a forked child sees it
    assert raster.handle is not first
    assert not first  # h5py: a closed data set is false
    raster.close()
    assert raster.read(Tile(0, 0, 2, 2)).shape == (1, 2, 2)


# ---- FITS ----


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


# ---- sources ----


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
    assert isinstance(open_raster(write_tiff(tmp_path, picture()[0])), MappedRaster)


def bad_sources(path: Path):
    (path / "text.fits").write_text("hello")
    (path / "map.fits.gz").write_bytes(b"\x1f\x8b123")
    (path / "zipped.fits").write_bytes(b"\x1f\x8b123")
    (path / "text.npy").write_text("hello")
    (path / "text.h5").write_text("hello")
    (path / "text.tif").write_text("hello")
    (path / "folder.fits").mkdir()
    (path / "empty.zarr").mkdir()
    fits.writeto(path / "line.fits", np.zeros(5))
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
        ("zipped.fits", "is compressed as a whole: unpack it first"),
        ("line.fits", r"has shape \(5,\), an image is \(height, width\)"),
        ("hyper.fits", r"has shape \(2, 2, 5, 5\)"),
        ("empty.fits", "has no image: its HDUs are 0 PRIMARY"),
        ("text.npy", "is not a NumPy file"),
        ("complex.npy", "holds values of type complex128"),
        ("object.npy", "holds values of type object"),
        ("none.npy", "needs at least one pixel"),
        ("cut.npy", "is truncated, 8 bytes are missing"),
        ("complex.npy[1]", "holds a single array: remove '1'"),
        ("map.npz", "which cannot be mapped: save it with numpy.save"),
        ("map.jpg", "has no known image format: its name must end in .fits, "),
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


# ---- write_map ----

CELESTIAL = {
    "CTYPE1": "GLON-CAR",
    "CTYPE2": "GLAT-CAR",
    "CRVAL1": 49.5,
    "CRVAL2": 0.0,
    "CRPIX1": 65.5,
    "CRPIX2": 45.0,
    "CDELT1": -0.0032,
    "CDELT2": 0.0032,
    "CUNIT1": "deg",
    "BMAJ": 0.01,
    "PC1_2": 0.1,
}


def test_a_map_has_the_coordinates_of_the_image_it_was_made_from(tmp_path):
    header = fits.Header({**CELESTIAL, "WCSAXES": 3, "CTYPE3": "FREQ", "BUNIT": "cm-2"})
    fits.writeto(tmp_path / "cube.fits", picture(4), header)
    result = np.random.default_rng(4).random((HEIGHT, WIDTH), dtype=np.float32)
    written = write_map(tmp_path / "result", result, like=open_raster(tmp_path / "cube.fits"))
    assert written == tmp_path / "result.fits"
    with fits.open(written) as hdus:
        np.testing.assert_array_equal(hdus[0].data, result)
        assert {key: hdus[0].header[key] for key in CELESTIAL} == CELESTIAL
        assert hdus[0].header["WCSAXES"] == 2
        assert "CTYPE3" not in hdus[0].header
        assert "BUNIT" not in hdus[0].header  # a probability is no column density
    assert isinstance(open_raster(written), FitsRaster)


def test_a_map_like_an_array_is_a_numpy_file(tmp_path):
    result = np.zeros((3, 4), dtype=np.float32)
    written = write_map(tmp_path / "v1.2", result, like=ArrayRaster(result))
    assert written == tmp_path / "v1.2.npy"
    np.testing.assert_array_equal(np.load(written), result)
    assert write_map(tmp_path / "map.fits", result, like=ArrayRaster(result)).suffix == ".fits"


def test_a_map_that_cannot_be_written_leaves_the_earlier_one_whole(tmp_path, monkeypatch):
    result = np.zeros((3, 4), dtype=np.float32)
    written = write_map(tmp_path / "map.npy", result, like=ArrayRaster(result))

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(DataError, match=r"map.npy cannot be written: No space left on device"):
        write_map(written, result + 1, like=ArrayRaster(result))
    np.testing.assert_array_equal(np.load(written), result)
    assert [path.name for path in tmp_path.iterdir()] == ["map.npy"]


def test_a_map_of_another_shape_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"a map of shape \(2, 2\) does not fit an array"):
        write_map(
            tmp_path / "map", np.zeros((2, 2), np.float32), like=ArrayRaster(np.zeros((3, 4)))
        )


# ---- the real maps ----


def test_the_real_maps_read_as_astropy_reads_them(lis2_sample):
    for path in sorted(lis2_sample.glob("*.fits")):
        raster = open_raster(path)
        assert raster.shape == (1, 500, 500)
        expected = fits.getdata(path).astype(np.float32)
        np.testing.assert_array_equal(raster.read(Tile(0, 0, 500, 500))[0], expected)
