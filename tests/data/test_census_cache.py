"""Censuses of large images are kept, and remade where that is not the census of these files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lis2_lightning import Trainer
from lis2_lightning.data import TileDataset, census, census_cache
from lis2_lightning.data.census import Census
from tests.data.fields import maps

OPTIONS: dict[str, Any] = {"size": 8, "stride": 4, "area_size": 16, "num_folds": 2, "folds": [1]}


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[Census]:
    """The scans that are really made; nothing is remembered between two data sets."""
    made: list[Census] = []

    def count(*arguments: Any) -> Census:
        made.append(original(*arguments))
        return made[-1]

    original = census.count
    monkeypatch.setattr(census_cache, "count", count)
    monkeypatch.setattr(census_cache, "LEAST_PIXELS", 0)
    return made


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Any]:
    paths = {name: tmp_path / f"{name}.npy" for name in ("image", "target", "background")}
    for name, path in paths.items():
        np.save(path, maps()[name])
    return paths


def cut(folder: Path, paths: dict[str, Any], **changes: Any) -> TileDataset:
    """A data set as a new process would build it."""
    census_cache._recent.clear()
    with census_cache.censuses_in(folder / "kept"):
        return TileDataset(**{**paths, **OPTIONS, **changes})


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "kept").iterdir())


def test_a_second_data_set_of_the_same_files_is_not_scanned(tmp_path, paths, scans):
    first, second = cut(tmp_path, paths), cut(tmp_path, paths, folds=[1, 0], fold_seed=3)
    assert (len(scans), len(kept(tmp_path))) == (1, 1)
    for kept_one, plain in (
        (cut(tmp_path, paths), first),
        (second, TileDataset(**{**maps(), "missing": None, **OPTIONS, "folds": None})),
    ):
        assert kept_one.corners.tolist() == plain.corners.tolist()
        assert kept_one.num_without_data == plain.num_without_data > 0


def test_splits_that_are_cut_alike_are_scanned_once_without_a_folder(paths, scans):
    census_cache._recent.clear()
    for fold in (0, 1):
        TileDataset(**paths, **{**OPTIONS, "folds": [fold]})
    assert len(scans) == 1


@pytest.mark.parametrize(
    "changes", [{"size": 7}, {"stride": 3}, {"area_size": 20}, {"buffer": 2}, {"positive": [1]}]
)
def test_what_changes_the_counts_makes_another_census(tmp_path, paths, scans, changes):
    cut(tmp_path, paths)
    cut(tmp_path, paths, **changes)
    # a positive of 1 is what is meant without it, so that it changes nothing
    assert len(scans) == (1 if "positive" in changes else 2)


def test_a_file_that_has_changed_is_scanned_again(tmp_path, paths, scans):
    cut(tmp_path, paths)
    target = np.zeros_like(maps()["target"])
    target[40:60, 20:60] = 1
    np.save(paths["target"], target)
    os.utime(paths["target"], ns=(1, 1))
    again = cut(tmp_path, paths)
    assert len(scans) == 2
    plain = TileDataset(maps()["image"], target=target, background=maps()["background"], **OPTIONS)
    assert again.corners.tolist() == plain.corners.tolist()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"something else"),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"bits", b"bats")),
        lambda path: np.savez(path, digest="0", bits=0, areas=0, without_data=0),
        lambda path: np.savez(path, digest=path.stem, bits=0, areas=0, without_data=0),
    ],
)
def test_a_damaged_or_foreign_census_is_remade_in_silence(
    tmp_path, paths, scans, caplog, damage: Callable[[Path], None]
):
    expected = cut(tmp_path, paths)
    (path,) = kept(tmp_path)
    damage(path)
    assert cut(tmp_path, paths).corners.tolist() == expected.corners.tolist()
    cut(tmp_path, paths)
    assert (len(scans), kept(tmp_path), caplog.records) == (2, [path], [])


def test_a_folder_that_cannot_be_made_changes_nothing(tmp_path, paths, scans):
    (tmp_path / "kept").write_text("a file")
    assert len(cut(tmp_path, paths)) == len(cut(tmp_path, paths))
    assert len(scans) == 2


def test_arrays_and_small_images_leave_no_file(tmp_path, paths, scans, monkeypatch):
    cut(tmp_path, {**paths, "target": maps()["target"]})
    monkeypatch.setattr(census_cache, "LEAST_PIXELS", 10_000)
    cut(tmp_path, paths)
    assert len(scans) == 2
    assert not (tmp_path / "kept").exists()


def test_the_census_of_a_configured_run_lies_beside_its_folder(tmp_path, paths, scans):
    plain = {name: str(path) for name, path in paths.items()}
    dataset = {"type": "TileDataset", **plain, **OPTIONS}
    config = {"output_dir": str(tmp_path / "runs"), "model": {"type": "unet", "num_blocks": 1}}
    for _ in range(2):
        census_cache._recent.clear()
        Trainer.from_config({**config, "train_dataset": dataset})
    assert len(scans) == 1
    assert [path.suffix for path in (tmp_path / "runs" / ".census").iterdir()] == [".npz"]
