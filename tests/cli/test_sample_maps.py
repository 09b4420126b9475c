"""`lis2 sample`: the built-in image as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lis2_lightning.data import SyntheticDataset, TileDataset

Typed = Callable[..., tuple[int, str, str]]


def test_the_maps_are_the_built_in_image_with_coordinates(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from astropy.io import fits
    from astropy.wcs import WCS

    monkeypatch.chdir(tmp_path)
    code, out, _ = typed("sample", "maps", "--height", "96", "--width", "128", "--seed", "3")

    assert code == 0
    names = ["background", "image", "missing", "target"]
    assert sorted(p.name for p in Path("maps").iterdir()) == [f"sample_{n}.fits" for n in names]
    keys: dict[str, Any] = {"size": 32, "stride": 32}
    built_in = SyntheticDataset(height=96, width=128, seed=3, **keys)
    maps: dict[str, Any] = {name: f"maps/sample_{name}.fits" for name in names}
    tiles = TileDataset(**maps, **keys)
    assert tiles.tiles == built_in.tiles
    for index in range(len(built_in)):
        for key in ("patch", "target", "labelled"):
            assert np.array_equal(tiles[index][key], built_in[index][key])
    wcs = WCS(fits.getheader("maps/sample_image.fits"))
    centre = wcs.pixel_to_world(63.5, 47.5)
    assert centre.galactic.l.deg == pytest.approx(30)
    assert centre.galactic.b.deg == pytest.approx(0)
    # what it tells to type next works as it is
    (command,) = [line.partition(": lis2 ")[2] for line in out.splitlines() if ": lis2 " in line]
    assert typed(*command.split())[0] == 0
    assert Path("lis2.yaml").is_file()


def test_a_map_that_exists_stays(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "sample_target.fits").write_text("mine")
    code, _, err = typed("sample", tmp_path)
    assert code == 2
    assert err.splitlines()[-1].endswith("exists already: delete it, or choose another folder")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_side_that_is_too_short_leaves_no_folder(typed: Typed, tmp_path: Path) -> None:
    code, _, err = typed("sample", tmp_path / "maps", "--height", "20")
    assert code == 2
    assert "at least 32 px" in err
    assert not (tmp_path / "maps").exists()
