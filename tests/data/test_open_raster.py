from __future__ import annotations

import multiprocessing
import os
import pickle  # noqa: TID251 - rasters cross process borders this way
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from lis2_lightning.data.open_raster import Raster, open_raster
from lis2_lightning.data.rasters.contract import LazyArray
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
def test_every_format_gives_the_array_and_its_slices_back(tmp_path, write, channels):
    values = picture(channels)
    raster = open_raster(write(tmp_path, values if channels > 1 else values[0]))
    assert isinstance(raster, Raster)
    assert raster.shape == values.shape
    read = raster.read(Tile(0, 0, HEIGHT, WIDTH))
    assert read.dtype == np.float32
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, values)
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
    for outside in (-1, 87):
        with pytest.raises(DataError, match="are not inside it"):
            raster.read_many(np.array([0, outside]), np.array([0, 0]), 4)


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


@pytest.mark.parametrize("name", ["image.npy", "image.h5"])
def test_an_index_reads_what_it_would_select_of_the_array(name: str, tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((2, 9, 11), dtype=np.float32)
    np.save(tmp_path / "image.npy", image)
    with h5py.File(tmp_path / "image.h5", "w") as file:
        file["image"] = image
    raster = cast("LazyArray", open_raster(tmp_path / name))
    np.testing.assert_array_equal(np.asarray(raster), image)
    assert np.asarray(raster, dtype=np.float64).dtype == np.float64
    indices: list[Any] = [
        0,
        -1,
        slice(1, None),
        (1, 3),
        (0, 3, -2),
        (slice(None), slice(2, 7, 2), slice(None, None, -3)),
        (0, slice(-3, None), 5),
        (slice(None), slice(4, 4), slice(3)),
        (Ellipsis,),
    ]
    for index in indices:
        np.testing.assert_array_equal(raster[index], image[index])
    with pytest.raises(IndexError):
        raster[0, 9]


@pytest.mark.parametrize(
    "index", [np.s_[..., 3:7], np.s_[..., 2, :], np.s_[0, ..., 5], np.s_[...], np.s_[:, 1, ..., 4]]
)
def test_an_ellipsis_stands_for_the_axes_between(tmp_path, index):
    values = np.random.default_rng(0).random((2, 9, 12), np.float32)
    np.save(tmp_path / "map.npy", values)
    raster = cast("LazyArray", open_raster(tmp_path / "map.npy"))
    np.testing.assert_array_equal(raster[index], values[index])
    with pytest.raises(IndexError, match="three axes: channels, rows and columns"):
        raster[0, 1, 2, 3]
