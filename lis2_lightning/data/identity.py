"""What tells an image from another."""

from __future__ import annotations

import hashlib
from itertools import chain
from typing import Any, Final

from lis2_lightning.base.files import stats
from lis2_lightning.data.open_raster import Raster
from lis2_lightning.data.rasters.address import file_of
from lis2_lightning.tiling import Tile

_STRIP: Final = 256  # rows read at once


def identity(image: Raster) -> list[Any]:
    """What tells an image from another: of a file name, size and time, else all its pixels."""
    if (address := file_of(image.source)) is not None:
        stamps = (
            (str(name.absolute()), stat.st_size, stat.st_mtime_ns)
            for name, stat in stats(address.path)
        )
        return [image.source, *image.shape, *chain.from_iterable(stamps)]
    digest = hashlib.sha256()
    _, height, width = image.shape
    for top in range(0, height, _STRIP):
        digest.update(image.read(Tile(top, 0, min(_STRIP, height - top), width)).data)
    return [image.source, *image.shape, digest.hexdigest()]
