"""Snapshots verified before they are used; nothing in them is executed."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Final

from lis2_lightning.errors import SnapshotError
from lis2_lightning.snapshots.directory import Refusal
from lis2_lightning.snapshots.format import check_entries
from lis2_lightning.snapshots.guard import Scan, check_archive, named, opened, scan
from lis2_lightning.snapshots.legacy import from_lis2
from lis2_lightning.snapshots.load import Loader
from lis2_lightning.snapshots.notes import Ordered, Stub, Tensor

_log = logging.getLogger("lis2_lightning")

_OURS: Final = "LIGHTNING"
_MAPPING: Final = frozenset({dict, Ordered})
_NUMBER: Final = frozenset({int, float})
_NOTHING: Final = frozenset({type(None)})
# what stands where, and of which type; the last part of ours may be missing in older files
_KINDS: Final[Mapping[str, frozenset[type]]] = {
    "MODEL": _MAPPING,
    "MODEL.MODEL_STATE": _MAPPING,
    "TRAIN_INFO": _MAPPING,
    "TRAIN_INFO.EPOCHS_RUN": frozenset({int}),
    "TRAIN_INFO.BEST_LOSS": _NUMBER | {Tensor},
    "TRAIN_INFO.OPTIMIZER_STATE": _MAPPING | _NOTHING,
    "TRAIN_INFO.SCHEDULER_STATE": _MAPPING | _NOTHING,
    "GLOBAL_CONFIG": _MAPPING | {Stub},
}
_OUR_KINDS: Final[Mapping[str, frozenset[type]]] = {
    **_KINDS,
    "GLOBAL_CONFIG": _MAPPING,
    "TRAIN_INFO.BEST_LOSS": _NUMBER,
    "LIGHTNING": _MAPPING,
    "LIGHTNING.format": frozenset({int}),
    "LIGHTNING.next_epoch": frozenset({int}),
    "LIGHTNING.other_state": _MAPPING,
    "LIGHTNING.checkpoint": _MAPPING,
    "LIGHTNING.checkpoint.loops": _MAPPING,
}


@dataclass(frozen=True)
class Peek:
    """What a snapshot says of itself without its tensors.

    Args:
        next_epoch: The epoch, counted from 0, at which a resumed run goes on.
        next_batch: The batch inside it, counted from 0.
        best_loss: The best monitored value so far.
        config: The configuration that builds the same trainer again.
        shapes: Each weight's shape, by its name.
        is_lis2: Whether LIS2 itself wrote the file.
    """

    next_epoch: int
    next_batch: int
    best_loss: float
    config: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    is_lis2: bool


def read_snapshot(path: str | os.PathLike[str], *, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a snapshot, ours or one of LIS2's, comparing its checksums; nothing in it is executed.

    Args:
        path: The file.
        map_location: The device where tensors go.

    Returns:
        The snapshot in our form.

    Raises:
        SnapshotError: The file is missing, damaged, no snapshot, or needs code to be read.
    """
    with named(path), opened(path) as file:
        snapshot, dropped = _read(file, path, map_location)
    if dropped is not None:
        told = f"; left out: {'; '.join(dropped)}" if dropped else ""
        _tell(f"{path} is a snapshot of LIS2" + told)
    return snapshot


@lru_cache(maxsize=100)
def _tell(message: str) -> None:
    """Say something once: a run reads the file that it goes on from several times."""
    _log.info("%s", message)


def read_lis2(path: str | os.PathLike[str]) -> tuple[dict[str, Any], list[str]]:
    """Read a snapshot that LIS2 wrote.

    Args:
        path: The file.

    Returns:
        The snapshot in our form, and what was left out, a line each.

    Raises:
        SnapshotError: The file is missing, damaged, or none of LIS2's.
    """
    with named(path), opened(path) as file:
        snapshot, dropped = _read(file, path, "cpu")
    if dropped is None:
        raise SnapshotError(f"{path} has our form already: it can be used as it is")
    return snapshot, dropped


def peek(path: str | os.PathLike[str]) -> Peek:
    """Read what a snapshot says of itself, without its tensors and their checksums.

    Args:
        path: The file.

    Returns:
        Where a resumed run goes on, and with which configuration.

    Raises:
        SnapshotError: The file is missing, no snapshot, or damaged in the part that is read.
    """
    with named(path), opened(path) as file:
        found = scan(file)
        content, is_lis2 = found.content, _check(found, path)
        info = content["TRAIN_INFO"]
        small = {"config": content["GLOBAL_CONFIG"], "best": info["BEST_LOSS"]}
        loaded = Loader(file, found).load(small)
        ours = {"next_epoch": info["EPOCHS_RUN"] + 1} if is_lis2 else content[_OURS]
        weights = content["MODEL"]["MODEL_STATE"]
        return Peek(
            next_epoch=ours["next_epoch"],
            next_batch=ours.get("next_batch", 0),
            best_loss=float(loaded["best"]),
            config=dict(loaded["config"]),
            shapes={k: v.size for k, v in weights.items() if type(v) is Tensor},
            is_lis2=is_lis2,
        )


def newest_snapshot(folder: Path) -> Path | None:
    """The snapshot of a run folder that goes on latest; damaged ones are named and passed over.

    Which is newest is read from the files, for a copy changes the dates of files. Only files that
    may be the newest are read whole.

    Args:
        folder: The run's folder.

    Returns:
        The file, or null where there is no whole one.
    """
    found = []
    for path in sorted(folder.glob("*.pt")):
        try:
            told = peek(path)
        except SnapshotError as error:
            _passed_over(error)
        else:
            found.append(((told.next_epoch, told.next_batch, path.name == "last.pt"), path))
    for _, path in sorted(found, reverse=True):
        try:
            check_archive(path)
        except SnapshotError as error:
            _passed_over(error)
        else:
            return path
    return None


def _passed_over(error: SnapshotError) -> None:
    _log.warning("%s; an older snapshot is taken", error)


def _read(
    file: IO[bytes], path: str | os.PathLike[str], device: Any
) -> tuple[dict[str, Any], list[str] | None]:
    """The snapshot in our form, and what of LIS2's was left out; null where it is ours."""
    found = scan(file)
    is_lis2 = _check(found, path)
    loader = Loader(file, found, device)
    loaded: dict[str, Any] = loader.load(found.content)
    loader.check_rest()
    return from_lis2(loaded) if is_lis2 else (loaded, None)


def _check(found: Scan, path: str | os.PathLike[str]) -> bool:
    """Refuse what is no snapshot; whether it is one of LIS2's."""
    content = found.content
    is_lis2 = type(content) in _MAPPING and _OURS not in content
    for place, kinds in (_KINDS if is_lis2 else _OUR_KINDS).items():
        _check_kind(content, place.split("."), kinds)
    if not is_lis2:
        check_entries(content, name=str(path))
    if found.foreign and not is_lis2:
        raise Refusal(f"cannot be read safely: it names {found.foreign[0]!r}, which ours never do")
    _check_values(content, is_lis2=is_lis2)
    return is_lis2


def _check_kind(content: Any, keys: list[str], kinds: frozenset[type]) -> None:
    value = content
    for key in keys:
        if type(value) not in _MAPPING or key not in value:
            raise Refusal(f"is no snapshot: {key} is missing")
        value = value[key]
    if type(value) not in kinds:
        raise Refusal(f"is no snapshot: {'.'.join(keys)} is a {type(value).__name__}")


def _check_values(content: Any, *, is_lis2: bool) -> None:
    told = {"EPOCHS_RUN": content["TRAIN_INFO"]["EPOCHS_RUN"] + 1}
    if not is_lis2:
        told = {key: content[_OURS].get(key, 0) for key in ("next_epoch", "next_batch")}
    for key, value in told.items():
        if type(value) is not int or not 0 <= value < 1 << 31:
            raise Refusal(f"is no snapshot: {key} is {str(value)[:20]}")
    for place, keys in (("MODEL_STATE", content["MODEL"]), ("GLOBAL_CONFIG", content)):
        for key in keys[place]:
            if type(key) is not str:
                raise Refusal(f"is no snapshot: {place} has the key {str(key)[:20]}")
