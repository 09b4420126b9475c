"""The built-in image as FITS maps, named as LIS2 names those that it publishes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from lis2_lightning.base.files import written
from lis2_lightning.data import SyntheticDataset
from lis2_lightning.errors import ConfigError

_NAMES: Final = ("image", "target", "background", "missing")
_PX_DEG: Final = 11.5 / 3600  # side of a pixel of the column density maps that LIS2 was made for


def write(folder: Path, height: int, width: int, seed: int) -> dict[str, Path]:
    """Write the maps of a synthetic field, with a made-up place on the galactic plane.

    Args:
        folder: Where they are written; it is created.
        height: Height of the field, px.
        width: Width of the field, px.
        seed: Decides the field.

    Returns:
        The path of each map by its name.

    Raises:
        ConfigError: One of the files is there already, or a side is too short.
    """
    from astropy.io import fits

    paths = {name: folder / f"sample_{name}.fits" for name in _NAMES}
    for path in paths.values():
        if path.exists():
            raise ConfigError(f"{path} exists already: delete it, or choose another folder")
    maps = SyntheticDataset(height=height, width=width, seed=seed).maps
    for name, path in paths.items():
        header = fits.Header()
        header.update(_cards(height, width))
        if name == "image":
            header["BUNIT"] = "cm-2"
        with written(path) as file:
            fits.PrimaryHDU(getattr(maps, name), header).writeto(file)
    return paths


def _cards(height: int, width: int) -> dict[str, Any]:
    return {
        "OBJECT": ("synthetic", "drawn by lis2 sample: nothing in the sky"),
        "CTYPE1": "GLON-CAR",
        "CTYPE2": "GLAT-CAR",
        "CRPIX1": (width + 1) / 2,
        "CRPIX2": (height + 1) / 2,
        "CRVAL1": 30.0,
        "CRVAL2": 0.0,
        "CDELT1": -_PX_DEG,
        "CDELT2": _PX_DEG,
        "CUNIT1": "deg",
        "CUNIT2": "deg",
    }
