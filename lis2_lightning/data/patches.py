"""Patches that LIS² has cut and stored in an HDF5 file, ``patches.h5``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lis2_lightning.base.labelled import known_where
from lis2_lightning.data.area_folds import AreaFolds
from lis2_lightning.data.augment import Augmentation, augment
from lis2_lightning.data.batch import Batch, KeyedDataset
from lis2_lightning.data.normalize import Normalization, check_normalization, normalize
from lis2_lightning.data.rasters.contract import OpenedLate, readable
from lis2_lightning.data.rasters.hdf5 import open_h5, own_dataset
from lis2_lightning.data.truth import has_data
from lis2_lightning.errors import ConfigError, DataError, did_you_mean

_log = logging.getLogger("lis2_lightning")
PATCHES, TARGET, LABELLED, POSITIONS = "patches", "spines", "labelled", "positions"
# LIS² stores chunks of 1,250 patches x 4 x 4 px, 64 for a patch of 32 px: with all of them in
# memory, shuffled patches are read five times as fast
CACHE_BYTES = 128 * 2**20  # for each data set and process
ROWS_A_SCAN = 4096  # patches scanned at a time for constant targets
_Folds = Mapping[str | int, Sequence[int]] | Mapping[str | int, NDArray[np.int64]]


class PatchDataset(KeyedDataset):
    """Patches of an HDF5 file with the data sets ``patches``, ``spines`` and ``labelled``.

    This is ``FilamentsDataset`` of LIS², with its keys and meanings. Each data set is stored
    ``(N, H, W, 1)`` as in LIS², ``(N, H, W)`` or ``(N, 1, H, W)``; without ``labelled`` every pixel
    counts. Where a patch is NaN or infinite no pixel does. Patches are read on demand, and the file
    is opened once per process.

    Args:
        dataset_path: The file.
        normalization: How each patch is scaled to [0, 1]: `direct`, `log` or `none`. The patches
            of LIS² are normalised already.
        data_augmentations: Augmentations, applied in this order.
        toEncode: Further data sets of the file to include in each sample, such as ``positions``,
            ``(2, 2, 1)``: first and last row, first and last column, px.
        stride: Use only every n-th patch of each fold; without effect where there are no folds.
        fold_assignments: The patch numbers of each fold.
        area_folds: Assigns the patches to folds by their `positions` instead.
        fold_list: Folds to use, in this order.
        use_all_patches: With folds, also use patches with a constant target.
        name: A label without effect.
        learning_mode: Accepted and ignored, as in LIS².

    Raises:
        DataError: The file cannot be read or lacks a data set, shapes differ, or nothing is left.
        ConfigError: Unknown normalization or fold, `stride` below 1, or folds that are assigned
            twice, or without `fold_list`, or not at all.
    """

    def __init__(
        self,
        dataset_path: str | Path,
        *,
        normalization: Normalization | None = None,
        data_augmentations: Sequence[Augmentation] | None = None,
        toEncode: Sequence[str] | None = None,  # noqa: N803 - the key of LIS²
        stride: int = 1,
        fold_assignments: Mapping[str | int, Sequence[int]] | None = None,
        area_folds: AreaFolds | None = None,
        fold_list: Sequence[str | int] | None = None,
        use_all_patches: bool = False,
        name: str | None = None,
        learning_mode: str | None = None,  # noqa: ARG002 - configurations of LIS² have it
    ) -> None:
        check_normalization(normalization or "none")
        if stride < 1:
            raise ConfigError(f"stride must be at least 1 patch, not {stride}")
        self.name = name or Path(dataset_path).stem
        self.normalization: Normalization = normalization or "none"
        self.data_augmentations = tuple(data_augmentations or ())
        self.encoded = tuple(dict.fromkeys(toEncode or ()))
        self.area_folds = area_folds
        self._file = PatchFile(Path(dataset_path), extra=self.encoded)
        assigned: _Folds | None = fold_assignments
        if area_folds is not None:
            if assigned is not None:
                raise ConfigError("area_folds and fold_assignments both assign folds: omit one")
            assigned = area_folds.deal(self._all_corners, self._file.patch_size)
        folds = _choose(assigned, fold_list, self._file.length)
        if fold_list is None:
            chosen = folds[0]
            if stride > 1:
                _log.info("%s: stride has no effect without folds, as in LIS2", dataset_path)
        else:
            chosen = np.concatenate([fold[::stride] for fold in folds])
            chosen = chosen if use_all_patches else chosen[self._file.varied(chosen)]
        if len(chosen) == 0:
            raise DataError(
                f"{dataset_path} has no usable patch in folds {fold_list}: check fold_assignments, "
                f"or set use_all_patches"
            )
        self.numbers: NDArray[np.int64] = chosen

    def __len__(self) -> int:
        """The number of patches."""
        return len(self.numbers)

    def fetch(self, indices: NDArray[np.int64], keys: NDArray[np.uint64]) -> Batch:
        """Read many patches at once, with the data sets of `toEncode`."""
        numbers = self.numbers[indices]
        target = self._file.images(TARGET, numbers)
        if not ((target == 0) | (target == 1)).all():
            raise DataError(
                f"{self._file.path}:/{TARGET} holds values other than 0 and 1: "
                f"set filament pixels to 1 and all others to 0"
            )
        values = self._file.images(PATCHES, numbers)
        labelled = self._file.labelled(numbers) & has_data(values)
        arrays: dict[str, NDArray[Any]] = {
            "patch": normalize(values, self.normalization),
            "target": target,
            "labelled": labelled,
        }
        arrays |= {key: self._file.rows(key, numbers) for key in self.encoded}
        tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
        return Batch(augment(tensors, keys, self.data_augmentations))

    @property
    def corners(self) -> NDArray[np.int64]:
        """First row and column of each patch in the image, px, ``(N, 2)``, from ``positions``."""
        return self._file.corners(self.numbers)

    @property
    def corners_by_fold(self) -> dict[int, NDArray[np.int64]]:
        """The same of each fold of ``area_folds``, whether it is used or not."""
        if self.area_folds is None:
            return {}
        dealt = self.area_folds.deal(self._all_corners, self._file.patch_size)
        return {int(fold): self._file.corners(numbers) for fold, numbers in dealt.items()}

    @property
    def extent(self) -> tuple[int, int]:
        """The last row and column + 1, px, of all patches of the file."""
        height, width = (self._all_corners.max(axis=0) + self._file.patch_size).tolist()
        return height, width

    @property
    def _all_corners(self) -> NDArray[np.int64]:
        return self._file.corners(np.arange(self._file.length))


class PatchFile(OpenedLate):
    """The data sets of one file, opened once per process; those in `extra` must exist too."""

    def __init__(self, path: Path, *, extra: Sequence[str] = ()) -> None:
        self.path = path.absolute()
        with readable(path), open_h5(path) as file:
            self.has_labelled = LABELLED in list(file)
            others = [key for key in (LABELLED, POSITIONS) if key in list(file)]
            keys = dict.fromkeys((PATCHES, TARGET, *extra, *others))
            shapes = {key: own_dataset(file, key, names=file).shape for key in keys}
        self._keys = tuple(keys)
        self.length = int(shapes[PATCHES][0])
        for key in (TARGET, *([LABELLED] if self.has_labelled else []), *extra):
            same = shapes[key][:1] if key in extra else shapes[key]
            if same != shapes[PATCHES][: len(same)] or not same:
                raise DataError(
                    f"{path} has {PATCHES} of shape {shapes[PATCHES]} and {key} of shape "
                    f"{shapes[key]}: {key} needs an entry for each patch"
                )
        self._channels_last = _channels_last(path, shapes[PATCHES])
        self.patch_size = int(shapes[PATCHES][-2])

    def open(self) -> dict[str, Any]:
        """Open the data sets; they stay open, because closing one drops its cached chunks."""
        file = open_h5(self.path, cache_bytes=CACHE_BYTES)
        return {key: own_dataset(file, key) for key in self._keys}

    def release(self, handle: dict[str, Any]) -> None:
        """Close the file."""
        next(iter(handle.values())).file.close()

    def rows(self, key: str, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read rows of a data set, in any order, ``(B, ...)``.

        Consecutive rows are read as one slice; a list of indices takes HDF5 ten times as long.
        """
        if key not in self.handle:
            raise DataError(f"{self.path} has no data set {key!r}: store it with the patches")
        dataset = self.handle[key]
        rows, places = np.unique(numbers, return_inverse=True)
        stored = np.empty((len(rows), *dataset.shape[1:]), dtype=np.float32)
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        with readable(f"{self.path}:/{key}"):
            for run in np.split(np.arange(len(rows)), breaks) if len(rows) else ():
                stored[run[0] : run[-1] + 1] = dataset[rows[run[0]] : rows[run[-1]] + 1]
        return stored[places]

    def corners(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """First row and column of patches in the image, px, ``(B, 2)``."""
        rows = self.rows(POSITIONS, numbers).reshape(len(numbers), 2, -1)
        return rows[:, :, 0].astype(np.int64)

    def images(self, key: str, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read patches, ``(B, C, H, W)``."""
        rows = self.rows(key, numbers)
        if self._channels_last:
            rows = np.moveaxis(rows, -1, 1)
        elif rows.ndim == 3:
            rows = rows[:, None]
        return np.ascontiguousarray(rows)

    def labelled(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which pixels are labelled, ``(B, C, H, W)`` bool."""
        if self.has_labelled:
            return known_where(self.images(LABELLED, numbers), f"{self.path}:/{LABELLED}")
        return np.ones_like(self.images(TARGET, numbers), dtype=np.bool_)

    def varied(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which targets hold more than one value, ``(B,)``."""
        varied = np.zeros(len(numbers), dtype=np.bool_)
        for begin in range(0, len(numbers), ROWS_A_SCAN):
            part = slice(begin, begin + ROWS_A_SCAN)
            targets = self.rows(TARGET, numbers[part])
            varied[part] = np.ptp(targets.reshape(len(targets), -1), axis=1) > 0
        return varied


def _channels_last(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether patches are stored ``(N, H, W, C)``, as LIS² writes them."""
    if len(shape) not in {3, 4}:
        raise DataError(
            f"{path} has {PATCHES} of shape {shape}: the shape must be (patches, height, width) or "
            f"(patches, height, width, channels)"
        )
    return len(shape) == 4 and not (shape[1] == 1 and shape[3] > 4)


def _choose(
    assignments: _Folds | None,
    folds: Sequence[str | int] | None,
    length: int,
) -> list[NDArray[np.int64]]:
    """The patch numbers of each requested fold."""
    if assignments is None and folds is None:
        return [np.arange(length, dtype=np.int64)]
    if assignments is None or folds is None:
        missing = "fold_assignments" if assignments is None else "fold_list"
        raise ConfigError(
            f"{missing} is missing: folds need fold_list, and fold_assignments or area_folds"
        )
    by_name = {
        str(name): np.asarray(list(numbers), np.int64) for name, numbers in assignments.items()
    }
    chosen = []
    for fold in map(str, folds):
        if fold not in by_name:
            raise ConfigError(f"unknown fold {fold!r} in fold_list: {did_you_mean(fold, by_name)}")
        numbers = by_name[fold]
        if len(wrong := numbers[(numbers < 0) | (numbers >= length)]):
            raise DataError(
                f"fold {fold!r} contains patch {wrong[0]} of {length} patches: numbers range "
                f"from 0 to {length - 1}"
            )
        chosen.append(numbers)
    return chosen or [np.zeros(0, dtype=np.int64)]
