"""What surrounds Lightning's loop: seeds, the starting point, checks, silence."""

from __future__ import annotations

import logging
import os
import re
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT, raise_signal
from typing import Any, Final

import lightning.pytorch as pl
import torch
from torch import Tensor

from lis2_lightning.assembly.settings import Settings
from lis2_lightning.base.files import lock, sweep
from lis2_lightning.base.signals import Signals, is_requeued, requeue
from lis2_lightning.callbacks import is_trial, make_folder
from lis2_lightning.data import SegmentationData, first_batch
from lis2_lightning.errors import (
    ConfigError,
    DataError,
    Interrupted,
    SnapshotError,
    did_you_mean,
)
from lis2_lightning.parallel import is_main
from lis2_lightning.parallel.once import only_main_speaks
from lis2_lightning.parallel.peers import loss_told
from lis2_lightning.snapshots import (
    Peek,
    differences,
    link_snapshot,
    newest_snapshot,
    peek,
    read_snapshot,
)
from lis2_lightning.training.module import SegmentationModule

_log = logging.getLogger("lis2_lightning")

# Lightning says these of what the facade chose on purpose; a user can do nothing about them.
_WARNINGS: Final = (
    ".*does not have many workers.*",
    ".*It is recommended to use `self.log.*sync_dist=True.*",
    ".*you have no `val_dataloader`.*",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    ".*in eval mode at the start of training.*",
    ".*Total length of `list` across ranks is zero.*",
    ".*resuming from a checkpoint that ended before the epoch ended.*",
)
_CHATTY: Final = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.seed",
    "lightning.fabric.utilities.distributed",
    "lightning.pytorch.accelerators.cuda",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's adverts, and warnings about our own choices, from the screen."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    # put in by hand: catch_warnings would forget what was told, and tell it again in each loop
    filters = [
        ("ignore", re.compile(message, re.IGNORECASE), Warning, None, 0) for message in _WARNINGS
    ]
    before = warnings.filters
    warnings.filters = [*filters, *before]
    try:
        yield
    finally:
        warnings.filters = before
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def speak() -> None:
    """Show this package's messages where the program has set up no logging of its own."""
    only_main_speaks()
    if not _log.hasHandlers():
        stream = sys.stdout if "ipykernel" in sys.modules else sys.stderr
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter("%(message)s"))
        _log.addHandler(handler)
        if is_main():
            _log.setLevel(logging.INFO)
        _log.propagate = False


@contextmanager
def timed() -> Iterator[Callable[[], float]]:
    """Measure a block; what it yields gives the seconds since its start."""
    start = time.perf_counter()
    yield lambda: time.perf_counter() - start


def seed(value: Any) -> None:
    """Seed every global generator, where there is a seed, before components are built."""
    # one out of range is refused with the other settings
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32:
        with quiet():
            pl.seed_everything(value, verbose=False)


@contextmanager
def loop(signals: Signals) -> Iterator[None]:
    """Surround one of Lightning's loops: silence, signals, and a sentence for what does not fit.

    Args:
        signals: Notes the signals while the loop runs.

    Raises:
        SnapshotError: The snapshot is of another network.
        ProcessLost: Another process of the run is gone.
        KeyboardInterrupt: Ctrl-C ended the loop, after what is to be saved was saved.
        SystemExit: Another signal ended it; the code is 128 and the signal's number.
    """
    try:
        with quiet(), signals.noted(), loss_told():
            yield
    except Interrupted as error:
        if is_main():
            _log.warning("%s", error)
        requeue(error.signal)
        raise (
            KeyboardInterrupt if error.signal == SIGINT else SystemExit(error.exit_code)
        ) from error
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        told = " ".join(str(error).split())
        raise SnapshotError(f"the snapshot does not fit the network: {told}") from error
    if signals.received:
        raise_signal(signals.received)  # it came too late for the loop, and goes on to who is next


@contextmanager
def folder(settings: Settings, trainer: pl.Trainer) -> Iterator[None]:
    """Keep the run's folder to this run, and clear away what a killed one left half written.

    Raises:
        ConfigError: The folder cannot be written, or another run uses it.
    """
    if is_trial(trainer):
        yield
        return
    make_folder(settings.run_dir)
    if not is_main():
        yield
        return
    with lock(settings.run_dir):
        sweep(settings.run_dir)
        yield


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
    callbacks = snapshot["LIGHTNING"]["checkpoint"].get("callbacks", {})
    reached = snapshot["LIGHTNING"]["next_epoch"], snapshot["LIGHTNING"].get("next_batch", 0)
    for name in callbacks.get("Snapshots", {}).get("names", []):
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


def check(settings: Settings, module: SegmentationModule, data: SegmentationData) -> None:
    """Try the network on a sample of each data set, and its optimizer, before anything is written.

    Raises:
        ConfigError: The optimizer or the scheduler cannot be built, or nothing is logged under
            the name of ``monitor``.
        DataError: The network does not take a sample, or gives another shape than the target.
    """
    module.configure_optimizers()
    _check_monitor(settings, module)
    for dataset in (data.train, data.val, data.test):
        if dataset is not None:
            _check_batch(module, first_batch(dataset))


def _check_monitor(settings: Settings, module: SegmentationModule) -> None:
    if settings.lightning.get("callbacks"):
        return  # a callback of the user's may log it
    splits = ["train"] if settings.val_dataset is None else ["train", "val"]
    names = ["loss", *module.train_scores.metrics.names]
    logged = ["lr", *(f"{split}_{name}" for split in splits for name in names)]
    if settings.monitor not in logged:
        hint = did_you_mean(settings.monitor, logged)
        raise ConfigError(f"monitor {settings.monitor!r} is not logged: {hint}")


def _check_batch(module: SegmentationModule, batch: Mapping[str, Tensor]) -> None:
    training = module.model.training
    module.model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            output = module(batch)
            module.loss(output, batch["target"], batch.get("labelled"))
    except (RuntimeError, TypeError) as error:
        shape = tuple(batch["patch"].shape)
        told = " ".join(str(error).split())
        raise DataError(
            f"{type(module.model).__name__} does not take a batch of shape {shape}: {told}"
        ) from error
    finally:
        module.model.train(training)


def logged(trainer: pl.Trainer, prefix: str) -> dict[str, float]:
    """The values that a loop has logged under a prefix, as Python numbers."""
    values = trainer.callback_metrics
    return {key: float(value) for key, value in values.items() if key.startswith(prefix)}
