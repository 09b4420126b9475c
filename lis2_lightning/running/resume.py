"""Where a run starts: from which snapshot, or from the beginning."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lis2_lightning.assembly.settings import Settings
from lis2_lightning.base.signals import is_requeued
from lis2_lightning.errors import ConfigError, SnapshotError
from lis2_lightning.parallel import is_main
from lis2_lightning.snapshots import (
    Snapshot,
    differences,
    link_snapshot,
    newest_snapshot,
    peek,
    snapshots_in,
)

_log = logging.getLogger("lis2_lightning")


def starting_point(
    settings: Settings, config: Mapping[str, Any], named: Mapping[str, Path]
) -> Snapshot | None:
    """Choose the snapshot to resume from, and read it; null starts a new run.

    ``config`` has the settings as plain values; ``named`` the files of ``best`` and ``last``.

    Raises:
        ConfigError: The folder holds a run although ``resume`` is false, or the snapshot has more
            epochs than are to be trained.
    """
    folder = settings.run_dir
    if settings.resume is False and not (is_requeued() and _holds_a_run(folder)):
        if is_main() and _holds_a_run(folder):
            raise ConfigError(
                f"{folder} holds a run already: set resume to auto to continue it, or choose "
                "another run_name"
            )
        return None
    if isinstance(settings.resume, str) and settings.resume != "auto":
        snapshot: Snapshot | None = peek(snapshot_path(settings.resume, named))
    else:
        snapshot = newest_snapshot(folder)
    if snapshot is None:
        _log.info("starting a new run in %s", folder)
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
    if best.is_file() and peek(best).best_loss == snapshot.best_loss:
        link_snapshot(best, folder / "best.pt")


def _reaches(path: Path, snapshot: Snapshot) -> bool:
    try:
        return peek(path).position >= snapshot.position
    except SnapshotError:
        return False


def _report(snapshot: Snapshot, config: Mapping[str, Any]) -> None:
    batch = f", batch {snapshot.next_batch}" if snapshot.next_batch else ""
    changes = "".join(f"; {change}" for change in differences(snapshot.config, config))
    _log.info("resuming from %s at epoch %d%s%s", snapshot, snapshot.next_epoch, batch, changes)


def seed_of(settings: Settings) -> int:
    """The run's seed: the configured one, that of the run which is resumed, or a new one."""
    if settings.seed is not None:
        return settings.seed
    if settings.resume in {True, "auto"}:
        for snapshot in snapshots_in(settings.run_dir)[:1]:
            if (seed := snapshot.config.get("seed")) is not None:
                return int(seed)
    return secrets.randbits(32)


def _holds_a_run(folder: Path) -> bool:
    return (folder / "logs_train.csv").exists() or any(folder.glob("*.pt"))


def snapshot_path(name: str | os.PathLike[str], named: Mapping[str, Path]) -> Path:
    """The file of a snapshot that is named ``best``, ``last`` or by its path."""
    path = named.get(str(name), Path(name))
    if not path.is_file():
        raise SnapshotError(
            f"there is no snapshot {path}: train first, name another one with ckpt_path, or pass "
            "ckpt_path=None for the weights the model has"
        )
    return path
