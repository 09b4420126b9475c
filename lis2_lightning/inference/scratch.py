"""Where the finished rows of a map are kept until all of them are there."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from lis2_lightning.base.files import atomic, shown
from lis2_lightning.base.lock import acquire
from lis2_lightning.errors import ConfigError, DataError
from lis2_lightning.parallel.exchange import of_all_processes

Shape = tuple[int, int, int]
_SAVE_S: Final = 20.0  # what a kill costs at most; the disk has to be waited for each time
_ITEM: Final = 4  # bytes


class RowsInMemory:
    """A map in memory; the processes exchange their rows at the end.

    Attributes:
        values: The map, ``(C, H, W)``.
    """

    def __init__(self, shape: Shape) -> None:
        self.values = np.zeros(shape, dtype=np.float32)
        self._share = (0, 0)

    def begin(self, digest: str, share: tuple[int, int], rank: int) -> int:  # noqa: ARG002
        """Nothing is there yet."""
        self._share = share
        return share[0]

    def write(self, top: int, band: NDArray[np.float32]) -> None:
        """Keep rows."""
        self.values[:, top : top + band.shape[1]] = band

    def end(self) -> None:
        """Take the rows of the other processes."""
        top, bottom = self._share
        for first, band in of_all_processes((top, self.values[:, top:bottom])):
            self.write(first, band)

    def read(self, top: int, bottom: int) -> NDArray[np.float32]:
        """Read rows."""
        return self.values[:, top:bottom]

    def close(self) -> None:
        """Do nothing: the rows are the result."""


class RowsOnDisk:
    """A map in a file of plain float32 numbers, beside which each process keeps a journal.

    A journal holds the digest, and how far the rows of its process are finished: they are on the
    disk before it says so. The next run with the same digest goes on there, whenever this one ends.

    Args:
        path: The map's file, beside which they lie: ``map.fits.part``, ``map.fits.part.0.json``.
        shape: That of the map, ``(C, H, W)``.
    """

    def __init__(self, path: Path, shape: Shape) -> None:
        self.path = path.with_name(f"{path.name}.part")
        self.shape = shape
        self.num_bytes = _ITEM * int(np.prod(shape, dtype=object))
        self._digest = ""
        self._rank = 0
        self._finished = 0
        self._saved_s = 0.0
        # one descriptor for all: closing another would release the lock
        self._file: io.BufferedRandom | None = None

    @property
    def num_missing_bytes(self) -> int:
        """The room that the file still needs: it has holes where nothing is written."""
        with suppress(OSError):
            return max(self.num_bytes - 512 * self.path.stat().st_blocks, 0)
        return self.num_bytes

    def tidy(self) -> None:
        """Remove journals that a prediction has left which was killed after its last row."""
        if not self.path.exists():
            self.remove()

    def is_begun(self, digest: str | None = None) -> bool:
        """Whether an earlier run has left its rows, and they are of this digest."""
        record = self._record(0)
        return bool(record) and (digest is None or record["digest"] == digest)

    def begin(self, digest: str, share: tuple[int, int], rank: int) -> int:
        """Get ready, and return the first row of this process's share that is not there yet.

        Raises:
            ConfigError: Another prediction is writing the rows.
            DataError: They cannot be written.
        """
        self._digest, self._rank = digest, rank
        self._finished = self._stored(share)
        with self._written():
            opened = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            self._file = os.fdopen(opened, "r+b")
            if rank == 0 and not acquire(self._file):
                raise ConfigError(
                    f"another prediction is writing {shown(self.path)}: wait for it, or choose "
                    "another output"
                )
            # before any row is replaced, every journal is of this digest or gone
            self._save()
            of_all = of_all_processes(rank)
            if rank == 0:
                for stale in set(self._journals()) - {self._journal(number) for number in of_all}:
                    stale.unlink(missing_ok=True)
            of_all_processes(rank)
            self._file.truncate(self.num_bytes)
        return self._finished

    def write(self, top: int, band: NDArray[np.float32]) -> None:
        """Keep rows, and note now and then that they are finished."""
        _, height, width = self.shape
        with self._written():
            for channel, values in enumerate(band):
                self._opened.seek(_ITEM * width * (channel * height + top))
                self._opened.write(np.ascontiguousarray(values).data)
            self._opened.flush()  # for the processes that read them
            self._finished = top + band.shape[1]
            if time.monotonic() - self._saved_s > _SAVE_S:
                os.fsync(self._opened.fileno())
                self._save()

    def end(self) -> None:
        """Wait for the other processes; the files of the map are written at once."""
        of_all_processes(self._rank)

    def read(self, top: int, bottom: int) -> NDArray[np.float32]:
        """Read rows."""
        channels, height, width = self.shape
        band = np.empty((channels, bottom - top, width), dtype=np.float32)
        for channel in range(channels):
            self._opened.seek(_ITEM * width * (channel * height + top))
            self._opened.readinto(band[channel].data)
        return band

    def close(self) -> None:
        """Leave the rows as they are: the next run may go on with them."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def remove(self) -> None:
        """Remove the file, and then the journals: without the file they say nothing."""
        for path in (self.path, *self._journals()):
            path.unlink(missing_ok=True)

    @property
    def _opened(self) -> io.BufferedRandom:
        return cast("io.BufferedRandom", self._file)  # it is open since begin()

    def _stored(self, share: tuple[int, int]) -> int:
        """How far the journal says that the share is finished; not at all if it is of others."""
        record = self._record(self._rank)
        return int(record["finished"]) if record.get("digest") == self._digest else share[0]

    def _record(self, rank: int) -> dict[str, Any]:
        """What a journal holds; nothing where there are no rows that it could speak of."""
        try:
            if self.path.stat().st_size != self.num_bytes:
                return {}
            record = json.loads(self._journal(rank).read_text(encoding="utf-8"))
            return {key: record[key] for key in ("digest", "finished")}
        except (OSError, ValueError, LookupError, TypeError):
            return {}

    def _save(self) -> None:
        record = {"digest": self._digest, "finished": self._finished}
        with atomic(self._journal(self._rank)) as file:
            file.write(json.dumps(record).encode())
        self._saved_s = time.monotonic()

    def _journal(self, rank: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{rank}.json")

    def _journals(self) -> list[Path]:
        start = f"{self.path.name}."
        names = (path for path in self.path.parent.iterdir() if path.name.startswith(start))
        return [path for path in names if path.suffix == ".json"]

    @contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                f"{shown(self.path)} cannot be written ({error.strerror}): what is finished stays, "
                "and the same command goes on from there"
            ) from error


Rows = RowsInMemory | RowsOnDisk
"""The rows of a map, ``(C, H, W)``, of which each process writes its own, from top to bottom."""
