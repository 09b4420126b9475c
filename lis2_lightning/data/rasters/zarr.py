"""Zarr images, read chunk by chunk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.data.rasters.address import Address
from lis2_lightning.data.rasters.blocks import BlockRaster
from lis2_lightning.data.rasters.contract import optional_module
from lis2_lightning.data.rasters.packing import Packing
from lis2_lightning.errors import DataError, did_you_mean, one_line


class ZarrRaster(BlockRaster):
    """A Zarr array, ``(H, W)`` or ``(C, H, W)``, on disk; its name is empty outside a group."""

    def __init__(self, address: Address, name: str, *, array: Any) -> None:
        super().__init__(
            array.shape,
            np.dtype(array.dtype),
            block=(1, *array.chunks),
            source=replace(address, which=name).source,
            plane=address.plane,
        )
        self._path, self._name = address.path.absolute(), name
        self.attributes = dict(array.attrs)
        self._packing = Packing.of(self.attributes)

    def open(self) -> Any:
        """Open the array in this process."""
        node = _open(self._path)
        return node[self._name] if self._name else node

    def read_block(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Read whole chunks."""
        stored = np.asarray(self.handle[(*self.leading, ..., rows, columns)])
        return self._packing.unpack(stored)


def open_zarr(address: Address) -> ZarrRaster:
    """Open a Zarr array by its name inside a group, or None if the folder is, or holds, one."""
    path, which = address.path, address.which
    if not path.is_dir():
        reason = (
            "is a file, a Zarr image is a folder: unpack it"
            if path.is_file()
            else ("does not exist: check the path of the image")
        )
        raise DataError(f"{path} {reason}")
    node = _open(path)
    arrays = _arrays(node)
    name = (which or "").strip("/")
    if which is None and "" not in arrays:
        name = next(iter(arrays)) if len(arrays) == 1 else _full_resolution(node.attrs)
    if name not in arrays:
        asked = f"no array {name!r}" if name else f"{len(arrays)} arrays and none was selected"
        raise DataError(
            f"{path} has {asked}: {did_you_mean(name, arrays)}, "
            f"written as in {path}:/{next(iter(arrays), '0')}"
        )
    return ZarrRaster(address, name, array=arrays[name])


def _full_resolution(attributes: Any) -> str:
    """The name of the first level of an OME-Zarr image, or nothing."""
    levels = attributes.get("ome", attributes).get("multiscales") or [{}]
    return str((levels[0].get("datasets") or [{"path": ""}])[0]["path"])


def _open(path: Path) -> Any:
    zarr = optional_module("zarr", path, "zarr")
    try:
        return zarr.open(path, mode="r")
    except (ValueError, OSError, KeyError) as error:
        raise DataError(
            f"{path} is damaged or not a Zarr array or group: {one_line(error)}"
        ) from error


def _arrays(node: Any) -> dict[str, Any]:
    """All arrays of a node by name; a node that is an array itself has the empty name."""
    import zarr

    if isinstance(node, zarr.Array):
        return {"": node}
    members = node.members(max_depth=None)
    return {name: item for name, item in members if isinstance(item, zarr.Array)}
