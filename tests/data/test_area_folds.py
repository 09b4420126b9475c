"""Patches are dealt to folds by areas of the image, as LIS²'s controllers do."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from lis2_lightning.data.area_folds import AreaFolds
from lis2_lightning.data.patches import PatchDataset
from lis2_lightning.errors import ConfigError, DataError


def by_hand(corners, *, num_folds, area, patch, overlap, in_turn):
    """LIS²'s controllers, patch by patch."""
    areas: dict[tuple[int, int], list[int]] = {}
    for number, (row, column) in enumerate(corners):
        key = int(row // area), int(column // area)
        too_low = row + patch > (key[0] + 1) * area + overlap
        if not too_low and not column + patch > (key[1] + 1) * area + overlap:
            areas.setdefault(key, []).append(number)
    folds: dict[int, list[int]] = {fold: [] for fold in range(num_folds)}
    for index, numbers in enumerate(areas.values()):
        size = len(areas) // num_folds
        block = min(index // size, num_folds - 1) if size else num_folds - 1
        folds[index % num_folds if in_turn else block] += numbers
    return folds


@pytest.mark.parametrize("in_turn", [True, False])
@pytest.mark.parametrize(("num_folds", "overlap"), [(10, 0), (4, 3), (1, 0), (200, 0)])
def test_folds_are_those_of_lis2(in_turn, num_folds, overlap):
    corners = np.random.default_rng(0).integers(0, 300, (900, 2))
    expected = by_hand(
        corners, num_folds=num_folds, area=40, patch=16, overlap=overlap, in_turn=in_turn
    )
    folds = AreaFolds(
        num_folds=num_folds,
        area_size=40,
        overlap=overlap,
        dealing="in_turn" if in_turn else "in_blocks",
    )
    dealt = folds.deal(corners, patch_size=16)
    assert {fold: numbers.tolist() for fold, numbers in dealt.items()} == expected


def test_without_overlap_no_two_folds_share_a_pixel():
    corners = np.indices((22, 22)).reshape(2, -1).T * 3
    dealt = AreaFolds(num_folds=3, area_size=16).deal(corners, patch_size=8)
    owner = np.full((72, 72), -1)
    for fold, numbers in dealt.items():
        for row, column in corners[numbers]:
            area = owner[row : row + 8, column : column + 8]
            assert np.isin(area, [-1, fold]).all()
            area[:] = fold
    assert set(np.unique(owner)) == {-1, 0, 1, 2}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Sixteen patches of 4 px beside each other, 4 x 4."""
    rng = np.random.default_rng(0)
    corners = np.indices((4, 4)).reshape(2, -1).T.reshape(-1, 2, 1, 1) * 4
    with h5py.File(tmp_path / "patches.h5", "w") as file:
        file["patches"] = rng.random((16, 4, 4, 1))
        file["spines"] = (rng.random((16, 4, 4, 1)) > 0.5).astype(float)
        file["positions"] = np.concatenate((corners, corners + 4), axis=2)
    return tmp_path / "patches.h5"


def test_a_data_set_has_the_patches_of_its_folds_area_by_area(stored):
    folds = AreaFolds(num_folds=2, area_size=8)
    assert PatchDataset(stored, area_folds=folds, fold_list=[0]).numbers.tolist() == [
        *(0, 1, 4, 5),
        *(8, 9, 12, 13),
    ]
    sparse = PatchDataset(stored, area_folds=folds, fold_list=["1", 0], stride=3)
    assert sparse.numbers.tolist() == [2, 7, 14, 0, 5, 12]


def test_the_size_of_a_patch_is_that_of_the_file_unless_it_is_given(stored):
    narrow = AreaFolds(num_folds=2, area_size=5)
    assert PatchDataset(stored, area_folds=narrow, fold_list=[0, 1]).numbers.tolist() == [0]
    wide = AreaFolds(num_folds=2, area_size=5, patch_size=1)
    assert len(PatchDataset(stored, area_folds=wide, fold_list=[0, 1])) == 16


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"num_folds": 0}, "num_folds, area_size and patch_size of area_folds must be at least 1"),
        ({"overlap": 64}, "overlap of area_folds must be from 0 to below area_size 64 px, not 64"),
    ],
)
def test_wrong_numbers_are_refused(keys, sentence):
    with pytest.raises(ConfigError, match=sentence):
        AreaFolds(**{"num_folds": 2, **keys})


def test_folds_are_assigned_once_and_need_positions(stored):
    folds = AreaFolds(num_folds=2, area_size=8)
    with pytest.raises(ConfigError, match="area_folds and fold_assignments both assign folds"):
        PatchDataset(stored, area_folds=folds, fold_assignments={0: [1]}, fold_list=[0])
    with pytest.raises(ConfigError, match="fold_list is missing"):
        PatchDataset(stored, area_folds=folds)
    with h5py.File(stored, "a") as file:
        del file["positions"]
    with pytest.raises(DataError, match="has no data set 'positions': store it with the patches"):
        PatchDataset(stored, area_folds=folds, fold_list=[0])
