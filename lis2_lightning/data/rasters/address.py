"""How an image inside a file is written: ``PATH[:inside][[ext]][plane]``.

``inside`` names an array of an HDF5 file, a Zarr group or an ``.npz`` archive, ``[ext]`` an image
of a FITS or TIFF file, and ``[plane]`` the indices, from 0, of the first axes of a cube.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lis2_lightning.errors import DataError

NAMED = "h5|hdf5|hdf|zarr|npz"
NUMBERED = {".fits", ".fit", ".fts", ".fz", ".tif", ".tiff"}
BRACKET = re.compile(r"(.+)\[([^\[\]]+)\]")
INSIDE = re.compile(rf"(.+?\.(?:{NAMED})):(.+)", re.IGNORECASE)
PLANE = re.compile(r"\s*\d+\s*(,\s*\d+\s*)*")


@dataclass(frozen=True)
class Address:
    """A file, what is read in it, and the plane of that."""

    path: Path
    which: str | None = None
    plane: tuple[int, ...] = ()

    @property
    def image(self) -> str:
        """The image without its plane, as it is written; a plane can be added to it."""
        if self.path.suffix.lower() in NUMBERED:
            return f"{self.path}[{self.which or 0}]" if self.which or self.plane else str(self.path)
        return f"{self.path}:/{self.which.strip('/')}" if self.which else str(self.path)

    @property
    def source(self) -> str:
        """The whole address, as it is written."""
        plane = ", ".join(map(str, self.plane))
        return f"{self.image}[{plane}]" if plane else self.image


def parse_address(source: str) -> Address:
    """Split a source into the file, the image inside it and its plane.

    A file whose name is the whole text is that file, whatever brackets or colons the name has.

    Raises:
        DataError: What is in the brackets is no plane.

    >>> parse_address("maps/map.fits[SCI][3]")
    Address(path=PosixPath('maps/map.fits'), which='SCI', plane=(3,))
    >>> parse_address("stack.zarr:/0/0[2, 1]")
    Address(path=PosixPath('stack.zarr'), which='/0/0', plane=(2, 1))
    """
    path = Path(source).expanduser()
    brackets: list[str] = []
    while not path.exists() and len(brackets) < 2 and (match := BRACKET.fullmatch(str(path))):
        path = Path(match[1])
        brackets.insert(0, match[2])
    which = None
    if not path.exists() and (match := INSIDE.fullmatch(str(path))):
        path, which = Path(match[1]), match[2]
    path, which = _inside_a_group(path, which)
    if path.suffix.lower() in NUMBERED and brackets:
        which = brackets.pop(0)
    if len(brackets) > 1 or (brackets and not PLANE.fullmatch(brackets[0])):
        raise DataError(
            f"{source} names no plane: write its indices once, separated by commas, as in "
            f"{Address(path, which).source}[0]"
        )
    plane = tuple(int(index) for index in brackets[0].split(",")) if brackets else ()
    return Address(path, which, plane)


def file_of(source: str) -> Address | None:
    """The address of a source that is a file; a raster of one's own may have any text as its."""
    try:
        address = parse_address(source)
    except DataError:
        return None
    return address if address.path.exists() else None


def _inside_a_group(path: Path, which: str | None) -> tuple[Path, str | None]:
    """Split ``m.zarr/0`` as ``m.zarr:/0``: Zarr's own tools write the former."""
    for folder in path.parents:
        if which is None and folder.suffix.lower() == ".zarr":
            return folder, path.relative_to(folder).as_posix()
    return path, which
