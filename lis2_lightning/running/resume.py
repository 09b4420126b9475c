"""Where a run starts: from which snapshot, or from the beginning."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lis2_lightning.assembly.settings import Settings
from lis2_lightning.base.files import shown
from lis2_lightning.base.signals import is_requeued
from lis2_lightning.errors import ConfigError, SnapshotError
from lis2_lightning.parallel import is_main
from lis2_lightning.snapshots import (
    Snapshot,
    differences,
    link_snapshot,
    newest_snapshot,
    peek,
    read_weights,
    snapshots_in,
)
from lis2_lightning.trackers.csv_rows import read_rows

_log = logging.getLogger("lis2_lightning")


def check_files(settings: Settings) -> None:
    """Raise a SnapshotError where a file that a run would start from is missing or damaged."""
    if settings.resume_path is not None:
        peek(settings.resume_path)
    is_continued = _continues_folder(settings) and _holds_a_run(settings.run_dir)
    if settings.weights_path is not None and not is_continued:
        read_weights(settings.weights_path)


def check_folder(settings: Settings) -> None:
    """Refuse a folder that holds a run which this one would not continue, before it is touched.

    Raises:
        ConfigError: The folder holds a run although ``resume`` is false, or another run than the
            snapshot to resume from; or that snapshot leaves nothing to train in a new folder.
        SnapshotError: The snapshot is missing or damaged.
    """
    folder, path = settings.run_dir, settings.resume_path
    snapshot = None if path is None else peek(path)
    if _continues_folder(settings):
        return
    refuse_other_run(snapshot, folder)
    if snapshot is None or _holds_a_run(folder) or snapshot.next_epoch != settings.epochs:
        return
    raise ConfigError(
        f"{snapshot} was written after epoch {snapshot.next_epoch - 1}, which is the last of "
        f"epochs: {settings.epochs}, so nothing is left to train: raise epochs, or set weights: "
        f"{snapshot} instead of resume to start a new run from its weights"
    )


def refuse_other_run(snapshot: Snapshot | None, folder: Path) -> None:
    """Raise a ConfigError where a folder holds a run, but not the one that wrote a snapshot."""
    # the main process has made the folder when the others come here
    if not is_main() or not _holds_a_run(folder):
        return
    if snapshot is None:
        raise ConfigError(
            f"{shown(folder)} holds a run already: set resume to auto to continue it, or choose "
            "another run_name"
        )
    if not _belongs(snapshot, folder):
        raise ConfigError(
            f"{shown(folder)} holds another run than {snapshot}: choose another run_name, or set "
            "resume to auto to continue the run that is there"
        )


def _continues_folder(settings: Settings) -> bool:
    """Whether the run in the folder is continued, if there is one."""
    is_auto = settings.resume in {True, "auto"}
    return is_auto or (is_requeued() and _holds_a_run(settings.run_dir))


def _holds_a_run(folder: Path) -> bool:
    return (folder / "logs_train.csv").exists() or any(folder.glob("*.pt"))


def _belongs(snapshot: Snapshot, folder: Path) -> bool:
    """Whether the run in a folder is the one that wrote a snapshot, of which this may be a copy."""
    if snapshot.path.resolve().parent == folder.resolve():
        return True
    log = folder / "logs_train.csv"
    if log.exists():
        figures = {key: repr(value) for key, value in snapshot.row.items() if value is not None}
        # a row of LIS2's has nothing but its epoch
        return len(figures) > 1 and any(figures.items() <= row.items() for row in read_rows(log)[1])
    # a run that was killed in its first epoch here has nothing but the best of its former folder
    return all(s.next_epoch and s.best_loss == snapshot.best_loss for s in snapshots_in(folder))


def starting_point(settings: Settings, config: Mapping[str, Any]) -> Snapshot | None:
    """Choose the snapshot to resume from, and read it; null starts a new run.

    ``config`` has the settings as plain values.

    Raises:
        ConfigError: As :func:`check_folder`, or the snapshot has more epochs than are to be
            trained.
    """
    check_folder(settings)
    folder, snapshot = settings.run_dir, None
    if _continues_folder(settings):
        snapshot = newest_snapshot(folder)
    elif settings.resume_path is not None:
        snapshot = peek(settings.resume_path)
    if snapshot is None:
        _log.info("starting a new run in %s", shown(folder))
        return None
    if (epoch := snapshot.next_epoch) > settings.epochs:
        raise ConfigError(
            f"{snapshot} was written after {epoch} epochs, and epochs is {settings.epochs}: "
            f"set epochs to at least {epoch}"
        )
    snapshot.read()
    if is_main():
        _complete_names(snapshot, folder)
    _report(snapshot, config)
    return snapshot


def _complete_names(snapshot: Snapshot, folder: Path) -> None:
    """Give a snapshot the names that a kill has kept it from, or copy the best to a new folder."""
    path = snapshot.path
    if path.parent.resolve() == folder.resolve():
        for target in map(path.with_name, snapshot.names):
            if not _reaches(target, snapshot):
                link_snapshot(path, target)
        return
    best = path.with_name("best.pt")
    is_missing = best.is_file() and not (folder / best.name).exists()
    if is_missing and peek(best).best_loss == snapshot.best_loss:
        link_snapshot(best, folder / "best.pt")


def _reaches(path: Path, snapshot: Snapshot) -> bool:
    try:
        return peek(path).position >= snapshot.position
    except SnapshotError:
        return False


def _report(snapshot: Snapshot, config: Mapping[str, Any]) -> None:
    changes = "".join(f"; {change}" for change in differences(snapshot.config, config))
    _log.info("resuming from %s at %s%s", snapshot, snapshot.place, changes)


def seed_of(settings: Settings) -> int:
    """The run's seed: the configured one, that of the run which is resumed, or a new one."""
    if settings.seed is not None:
        return settings.seed
    snapshots: list[Snapshot] = []
    if _continues_folder(settings):
        snapshots = snapshots_in(settings.run_dir)
    elif settings.resume_path is not None:
        snapshots = [peek(settings.resume_path)]
    for snapshot in snapshots[:1]:
        if (seed := snapshot.config.get("seed")) is not None:
            return int(seed)
    return secrets.randbits(32)


def snapshot_path(name: str | os.PathLike[str], named: Mapping[str, Path]) -> Path:
    """The file of a snapshot that is named ``best``, ``last`` or by its path."""
    path = named.get(str(name), Path(name))
    if not path.is_file():
        raise SnapshotError(
            f"there is no snapshot {shown(path)}: train first, name another one with ckpt_path, or "
            "pass ckpt_path=None for the weights the model has"
        )
    return path
