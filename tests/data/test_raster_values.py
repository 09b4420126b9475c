"""What the values of an image are, in each way of storing it."""

from __future__ import annotations

import pickle  # noqa: TID251 - data sets cross process borders this way
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from lis2_lightning.data.open_raster import open_raster
from lis2_lightning.errors import DataError
from lis2_lightning.tiling.grid import Tile

fits = pytest.importorskip("astropy.io.fits")
image_module = pytest.importorskip("PIL.Image")
tifffile = pytest.importorskip("tifffile")
zarr = pytest.importorskip("zarr")


def pixels(source):
    raster = open_raster(source)
    return raster.read(Tile(0, 0, *raster.shape[1:]))


def test_a_packed_camera_image_has_the_counts_of_the_camera(tmp_path):
    counts = np.random.default_rng(0).integers(0, 65536, (48, 60)).astype("u2")
    packed = fits.CompImageHDU(counts, compression_type="RICE_1")
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(tmp_path / "map.fits.fz")
    np.testing.assert_array_equal(pixels(tmp_path / "map.fits.fz")[0], counts)


def test_a_blank_pixel_of_a_packed_image_is_no_value(tmp_path):
    packed = fits.CompImageHDU(np.arange(48 * 60, dtype="i2").reshape(48, 60))
    packed.header["BLANK"] = 5
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(tmp_path / "map.fits")
    read = pixels(tmp_path / "map.fits")[0]
    assert np.isnan(read[0, 5])
    assert np.isnan(read).sum() == 1


@pytest.mark.parametrize("tiled", [False, True])
def test_nodata_of_a_geotiff_is_no_value(tmp_path, tiled):
    values = np.arange(48 * 64, dtype="f4").reshape(48, 64)
    values[:5] = np.float32(-3.4028234663852886e38)
    layout = {"tile": (16, 16), "compression": "zlib"} if tiled else {}
    tag = (42113, "s", 0, "-3.40282346639e+38", True)
    tifffile.imwrite(tmp_path / "map.tif", values, extratags=[tag], **layout)
    read = pixels(tmp_path / "map.tif")[0]
    assert np.isnan(read[:5]).all()
    np.testing.assert_array_equal(read[5:], values[5:])


@pytest.mark.parametrize("compression", ["lzw", "zstd"])
def test_the_compressions_of_gdal_are_read(tmp_path, compression):
    pytest.importorskip("imagecodecs")
    values = np.arange(48 * 64, dtype="u2").reshape(48, 64)
    tifffile.imwrite(tmp_path / "map.tif", values, compression=compression, predictor=True)
    np.testing.assert_array_equal(pixels(tmp_path / "map.tif")[0], values)


def test_a_plane_of_a_cube_is_picked_by_its_indices(tmp_path):
    cube = np.arange(3 * 2 * 20 * 24, dtype="f4").reshape(3, 2, 20, 24)
    fits.writeto(tmp_path / "a.fits", cube[:, 0])
    np.save(tmp_path / "a.npy", cube)
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("0/0", shape=cube.shape, chunks=(1, 1, 8, 8), dtype="f4")[...] = cube
    group.create_array("labels", shape=(2, 2), dtype="f4")
    np.testing.assert_array_equal(pixels(tmp_path / "a.fits[0][2]")[0], cube[2, 0])
    np.testing.assert_array_equal(pixels(tmp_path / "a.npy[1]"), cube[1])
    np.testing.assert_array_equal(pixels(tmp_path / "a.zarr:/0/0[2, 1]")[0], cube[2, 1])
    np.testing.assert_array_equal(pixels(tmp_path / "a.zarr/0/0[2,1]")[0], cube[2, 1])
    with pytest.raises(DataError, match="no such plane"):
        pixels(tmp_path / "a.npy[3]")
    np.save(tmp_path / "b.npy", cube[:, :1])
    np.testing.assert_array_equal(pixels(tmp_path / "b.npy"), cube[:, 0])
    shutil.copy(tmp_path / "b.npy", tmp_path / "odd[1].npy")
    assert open_raster(tmp_path / "odd[1].npy").shape == (3, 20, 24)


def test_archives_and_pictures_are_read(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (3, 30, 40)).astype("u1")
    np.savez_compressed(tmp_path / "a.npz", sky=values, other=values[0])
    np.testing.assert_array_equal(pixels(tmp_path / "a.npz:sky"), values)
    image_module.fromarray(np.moveaxis(values, 0, -1)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), values)
    image_module.fromarray(values[0].astype("u2") * 200).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(pixels(tmp_path / "deep.png")[0], values[0].astype("u2") * 200)


def test_hdf5_files_do_not_lead_to_other_files(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(256))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.zeros((16, 16))
    layout = h5py.VirtualLayout((16, 16), "f8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (16, 16))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", (16, 16), "u1", external=[(str(tmp_path / "secret"), 0, 256)])
        file.create_virtual_dataset("virtual", layout)
        file["link"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
        file["null"] = h5py.Empty("f4")
        file["way"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/")
        file["soft"] = h5py.SoftLink("/link")
        file["circle"] = h5py.SoftLink("/circle")
        inner = h5py.VirtualLayout((16, 16), "u1")
        inner[:] = h5py.VirtualSource(".", "raw", (16, 16))
        file.create_virtual_dataset("inner", inner)
        file["values"] = np.arange(256).reshape(16, 16)
        file["good"] = h5py.SoftLink("/values")
    assert open_raster(f"{tmp_path / 'a.h5'}:/good").read(Tile(0, 0, 16, 16)).max() == 255
    for name, sentence in {
        "way/x": "is a link to another file",
        "soft": "is a link to another file",
        "circle": "has no data set 'circle'",
        "inner": "stored in other files .*secret",
        "raw": "stored in other files .*secret",
        "virtual": "stored in other files .*other.h5",
        "link": "is a link to another file",
        "null": "is an empty data set",
    }.items():
        with pytest.raises(DataError, match=sentence):
            open_raster(f"{tmp_path / 'a.h5'}:/{name}")


@pytest.mark.parametrize(
    "stored", [{}, {"tile": (16, 16), "compression": "zlib"}], ids=["plain", "tiled"]
)
@pytest.mark.parametrize("kind", ["f4", "u1"])
def test_what_the_mask_of_a_tiff_image_hides_is_nan(tmp_path, stored, kind):
    rng = np.random.default_rng(0)
    values = rng.integers(1, 200, (2, 40, 50)).astype(kind)
    seen = rng.random((40, 50)) < 0.7
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(values[0], **stored)
        file.write(seen, subfiletype=4, photometric=4, **stored)
        file.write(values[1], **stored)
    raster = open_raster(tmp_path / "a.tif")
    np.testing.assert_array_equal(pixels(raster)[0], np.where(seen, values[0], np.nan))
    corners = np.array([3, 20]), np.array([30, 7])
    for square, top, left in zip(raster.read_many(*corners, 16), *corners, strict=True):
        np.testing.assert_array_equal(square, raster.read(Tile(top, left, 16, 16)))
    again = pickle.loads(pickle.dumps(raster))  # noqa: S301 - as workers get it
    np.testing.assert_array_equal(pixels(again), pixels(raster))


def tiny(path: Path) -> list[Path]:
    values = np.arange(20 * 24, dtype="u2").reshape(20, 24)
    np.save(path / "a.npy", values)
    np.savez(path / "a.npz", values)
    fits.writeto(path / "a.fits", values)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(values)]).writeto(path / "b.fits")
    tifffile.imwrite(path / "a.tif", values, tile=(16, 16), compression="zlib")
    image_module.fromarray(values).save(path / "a.png")
    with h5py.File(path / "a.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=(8, 8), compression="gzip")
    for version in (2, 3):
        folder = path / f"v{version}.zarr"
        zarr.create_array(folder, data=values, chunks=(16, 16), zarr_format=version)
    return sorted(file for file in path.rglob("*") if file.is_file())


# astropy leaves the file to the garbage collector where a header cannot be parsed
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("count", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_a_damaged_file_gives_values_or_a_sentence(tmp_path, count):
    rng = np.random.default_rng(count)
    unnamed = []
    for file in tiny(tmp_path):
        whole = file.read_bytes()
        opened = next((place for place in file.parents if place.suffix == ".zarr"), file)
        for index in range(count):
            damaged = bytearray(whole)
            if index % 4 == 0:
                del damaged[rng.integers(len(whole)) :]
            else:
                damaged[rng.integers(min(len(whole), 4000))] ^= 1 << rng.integers(8)
            file.write_bytes(damaged)
            try:
                raster = open_raster(opened)
                raster.read(Tile(0, 0, min(raster.shape[1], 64), min(raster.shape[2], 64)))
            except DataError as error:
                unnamed += [] if opened.name in str(error) else [str(error)]
        file.write_bytes(whole)
    assert not unnamed
