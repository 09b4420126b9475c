"""Maps as TIFF: GeoTIFF by rasterio where the source has a position on a globe, else plain."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data import Raster
from lis2_lightning.data.rasters.address import Address, file_of, parse_address
from lis2_lightning.inference.write_plain import write_numbers
from lis2_lightning.inference.written import NewMap, Write

_TILE: Final = 256
_CACHE: Final = 64 * 2**20  # bytes of tiles that GDAL keeps open, if a row of tiles fits in
_NODATA, _METADATA = 42113, 42112  # tags of GDAL


def may_be_georeferenced(like: Raster | None) -> bool:
    """Whether an image is a TIFF file, of whose position rasterio is to be asked."""
    if like is None:
        return False
    address = file_of(like.source)
    return address is not None and address.path.suffix.lower() in {".tif", ".tiff"}


def georeference(like: Raster | None) -> dict[str, Any]:
    """What rasterio says of the position of a TIFF image; nothing of other images.

    Ground control points are given as ``gcps``, a pair of points and their system.
    """
    if like is None or not may_be_georeferenced(like):
        return {}
    import rasterio

    address = parse_address(like.source)

    with (
        warnings.catch_warnings(action="ignore", category=rasterio.errors.NotGeoreferencedWarning),
        rasterio.open(_gdal_name(address)) as source,
    ):
        points, system = source.gcps
        placed = not source.transform.is_identity
        crs, transform = source.crs, source.transform
    if not placed and not points and crs is None:
        return {}
    position = {"crs": crs, "transform": transform if placed else None}
    return position | ({"gcps": (points, system)} if points else {})


def _gdal_name(address: Address) -> str:
    """The image in GDAL's words, where a file holds several."""
    if not address.which or address.which == "0":
        return str(address.path)
    import tifffile

    with tifffile.TiffFile(address.path) as file:
        page = file.series[int(address.which)].keyframe.index
    return f"GTIFF_DIR:{page + 1}:{address.path}"


@contextmanager
def write_geotiff(path: Path, new: NewMap) -> Iterator[Write]:
    """Write a tiled, deflated GeoTIFF with the position of the source."""
    import rasterio
    from rasterio.windows import Window

    channels, height, width = new.planes
    position = georeference(new.like)
    points, system = position.pop("gcps", ((), None))
    row_of_tiles = channels * _TILE * math.ceil(width / _TILE) * _TILE * new.dtype.itemsize
    options = {
        "driver": "GTiff", "count": channels, "height": height, "width": width,
        "dtype": new.dtype.name, "nodata": math.nan if new.dtype.kind == "f" else new.gap,
        "tiled": True, "blockxsize": _TILE, "blockysize": _TILE, "compress": "deflate",
        "interleave": "band", "BIGTIFF": "IF_SAFER",
    }  # fmt: skip
    with (
        rasterio.Env(GDAL_CACHEMAX=max(_CACHE, 2 * row_of_tiles)),
        warnings.catch_warnings(action="ignore", category=rasterio.errors.NotGeoreferencedWarning),
        rasterio.open(path, "w", **options, **position) as file,
    ):
        if points:
            file.gcps = points, system
        file.update_tags(**new.values)
        if new.packing.is_scaled:
            file.scales = (new.packing.scale,) * channels
            file.offsets = (new.packing.offset,) * channels

        def write(top: int, band: NDArray[Any]) -> None:
            planes = np.asarray(band, dtype=new.dtype).reshape(channels, -1, width)
            file.write(planes, window=Window(0, top, width, planes.shape[1]))

        yield write


@contextmanager
def write_tiff(path: Path, new: NewMap) -> Iterator[Write]:
    """Write an uncompressed TIFF with GDAL's tags for what its numbers mean."""
    import tifffile

    tags: list[tuple[int, str, int, str, bool]] = []
    if new.gap is not None or new.dtype.kind == "f":
        gap = "nan" if new.gap is None else str(new.gap)
        tags.append((_NODATA, "s", 0, gap, True))
    if metadata := _metadata(new):
        tags.append((_METADATA, "s", 0, metadata, True))
    # bands of one page, because GDAL reads the first page only
    bands: dict[str, Any] = {"planarconfig": "separate"} if len(new.shape) > 2 else {}
    pixels = tifffile.memmap(
        path, shape=new.shape, dtype=new.dtype, photometric="minisblack", metadata=None,
        extratags=tags, **bands,
    )  # fmt: skip
    start = pixels.offset
    del pixels
    with write_numbers(path, start, new.shape, new.dtype) as write:
        yield write


def _metadata(new: NewMap) -> str:
    """GDAL's metadata as it writes them into a tag; nothing if there are none."""
    items = [_item(name, value) for name, value in new.values.items()]
    if new.packing.is_scaled:
        for band in range(new.planes[0]):
            roles: Mapping[str, float] = {
                "offset": new.packing.offset,
                "scale": new.packing.scale,
            }
            for role, value in roles.items():
                place = f' sample="{band}" role="{role}"'
                items.append(_item(role.upper(), value, place))
    return f"<GDALMetadata>{''.join(items)}</GDALMetadata>" if items else ""


def _item(name: str, value: object, place: str = "") -> str:
    return f'<Item name="{name}"{place}>{escape(str(value))}</Item>'
