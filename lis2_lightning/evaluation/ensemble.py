"""Several networks that map an image together: the mean of their maps, and how far they differ."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from glob import glob, has_magic
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import Tensor, nn

from lis2_lightning.base.files import shown
from lis2_lightning.data.open_raster import Source
from lis2_lightning.errors import ConfigError, DataError, SnapshotError
from lis2_lightning.evaluation.run_maps import BEST
from lis2_lightning.inference import Map, MapRequest, data_of_image
from lis2_lightning.running import mapping
from lis2_lightning.snapshots.describe import summary
from lis2_lightning.trainer import Trainer
from lis2_lightning.training.module import SegmentationModule

_CUT: Final = ("size", "normalization", "data_augmentations")  # what a network is shown


class Ensemble(nn.Module):
    """Networks that are called as one: their probabilities, one behind the other.

    Args:
        members: The networks, each with the loss that says how its output is read.
    """

    def __init__(self, members: Sequence[SegmentationModule]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def num_members(self) -> int:
        """How many networks there are."""
        return len(self.members)

    @property
    def least_side(self) -> int:
        """The least side of an image that all of them take, px."""
        return max(getattr(member.model, "least_side", 0) for member in self.members)

    def forward(self, **batch: Tensor) -> Tensor:
        """Probabilities in [0, 1], ``(B, members · C, H, W)``.

        Raises:
            DataError: The networks make maps of different shapes.
        """
        maps = [member.probabilities(member(batch)) for member in self.members]  # type: ignore[operator]
        if len(shapes := dict.fromkeys(tuple(map_.shape[1:]) for map_ in maps)) > 1:
            raise DataError(f"the networks make maps of different shapes: {[*shapes]}")
        return torch.cat(maps, dim=1)


class EnsembleTrainer(Trainer):
    """Maps images with the networks of several snapshots; see :meth:`from_snapshots`."""

    @classmethod
    def from_snapshots(
        cls, paths: Sequence[str | os.PathLike[str]], *, image: Source, **overrides: Any
    ) -> Self:
        """Take networks from snapshots, such as the best of each fold.

        Args:
            paths: The snapshots.
            image: The image that is mapped, a path or an array.
            overrides: Keys that win over the first snapshot's, such as ``batch_size``.

        Raises:
            ConfigError: Tiles were cut or normalised differently for the networks.
            SnapshotError: A snapshot is missing or damaged.
        """
        trainers = [Trainer.from_snapshot(path, image=image, **overrides) for path in paths]
        configs = [trainer.global_config for trainer in trainers]
        _check_alike(paths, configs, image)
        first = {key: value for key, value in configs[0].items() if key not in _NOT_TAKEN}
        members = [trainer.module for trainer in trainers]
        dataset = trainers[0].train_dataset
        ensemble = cls.from_config({**first, "train_dataset": dataset, "model": Ensemble(members)})
        limits = [summary(path)["threshold"] for path in paths]
        if None not in limits:
            ensemble.module.threshold = sum(limits) / len(limits)
        return ensemble

    def segment(self, image: Source, *, spread: str | Path | None = None, **options: Any) -> Map:
        """Map an image: the mean of the networks' probabilities.

        Args:
            image: The image.
            spread: A file for the standard deviation of the networks' probabilities.
            options: As for ``Segmenter.segment``; a threshold of ``auto`` is the mean of the
                networks' thresholds.

        Returns:
            Probabilities in [0, 1], ``(C, H, W)``; what reads ``output`` where there is one.

        Raises:
            ConfigError: As ``Trainer.predict``.
            DataError: As there, or the networks differ in channels.
        """
        paths = {"output": None, "mask": None, **options, "spread": spread}
        request = MapRequest.of(image=image, **paths)
        run = partial(self._run, "predict", None, return_predictions=False)
        (map_,) = mapping.predict(self._built, self._settings.run_dir, run, request)
        return map_


# an ensemble is not trained, and its networks say themselves how their output is read
_NOT_TAKEN: Final = frozenset(
    {"model", "loss", "train_dataset", "val_dataset", "test_dataset", "resume", "weights"}
)


def _check_alike(
    paths: Sequence[str | os.PathLike[str]], configs: Sequence[Mapping[str, Any]], image: Source
) -> None:
    cuts = [
        data_of_image(config, image, source=str(path))["train_dataset"]["init_args"]
        for path, config in zip(paths, configs, strict=True)
    ]
    for path, cut in zip(paths[1:], cuts[1:], strict=True):
        for key in _CUT:
            if cut.get(key) != cuts[0].get(key):
                raise ConfigError(
                    f"{shown(Path(path))} was trained with {key} {cut.get(key)}, and "
                    f"{shown(Path(paths[0]))} with {cuts[0].get(key)}: the networks of an ensemble "
                    "must be shown the same tiles"
                )


def snapshots_matching(pattern: str | None) -> list[Path]:
    """The snapshots that a pattern with ``*``, ``?`` or brackets names; none where it has none.

    Of a folder it is the best snapshot.

    Raises:
        SnapshotError: Nothing matches.
    """
    if pattern is None or not has_magic(pattern) or Path(pattern).exists():
        return []
    # not Path.glob, which takes no absolute pattern
    matches = [Path(name) for name in sorted(glob(str(Path(pattern).expanduser())))]  # noqa: PTH207
    paths = [path / BEST if path.is_dir() else path for path in matches]
    if not paths:
        raise SnapshotError(f"no snapshot matches {pattern}: check the pattern")
    return paths
