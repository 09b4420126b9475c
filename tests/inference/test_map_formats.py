"""Maps in every format, read back by its own library and by ours."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.io import fits  # noqa: TID253 - the reference
from astropy.wcs import WCS  # noqa: TID253 - the reference

from lis2_lightning.data import open_raster
from lis2_lightning.data.rasters.packing import Packing
from lis2_lightning.errors import ConfigError
from lis2_lightning.inference.map_files import as_bytes
from lis2_lightning.inference.map_formats import check_format, new_map, num_bytes
from lis2_lightning.inference.written import NewMap
from lis2_lightning.tiling import Tile

HEIGHT, WIDTH = 300, 1100
BYTES = Packing((255,), 1 / 254)
FITS = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 83.6, "CRVAL2": 22.0,
        "CRPIX1": 65.5, "CRPIX2": 45.0, "CUNIT1": "deg", "CUNIT2": "deg"}  # fmt: skip
ROTATED = {"CD1_1": -9e-4, "CD1_2": 3e-4, "CD2_1": 2e-4, "CD2_2": 1e-3}
SPECTRAL = {"CTYPE3": "FREQ", "CRVAL3": 1.4e9, "CRPIX3": 2.0, "CDELT3": 1e6, "CUNIT3": "Hz",
            "PC1_2": 0.1, "CDELT1": -1e-3, "CDELT2": 1e-3, "RESTFRQ": 1.42e9}  # fmt: skip

pytestmark = [
    # rasterio says of a plain TIFF that it has no position, astropy of a plane that its position
    # has more axes than its pixels: both are right
    pytest.mark.filterwarnings("ignore:Dataset has no geotransform"),
    pytest.mark.filterwarnings("ignore:The WCS transformation has more axes"),
]


def probabilities(channels):
    values = np.random.default_rng(1).random((channels, HEIGHT, WIDTH), dtype=np.float32)
    values[:, 10:40, 20:900] = np.nan
    return values if channels > 1 else values[0]


def write(path, values, *, rows=70, **others):
    with new_map(path, NewMap(values.shape, values.dtype, **others)) as add:
        for top in range(0, values.shape[-2], rows):
            add(top, values[..., top : top + rows, :])


def in_its_own_library(path):
    if path.suffix == ".fits":
        return fits.getdata(path)
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".tif":
        rasterio = pytest.importorskip("rasterio")
        with rasterio.open(path) as file:
            values = file.read(masked=True).astype("f8")
            values = values * file.scales[0] + file.offsets[0]
            return values.filled(np.nan).squeeze()
    if path.suffix == ".zarr":
        pixels = pytest.importorskip("zarr").open(path, mode="r")
        return by_attributes(pixels[...], pixels.attrs)
    with h5py.File(path) as file:
        return by_attributes(file["map"][...], file["map"].attrs)


def by_attributes(stored, attributes):
    values = stored * attributes.get("scale_factor", 1.0) + attributes.get("add_offset", 0.0)
    return np.where(stored == attributes.get("_FillValue", -1), np.nan, values)


def geotiff(path):
    rasterio = pytest.importorskip("rasterio")
    transform = rasterio.Affine(30, 1.5, 1e5, -2, -30, 5e6)
    options = {"height": HEIGHT, "width": WIDTH, "count": 1, "dtype": "uint8"}
    with rasterio.open(
        path, "w", driver="GTiff", crs="EPSG:32632", transform=transform, **options
    ) as file:
        file.write(np.ones((1, HEIGHT, WIDTH), np.uint8))
    return path


@pytest.mark.parametrize("like", ["nothing", "geotiff"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [(suffix, dtype) for suffix in (".fits", ".tif", ".zarr", ".h5") for dtype in ("f4", "u1")]
    + [(".npy", "f4")],  # it has no place for a scale
)
def test_a_map_is_read_back_with_its_gaps(tmp_path, suffix, channels, dtype, like):
    source = open_raster(geotiff(tmp_path / "source.tif")) if like == "geotiff" else None
    path, values = tmp_path / f"map{suffix}", probabilities(channels)
    check_format(path, channels=channels, like=source)
    is_bytes = dtype == "u1"
    stored = as_bytes(values) if is_bytes else values
    write(path, stored, like=source, packing=BYTES if is_bytes else Packing())
    tolerance = 0.501 / 254 if is_bytes else 0
    ours = open_raster(path).read(Tile(0, 0, HEIGHT, WIDTH)).reshape(values.shape)
    for actual in (ours, in_its_own_library(path)):
        np.testing.assert_allclose(actual, values, rtol=0, atol=tolerance)
    files = [file for file in [path, *path.rglob("*")] if file.is_file()]
    most = num_bytes(path, shape=stored.shape, dtype=stored.dtype)
    assert sum(file.stat().st_size for file in files) <= most


SIP = {"A_ORDER": 2, "A_2_0": 1e-6, "B_ORDER": 2, "B_0_2": -2e-6}


@pytest.mark.parametrize(
    ("cards", "shape", "inside"),
    [
        ({**FITS, **ROTATED}, (HEIGHT, WIDTH), ""),
        ({**FITS, **ROTATED, **SIP, "CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP"},
         (HEIGHT, WIDTH), ""),
        ({**FITS, **SPECTRAL}, (4, HEIGHT, WIDTH), "[0][3]"),
        ({**FITS, **SPECTRAL}, (1, HEIGHT, WIDTH), ""),
        ({**FITS, **SPECTRAL, "CTYPE4": "STOKES", "CRVAL4": 1.0, "CRPIX4": 1.0, "CDELT4": 1.0},
         (1, 4, HEIGHT, WIDTH), "[0][0, 2]"),
    ],
    ids=["rotated", "sip", "plane", "degenerate", "hypercube"],
)  # fmt: skip
def test_every_axis_of_a_fits_map_is_where_it_is_in_the_source(tmp_path, cards, shape, inside):
    source = tmp_path / "source.fits"
    fits.writeto(source, np.zeros(shape, np.uint8), fits.Header(cards))
    write(tmp_path / "map.fits", probabilities(1), like=open_raster(f"{source}{inside}"))
    theirs, ours = (WCS(fits.getheader(p)) for p in (source, tmp_path / "map.fits"))
    assert ours.naxis == theirs.naxis
    planes = {"[0][3]": (3,), "[0][0, 2]": (2, 0)}.get(inside, (0,) * (theirs.naxis - 2))
    for x, y in [(0, 0), (WIDTH - 1, 0), (17.25, 211.5), (WIDTH - 1, HEIGHT - 1)]:
        expected = theirs.all_pix2world([[x, y, *planes]], 0)
        actual = ours.all_pix2world([[x, y, *(0 for _ in planes)]], 0)
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-9)


def test_an_axis_of_channels_has_no_position_in_a_map(tmp_path):
    fits.writeto(
        tmp_path / "cube.fits",
        np.zeros((4, HEIGHT, WIDTH), "u1"),
        fits.Header(FITS | SPECTRAL | {"BUNIT": "cm-2"}),
    )
    cube = open_raster(tmp_path / "cube.fits")
    for channels in (1, 3):
        write(tmp_path / "map.fits", probabilities(channels), like=cube)
        header = fits.getheader(tmp_path / "map.fits")
        assert not {"CTYPE3", "BUNIT"} & set(header)  # a probability is no column density
        theirs = WCS(fits.getheader(tmp_path / "cube.fits")).celestial
        actual = WCS(header).celestial.all_pix2world([[17.0, 33.0]], 0)
        np.testing.assert_allclose(actual, theirs.all_pix2world([[17.0, 33.0]], 0), atol=1e-9)


def test_the_packing_of_the_source_is_not_that_of_the_map(tmp_path):
    hdu = fits.PrimaryHDU(np.zeros((HEIGHT, WIDTH), "i2"), fits.Header(FITS))
    hdu.header.update({"BLANK": -1, "BSCALE": 3.0, "BZERO": 7.0})
    hdu.writeto(tmp_path / "source.fits")
    write(tmp_path / "map.fits", probabilities(1), like=open_raster(tmp_path / "source.fits"))
    assert not {"BLANK", "BSCALE", "BZERO"} & set(fits.getheader(tmp_path / "map.fits"))


def test_a_geotiff_lies_where_its_source_lies(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    source = geotiff(tmp_path / "source.tif")
    facts = {"THRESH": (0.4, "a comment")}
    mask = (probabilities(1) > 0.4).astype(np.uint8)
    write(
        tmp_path / "mask.tif", mask, like=open_raster(source), facts=facts, packing=Packing((255,))
    )
    with rasterio.open(source) as theirs, rasterio.open(tmp_path / "mask.tif") as ours:
        assert ours.crs == theirs.crs
        np.testing.assert_allclose(ours.transform, theirs.transform, rtol=0, atol=1e-9)
        assert ours.nodata == 255
        assert ours.tags()["THRESH"] == "0.4"
        assert ours.profile["tiled"]
        assert ours.compression.name == "deflate"
        np.testing.assert_array_equal(ours.read(1), mask)


@pytest.mark.parametrize("suffix", [".fits", ".tif", ".zarr", ".h5", ".npy"])
@pytest.mark.parametrize("exists", [False, True])
def test_an_error_in_the_middle_leaves_what_was_there(tmp_path, suffix, exists):
    path, values = tmp_path / f"map{suffix}", probabilities(1)
    if exists:
        write(path, values)

    def stopped():
        with new_map(path, NewMap(values.shape, values.dtype)) as add:
            add(0, values[:70] * 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert [entry.name for entry in tmp_path.iterdir()] == ([path.name] if exists else [])
    if exists:
        np.testing.assert_array_equal(open_raster(path).read(Tile(0, 0, HEIGHT, WIDTH))[0], values)


@pytest.mark.parametrize(
    ("name", "message"),
    [("map.png", "its name must end in .fits or"), ("notes.zarr", "a folder that holds no Zarr")],
)
def test_what_cannot_be_written_is_refused(tmp_path, name, message):
    (tmp_path / "notes.zarr").mkdir()
    with pytest.raises(ConfigError, match=message):
        check_format(tmp_path / name, channels=1, like=None)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("lis2_lightning.inference.map_formats.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r'needs zarr: pip install "lis2-lightning\[zarr\]"'):
        check_format(Path("map.zarr"), channels=1, like=None)


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_a_position_that_only_rasterio_reads_is_refused_without_it(tmp_path, monkeypatch, suffix):
    source = open_raster(geotiff(tmp_path / "source.tif"))
    monkeypatch.setattr(
        "lis2_lightning.inference.map_formats.find_spec", lambda name: name != "rasterio" or None
    )
    check_format(tmp_path / f"map{suffix}", channels=1, like=None)
    with pytest.raises(ConfigError, match=r'needs rasterio: pip install "lis2-lightning\[geo\]"'):
        check_format(tmp_path / f"map{suffix}", channels=1, like=source)


def test_what_hdf5_cannot_hold_of_the_attributes_of_a_zarr_image_is_text(tmp_path):
    zarr = pytest.importorskip("zarr")
    held = {"grid_mapping": "crs", "flag_values": [0, 1]}
    texts = {
        "nothing": None, "nested": {"levels": [{"path": "0"}]}, "mixed": [1, "x"],
        "ragged": [[1], [1, 2]], "large": [0.5] * 20_000, "nul": "x\0y", "huge": 2**70,
    }  # fmt: skip
    pixels = zarr.create_array(
        str(tmp_path / "image.zarr"), shape=(HEIGHT, WIDTH), dtype="f4",
        attributes={**held, **texts, "": "without a name"},
    )  # fmt: skip
    pixels[...] = 0
    write(tmp_path / "map.h5", probabilities(1), like=open_raster(tmp_path / "image.zarr"))
    with h5py.File(tmp_path / "map.h5") as file:
        attributes = dict(file["map"].attrs)
    assert {name: json.loads(attributes[name]) for name in texts} == texts
    assert attributes["grid_mapping"] == "crs"
    np.testing.assert_array_equal(attributes["flag_values"], [0, 1])
    assert attributes.keys() == held.keys() | texts.keys()


def anonymous_bytes():
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured on Linux")
@pytest.mark.parametrize("suffix", [".fits", ".tif", ".zarr", ".h5", ".npy"])
def test_a_large_map_is_never_in_memory(tmp_path, suffix):
    source = open_raster(geotiff(tmp_path / "source.tif"))
    shape, band = (8192, 16384), np.random.default_rng(2).random((256, 16384), dtype=np.float32)
    before, most = anonymous_bytes(), 0
    path = tmp_path / f"map{suffix}"
    with new_map(path, NewMap(shape, band.dtype, source)) as add:
        for top in range(0, shape[0], 256):
            add(top, band)
            most = max(most, anonymous_bytes())
    assert most - before < 300e6  # the map has 537 MB


def test_the_real_map_keeps_its_position(tmp_path, lis2_sample):
    source = lis2_sample / "sample_image.fits"
    write(tmp_path / "map.fits", np.zeros((500, 500), np.float32), like=open_raster(source))
    corners = [[0, 0], [499, 0], [0, 499], [499, 499]]
    theirs, ours = (WCS(fits.getheader(path), naxis=2) for path in (source, tmp_path / "map.fits"))
    expected = theirs.all_pix2world(corners, 0)
    np.testing.assert_allclose(ours.all_pix2world(corners, 0), expected, rtol=0, atol=1e-9)
