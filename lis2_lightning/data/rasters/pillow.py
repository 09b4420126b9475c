"""PNG and JPEG images, which can only be decoded whole."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data.rasters.address import Address
from lis2_lightning.data.rasters.arrays import ArrayRaster
from lis2_lightning.data.rasters.contract import (
    OpenedLate,
    existing_file,
    optional_module,
    readable,
    select_image,
)
from lis2_lightning.errors import DataError

MOST_PIXELS = 2**28  # 16,384 x 16,384 px: beyond that, a format that is read in tiles is needed


class PictureRaster(OpenedLate, ArrayRaster):
    """A PNG or JPEG image; each process that reads it holds it whole.

    Grey images have one channel, colours are RGB, and transparency is one more channel.
    """

    def __init__(self, address: Address) -> None:
        self.source, self._path = address.source, address.path.absolute()
        with self._picture() as picture:
            mode, (width, height) = _mode(picture), picture.size
        if height * width > MOST_PIXELS:
            raise DataError(
                f"{self.source} has {height} x {width} px, which would be decoded at once: "
                f"convert it to a tiled TIFF"
            )
        shape = len(mode) if mode in {"LA", "RGB", "RGBA"} else 1, height, width
        self.shape, self._leading = select_image(shape, np.dtype("f4"), self.source, address.plane)

    def _picture(self) -> Any:
        with self._path.open("rb") as file:
            signature = file.read(8)
        if not signature.startswith((b"\x89PNG", b"\xff\xd8")):
            raise DataError(f"{self.source} is not a PNG or JPEG file: check its name")
        # PIL's own limit is a warning at first; ours is checked before anything is decoded
        reader = "PngImagePlugin" if signature.startswith(b"\x89PNG") else "JpegImagePlugin"
        module = optional_module(f"PIL.{reader}", self._path, "geo")
        return getattr(module, reader.replace("Plugin", "File"))(self._path)

    def open(self) -> NDArray[Any]:
        """Decode the image."""
        with readable(self.source), self._picture() as picture:
            mode = _mode(picture)
            pixels = np.asarray(picture if picture.mode == mode else picture.convert(mode))
            planes = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
            return planes[self._leading].reshape(self.shape)


def _mode(picture: Any) -> str:
    """How PIL is asked for the pixels: a palette becomes its colours, CMYK becomes RGB."""
    if picture.mode in {"P", "PA"}:
        return "RGBA" if "transparency" in picture.info or picture.mode == "PA" else "RGB"
    return "RGB" if picture.mode in {"CMYK", "YCbCr"} else str(picture.mode)


def open_picture(address: Address) -> PictureRaster:
    """Open a PNG or JPEG image."""
    existing_file(address.path)
    if address.which is not None:
        raise DataError(f"{address.path} holds a single image: remove {address.which!r}")
    return PictureRaster(address)
