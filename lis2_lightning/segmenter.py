"""Maps of images with nothing but a snapshot."""

from __future__ import annotations

import os
from typing import Any, Literal, Self

from lis2_lightning.data.open_raster import Source
from lis2_lightning.inference import Map
from lis2_lightning.snapshots import Snapshot, peek
from lis2_lightning.trainer import Trainer


class Segmenter:
    """Maps images with the network of a snapshot, cut and normalised as in training.

    None of the files that the snapshot names is opened. See :meth:`from_snapshot`.
    """

    def __init__(self, snapshot: Snapshot, **overrides: Any) -> None:
        self._snapshot = snapshot
        self._overrides = overrides
        self._trainer: Trainer | None = None

    @classmethod
    def from_snapshot(cls, path: str | os.PathLike[str], **overrides: Any) -> Self:
        """Take a network from a snapshot.

        Args:
            path: A snapshot, such as ``best.pt``.
            overrides: Keys that win over the snapshot's, such as ``batch_size`` or ``lightning``.
                A component that was passed as an object in training must be passed again.

        Raises:
            SnapshotError: The file is missing, damaged or no snapshot.
        """
        snapshot = peek(path)
        snapshot.path = snapshot.path.absolute()  # the program may change its folder
        return cls(snapshot, **overrides)

    def segment(
        self,
        image: Source,
        *,
        output: str | os.PathLike[str] | None = None,
        mask: str | os.PathLike[str] | None = None,
        threshold: float | Literal["auto"] = "auto",
        stride: int | None = None,
        dtype: Literal["float32", "uint8"] = "float32",
        overwrite: bool = False,
    ) -> Map:
        """Map an image of any size.

        Args:
            image: A path or an array, ``(H, W)`` or ``(C, H, W)``.
            output: As the other arguments, see :meth:`Trainer.predict`.
            mask: A file for the mask.
            threshold: Where the mask is cut.
            stride: Step from one tile to the next, px; that of the training by default.
            dtype: What ``output`` holds.
            overwrite: Replace files that exist.

        Returns:
            Probabilities in [0, 1], ``(C, H, W)``, NaN where the image has no data: an array, or,
            where there is an ``output``, what reads it like one; the map is never in memory then.

        Raises:
            ConfigError: As :meth:`Trainer.predict` and :meth:`Trainer.from_snapshot`.
            DataError: As there.
            SnapshotError: As there.
        """
        if self._trainer is None:
            path = self._snapshot.path
            self._trainer = Trainer.from_snapshot(path, image=image, **self._overrides)
        (probabilities,) = self._trainer.predict(
            image=image,
            output=output,
            mask=mask,
            threshold=threshold,
            stride=stride,
            dtype=dtype,
            overwrite=overwrite,
        )
        return probabilities
