"""What surrounds one of Lightning's loops: silence, signals, seeds, the folder's lock."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGINT, raise_signal
from typing import Any, Final

import lightning.pytorch as pl

from lis2_lightning.assembly.settings import Settings
from lis2_lightning.base.files import sweep
from lis2_lightning.base.lock import lock
from lis2_lightning.base.signals import Signals, requeue
from lis2_lightning.callbacks import is_trial, make_folder
from lis2_lightning.errors import Interrupted, SnapshotError
from lis2_lightning.parallel import is_main
from lis2_lightning.parallel.children import is_started
from lis2_lightning.parallel.output import end_now, only_main_speaks
from lis2_lightning.parallel.peers import ending_together

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
    """Keep Lightning's adverts, and warnings about our own choices, from the screen.

    Those warnings stay silenced: Python forgets what it has shown whenever its filters change, and
    a user's own warnings would appear again in each loop.
    """
    known = {getattr(message, "pattern", None) for _, message, *_ in warnings.filters}
    for message in _WARNINGS:
        if message not in known:
            warnings.filterwarnings("ignore", message)
    levels = {name: logging.getLogger(name).level for name in _CHATTY}
    for name in levels:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


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


def seed(value: Any) -> None:
    """Seed every global generator, where there is a seed, before components are built."""
    # one out of range is refused with the other settings
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32:
        with quiet():
            pl.seed_everything(value, verbose=False)


@contextmanager
def loop(signals: Signals, trainer: pl.Trainer) -> Iterator[None]:
    """Surround one of Lightning's loops: silence, signals, and a sentence for what does not fit.

    Args:
        signals: Notes the signals while the loop runs.
        trainer: Runs the loop.

    Raises:
        SnapshotError: The snapshot is of another network.
        ProcessLost: Another process of the run is gone.
        KeyboardInterrupt: Ctrl-C ended the loop, after what is to be saved was saved.
        SystemExit: Another signal ended it; the code is 128 and the signal's number.
    """
    try:
        with quiet(), signals.noted(), ending_together(trainer.strategy.launcher):
            yield
    except Interrupted as error:
        if is_started():
            end_now(0)  # all have agreed to stop, and the main process reports it
        if is_main():
            _log.warning("%s", error)
        requeue(error.signal)
        raise (
            KeyboardInterrupt if error.signal == SIGINT else SystemExit(error.exit_code)
        ) from error
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        reason = " ".join(str(error).split())
        raise SnapshotError(f"the snapshot does not fit the network: {reason}") from error
    if signals.received:
        raise_signal(signals.received)  # it came too late for the loop: the next handler has it


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


def logged(trainer: pl.Trainer, prefix: str) -> dict[str, float]:
    """The values that a loop has logged under a prefix, as Python numbers."""
    values = trainer.callback_metrics
    return {key: float(value) for key, value in values.items() if key.startswith(prefix)}
