"""The patches that LIS² cuts beforehand and stores in an HDF5 file, ``patches.h5``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from lis2_lightning.data.augment import Augmentation, augment
from lis2_lightning.data.batch import Batch, Sample
from lis2_lightning.data.normalize import Normalization, check_normalization, normalize
from lis2_lightning.data.rasters.contract import OpenedLate
from lis2_lightning.data.rasters.hdf5 import open_h5
from lis2_lightning.data.sampling import random_keys
from lis2_lightning.errors import ConfigError, DataError, did_you_mean

PATCHES, TARGET, LABELLED, POSITIONS = "patches", "spines", "labelled", "positions"
# LIS² stores chunks of 1,250 patches x 4 x 4 px: a patch of 32 px lies in 64 of them, and where
# all of them stay in memory a shuffled order is read five times as fast
CACHE_BYTES = 128 * 2**20  # for each data set and process
ROWS_A_SCAN = 4096  # patches looked through at a time where constant ones are left out


class PatchDataset(Dataset[Sample]):
    """Patches of an HDF5 file with the data sets ``patches``, ``spines`` and ``labelled``.

    LIS² knows it as ``FilamentsDataset``; keys and meanings are those of LIS², except that `stride`
    counts without folds too. Each data set is stored ``(N, H, W, 1)`` as LIS² does it,
    ``(N, H, W)`` or ``(N, 1, H, W)``; without ``labelled`` every pixel counts. Patches are read
    when they are asked for, and the file is opened once in each process.

    Args:
        dataset_path: The file.
        normalization: `direct`, `log` or `none`: how each patch is brought to [0, 1]. Files of LIS²
            hold patches that are normalised already.
        data_augmentations: What to change at random, in this order.
        toEncode: Further data sets of the file to put into a sample under their own names, such as
            ``positions``, which is ``(2, 2, 1)``: first and last row, first and last column, px.
        stride: Take only every n-th patch of each fold.
        fold_assignments: For each fold the numbers of its patches.
        fold_list: Which folds to take, in this order.
        use_all_patches: With folds, also take patches whose target is the same everywhere.
        name: A name for the reader of a configuration; it has no other meaning.
        learning_mode: Accepted and ignored, as in LIS².

    Raises:
        DataError: The file cannot be read or lacks a data set, shapes differ, or nothing is left.
        ConfigError: Unknown normalization or fold, `stride` below 1, or one of `fold_assignments`
            and `fold_list` without the other.
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
        self._file = PatchFile(Path(dataset_path), extra=self.encoded)
        folds = _choose(fold_assignments, fold_list, self._file.length)
        chosen = np.concatenate([fold[::stride] for fold in folds])
        if fold_list is not None and not use_all_patches:
            chosen = chosen[self._file.varied(TARGET, chosen)]
        if len(chosen) == 0:
            raise DataError(
                f"{dataset_path} has no patch left for the folds {fold_list}: check "
                f"fold_assignments, or set use_all_patches"
            )
        self.numbers: NDArray[np.int64] = chosen

    def __len__(self) -> int:
        """How many patches there are."""
        return len(self.numbers)

    def __getitem__(self, index: int) -> Sample:
        """Give one sample, augmented as in epoch 0 under seed 0."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} patches and none at {index}")
        return self.__getitems__([index % len(self)])[0]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Give a whole batch, as :meth:`__getitem__` gives one sample."""
        positions = np.asarray(indices, dtype=np.int64)
        return self.fetch(positions, random_keys(0, 0, positions))

    def fetch(self, indices: NDArray[np.int64], keys: NDArray[np.uint64]) -> Batch:
        """Give a batch, with augmentations that the keys decide.

        Args:
            indices: Which samples, ``(B,)``.
            keys: One random key for each, ``(B,)``.

        Returns:
            `patch` and `target` float32 and `labelled` bool, ``(B, C, H, W)`` each, and what
            `toEncode` asked for, float32.

        Raises:
            DataError: A target is neither 0 nor 1.
        """
        numbers = self.numbers[indices]
        target = self._file.images(TARGET, numbers)
        if not ((target == 0) | (target == 1)).all():
            raise DataError(
                f"{self._file.path}:/{TARGET} holds values other than 0 and 1: "
                f"set filament pixels to 1 and all others to 0"
            )
        arrays: dict[str, NDArray[Any]] = {
            "patch": normalize(self._file.images(PATCHES, numbers), self.normalization),
            "target": target,
            "labelled": self._file.labelled(numbers),
        }
        arrays |= {key: self._file.rows(key, numbers) for key in self.encoded}
        tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
        return Batch(augment(tensors, keys, self.data_augmentations))

    @property
    def corners(self) -> NDArray[np.int64]:
        """First row and column of each patch in the image, px, in the order of the samples.

        Raises:
            DataError: The file has no data set ``positions``.
        """
        return self._file.corners(self.numbers)


class PatchFile(OpenedLate[dict[str, Any]]):
    """The data sets of one file, opened once in each process.

    Args:
        path: The file.
        extra: Names of data sets that must be there beside the patches and their truth.

    Raises:
        DataError: The file cannot be read or lacks a data set, or shapes differ.
    """

    def __init__(self, path: Path, *, extra: Sequence[str] = ()) -> None:
        self.path = path.absolute()
        with open_h5(path) as file:
            shapes = {key: item.shape for key, item in file.items() if key in file}
        for key in (PATCHES, TARGET, *extra):
            if key not in shapes:
                raise DataError(f"{path} has no data set {key!r}: {did_you_mean(key, shapes)}")
        self.length = int(shapes[PATCHES][0])
        self.has_labelled = LABELLED in shapes
        for key in (TARGET, *([LABELLED] if self.has_labelled else []), *extra):
            same = shapes[key][:1] if key in extra else shapes[key]
            if same != shapes[PATCHES][: len(same)] or not same:
                raise DataError(
                    f"{path} has {PATCHES} of the shape {shapes[PATCHES]} and {key} of the shape "
                    f"{shapes[key]}: each patch needs its own"
                )
        self._channels_last = _channels_last(path, shapes[PATCHES])

    def open(self) -> dict[str, Any]:
        """Open the data sets in this process; a closed one would forget its cached chunks."""
        return dict(open_h5(self.path, cache_bytes=CACHE_BYTES).items())

    def release(self, handle: dict[str, Any]) -> None:
        """Close the file."""
        next(iter(handle.values())).file.close()

    def rows(self, key: str, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read rows of a data set, in any order and repeated at will, ``(B, ...)``.

        Neighbours are read in one slice; HDF5 takes ten times as long for a list of numbers.
        """
        dataset = self.handle[key]
        wanted, places = np.unique(numbers, return_inverse=True)
        stored = np.empty((len(wanted), *dataset.shape[1:]), dtype=np.float32)
        breaks = np.flatnonzero(np.diff(wanted) != 1) + 1
        for run in np.split(np.arange(len(wanted)), breaks) if len(wanted) else ():
            stored[run[0] : run[-1] + 1] = dataset[wanted[run[0]] : wanted[run[-1]] + 1]
        return stored[places]

    def images(self, key: str, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read patches, ``(B, C, H, W)``."""
        rows = self.rows(key, numbers)
        if self._channels_last:
            rows = np.moveaxis(rows, -1, 1)
        elif rows.ndim == 3:
            rows = rows[:, None]
        return np.ascontiguousarray(rows)

    def labelled(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say which pixels have a label, ``(B, C, H, W)`` bool."""
        if self.has_labelled:
            return self.images(LABELLED, numbers) > 0
        return np.ones_like(self.images(TARGET, numbers), dtype=np.bool_)

    def corners(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Read the first row and column of patches, px, ``(B, 2)``."""
        if POSITIONS not in self.handle:
            raise DataError(f"{self.path} has no data set {POSITIONS!r}: write it with the patches")
        rows = self.rows(POSITIONS, numbers).reshape(len(numbers), 2, -1)
        return rows[:, :, 0].astype(np.int64)

    def varied(self, key: str, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say which patches hold more than one value, ``(B,)``."""
        found = [
            np.ptp(self.rows(key, part).reshape(len(part), -1), axis=1) > 0
            for part in np.array_split(numbers, -(-len(numbers) // ROWS_A_SCAN) or 1)
            if len(part)
        ]
        return np.concatenate(found) if found else np.zeros(0, dtype=np.bool_)


def _channels_last(path: Path, shape: tuple[int, ...]) -> bool:
    """Say whether patches are stored ``(N, H, W, C)``, which is what LIS² writes."""
    if len(shape) not in {3, 4}:
        raise DataError(
            f"{path} has {PATCHES} of the shape {shape}, where (patches, height, width) or "
            f"(patches, height, width, channels) is needed"
        )
    return len(shape) == 4 and not (shape[1] == 1 and shape[3] > 4)


def _choose(
    assignments: Mapping[str | int, Sequence[int]] | None,
    folds: Sequence[str | int] | None,
    length: int,
) -> list[NDArray[np.int64]]:
    """Give the numbers of the patches of each fold that is asked for."""
    if assignments is None and folds is None:
        return [np.arange(length, dtype=np.int64)]
    if assignments is None or folds is None:
        missing = "fold_assignments" if assignments is None else "fold_list"
        raise ConfigError(f"folds need both fold_assignments and fold_list: {missing} is not set")
    by_name = {
        str(name): np.asarray(list(numbers), np.int64) for name, numbers in assignments.items()
    }
    chosen = []
    for fold in map(str, folds):
        if fold not in by_name:
            raise ConfigError(f"unknown fold {fold!r} in fold_list: {did_you_mean(fold, by_name)}")
        numbers = by_name[fold]
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < length:
            raise DataError(
                f"fold {fold!r} names patch {numbers.max()}, where there are {length}: numbers "
                f"go from 0 to {length - 1}"
            )
        chosen.append(numbers)
    return chosen or [np.zeros(0, dtype=np.int64)]
