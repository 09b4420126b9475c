"""Where a run starts: afresh, or from which snapshot."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lis2_lightning.assembly.settings import Settings
from lis2_lightning.base.signals import is_requeued
from lis2_lightning.errors import (
    ConfigError,
    SnapshotError,
)
from lis2_lightning.parallel import is_main
from lis2_lightning.snapshots import (
    NAMES,
    Peek,
    differences,
    link_snapshot,
    newest_snapshot,
    peek,
    read_snapshot,
)

_log = logging.getLogger("lis2_lightning")


def starting_point(
    settings: Settings, config: Mapping[str, Any], named: Mapping[str, Path]
) -> Path | None:
    """Choose the snapshot to go on from.

    Args:
        settings: The documented keys.
        config: The same as plain values.
        named: The files that ``best`` and ``last`` stand for.

    Returns:
        The snapshot, or null to start afresh.

    Raises:
        ConfigError: The folder holds a run although ``resume`` is false, or the snapshot has more
            epochs than are to be trained.
        SnapshotError: The snapshot to resume from is missing.
    """
    folder = settings.run_dir
    if settings.resume is False and not (is_requeued() and _holds_a_run(folder)):
        if is_main() and _holds_a_run(folder):
            raise ConfigError(
                f"{folder} holds a run already: set resume to auto to go on with it, or choose "
                "another run_name"
            )
        return None
    if isinstance(settings.resume, str) and settings.resume != "auto":
        newest: Path | None = snapshot_path(settings.resume, named)
    else:
        newest = newest_snapshot(folder)
    if newest is None:
        _log.info("starting afresh in %s", folder)
    else:
        _go_on(newest, settings, config)
    return newest


def _complete(path: Path) -> None:
    """Give a snapshot the names that it was to have, where a kill came between them."""
    snapshot = read_snapshot(path)
    reached = snapshot["LIGHTNING"]["next_epoch"], snapshot["LIGHTNING"].get("next_batch", 0)
    for name in snapshot["LIGHTNING"]["checkpoint"].get(NAMES, []):
        target = path.with_name(Path(name).name)
        try:
            told = peek(target)
            is_behind = (told.next_epoch, told.next_batch) < reached
        except SnapshotError:
            is_behind = True
        if is_behind:
            link_snapshot(path, target)


def _go_on(path: Path, settings: Settings, config: Mapping[str, Any]) -> None:
    if is_main() and path.parent.resolve() == settings.run_dir.resolve():
        _complete(path)
    found = peek(path)
    epoch, batch = found.next_epoch, found.next_batch
    if epoch > settings.epochs:
        raise ConfigError(
            f"{path} has {epoch} epochs behind it, and epochs is {settings.epochs}: "
            f"set epochs to at least {epoch}"
        )
    told = "".join(f"; {each}" for each in differences(found.config, config))
    where = f"epoch {epoch}" + (f", batch {batch}" if batch else "")
    _log.info("going on from %s at %s%s", path, where, told)
    best = path.with_name("best.pt")
    if path.parent.resolve() != settings.run_dir.resolve() and _is_best_of(best, found):
        link_snapshot(best, settings.run_dir / "best.pt")


def _is_best_of(best: Path, last: Peek) -> bool:
    """Whether a file is the best of the run that a snapshot goes on with."""
    return best.is_file() and peek(best).best_loss == last.best_loss


def seed_of(settings: Settings) -> int:
    """The run's seed: the configured one, that of the run which is gone on with, or a new one."""
    if settings.seed is not None:
        return settings.seed
    if settings.resume in {True, "auto"} and (newest := newest_snapshot(settings.run_dir)):
        written = peek(newest).config.get("seed")
        if written is not None:
            return int(written)
    return secrets.randbits(32)


def _holds_a_run(folder: Path) -> bool:
    return (folder / "logs_train.csv").exists() or any(folder.glob("*.pt"))


def snapshot_path(wanted: str | os.PathLike[str], named: Mapping[str, Path]) -> Path:
    """The file of a snapshot that is named ``best``, ``last`` or by its path.

    Raises:
        SnapshotError: There is no such file.
    """
    path = named.get(str(wanted), Path(wanted))
    if not path.is_file():
        raise SnapshotError(
            f"there is no snapshot {path}: train first, name another one with ckpt_path, or pass "
            "ckpt_path=None for the weights the model has"
        )
    return path
