"""The files of a map: what is refused, what is put back, and what their headers say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import pytest
from astropy.io import fits  # noqa: TID253 - the reference

from lis2_lightning import ConfigError
from lis2_lightning.base.files import _beside
from lis2_lightning.inference.map_files import MapFiles, MapRequest
from lis2_lightning.inference.scratch import RowsInMemory

SHAPE = (1, 3, 4)


def written(folder: Path, output: str, mask: str, snapshot: str | None) -> tuple[Path, Path]:
    """A map and a mask of three rows."""
    request = MapRequest(output=folder / output, mask=folder / mask)
    MapFiles(request, SHAPE, None).write(RowsInMemory(SHAPE), 0.4, snapshot)
    return folder / output, folder / mask


def test_the_headers_name_the_snapshot_and_the_threshold(tmp_path: Path) -> None:
    map_, mask = written(tmp_path, "map.fits", "mask.h5", "best.pt")
    assert fits.getheader(map_)["SNAPSHOT"] == "best.pt"
    assert "THRESH" not in fits.getheader(map_)
    with h5py.File(mask) as file:
        attributes = file["map"].attrs
        assert (attributes["SNAPSHOT"], attributes["THRESH"]) == ("best.pt", 0.4)


def test_without_a_snapshot_the_headers_name_none(tmp_path: Path) -> None:
    for path in written(tmp_path, "map.fits", "mask.fits", None):
        assert "SNAPSHOT" not in fits.getheader(path)


@pytest.mark.parametrize("suffix", [".fits", ".tif", ".zarr", ".h5", ".npy"])
def test_any_name_of_a_snapshot_can_be_written(suffix: str, tmp_path: Path) -> None:
    name = f"n\u00e4chste\n{'lang' * 50} 'quoted'.pt"
    map_, _ = written(tmp_path, f"map{suffix}", f"mask{suffix}", name)
    if suffix == ".fits":
        assert fits.getheader(map_)["SNAPSHOT"] == ascii(name)[1:-1]


@pytest.mark.parametrize("name", ["map.npy", "map.NPY", "map.fits"])
def test_bytes_need_a_format_that_holds_their_scale(name: str) -> None:
    keys: dict[str, Any] = {"output": Path(name), "dtype": "uint8"}
    if name == "map.fits":
        assert MapRequest(**keys).paths == [Path(name)]
    else:
        with pytest.raises(ConfigError, match=r"choose \.fits, \.tif, \.zarr or \.h5"):
            MapRequest(**keys)


def test_what_a_killed_process_left_of_these_files_is_put_in_order(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()

    def left(name: str, kind: str) -> Path:
        ours = _beside(tmp_path / name, kind)
        return ours.with_name(ours.name.replace(f".{os.getpid()}-", f".{dead.pid}-"))

    (left("map.zarr", "earlier") / "c").mkdir(parents=True)
    (left("map.zarr", "earlier") / "zarr.json").touch()
    left("mask.fits", "tmp").touch()
    left("other.fits", "tmp").touch()
    request = MapRequest(output=tmp_path / "map.zarr", mask=tmp_path / "mask.fits")
    with pytest.raises(ConfigError, match=r"map\.zarr exists already"):
        MapFiles(request, SHAPE, None)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [left("other.fits", "tmp").name, "map.zarr"]
    assert sorted(path.name for path in (tmp_path / "map.zarr").iterdir()) == ["c", "zarr.json"]
