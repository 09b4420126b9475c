"""Around Lightning's loops: silence, signals, seeds, the folder's lock."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from signal import SIGINT, raise_signal
from typing import Any, Final

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.seed import isolate_rng

from lis2_lightning.assembly.settings import Settings
from lis2_lightning.base.display import in_notebook
from lis2_lightning.base.files import sweep
from lis2_lightning.base.lock import lock
from lis2_lightning.base.signals import Signals, requeue
from lis2_lightning.callbacks.run_events import events_noted
from lis2_lightning.callbacks.run_folder import is_trial, make_folder
from lis2_lightning.data.census_cache import censuses_in
from lis2_lightning.errors import (
    Interrupted,
    SnapshotError,
    TrainingError,
    TrainingStopped,
    one_line,
)
from lis2_lightning.parallel import is_main
from lis2_lightning.parallel.children import end_now, is_started
from lis2_lightning.parallel.peers import ending_together
from lis2_lightning.running.screen import ScreenHandler
from lis2_lightning.training.module import SegmentationModule

_log = logging.getLogger("lis2_lightning")

# warnings about what the facade chose on purpose, about which a user can do nothing
_WARNINGS: Final = (
    ".*does not have many workers.*",
    ".*It is recommended to use `self.log.*sync_dist=True.*",
    ".*you have no `val_dataloader`.*",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    ".*in eval mode at the start of training.*",
    ".*Total length of `list` across ranks is zero.*",
    ".*resuming from a checkpoint that ended before the epoch ended.*",
    ".*`precision=.*` is supported for historical reasons.*",
    ".*but AMP with fp16 is not supported on CPU.*",  # assemble says so, too
)
CENSUSES: Final = ".census"  # beside the runs, which share it
_SEED_VARIABLES: Final = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")  # which seed_everything sets
_CHATTY: Final = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.seed",
    "lightning.fabric.utilities.cloud_io",
    "lightning.fabric.utilities.distributed",
    "lightning.pytorch.accelerators.cuda",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's adverts, and warnings about our own choices, from the screen.

    The warnings stay silenced: Python forgets what it has shown whenever its filters change, and
    would repeat a user's own warnings in each loop.
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


@contextmanager
def muted() -> Iterator[None]:
    """Keep this package's messages but errors from the screen."""
    level = _log.level
    _log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        _log.setLevel(level)


def speak() -> None:
    """Show this package's messages where the program has set up no logging of its own.

    Processes other than the main one, which has the same to report, show errors only, for good.
    """
    if not is_main():
        warnings.simplefilter("ignore")
        for name in ("lis2_lightning", "lightning", "lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
    if not _log.hasHandlers():
        stream = sys.stdout if in_notebook() else sys.stderr
        _log.addHandler(ScreenHandler(stream))
        if is_main():
            _log.setLevel(logging.INFO)
        _log.propagate = False


@contextmanager
def building(config: Mapping[str, Any]) -> Iterator[None]:
    """While components are built: seeds, and where censuses of large images are kept."""
    folder = Path(config["output_dir"]).absolute() / CENSUSES
    with seeded(config["seed"]), censuses_in(folder):
        yield


@contextmanager
def seeded(value: Any) -> Iterator[None]:
    """Seed every global generator where there is a seed.

    Generators and environment are then those of the program again.
    """
    # Settings refuses a seed that is out of range
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
        yield
        return
    former = {name: os.environ.get(name) for name in _SEED_VARIABLES}
    with isolate_rng():
        with quiet():
            pl.seed_everything(value, verbose=False)
        try:
            yield
        finally:
            for name, text in former.items():
                os.environ.pop(name, None)
                if text is not None:
                    os.environ[name] = text


@contextmanager
def loop(signals: Signals, trainer: pl.Trainer) -> Iterator[None]:
    """Surround one of Lightning's loops: silence, signals, an error where the network differs.

    A loop that a signal has ended raises KeyboardInterrupt for Ctrl-C, else SystemExit.
    """
    try:
        with (
            quiet(),
            isolate_rng(),
            signals.noted(),
            ending_together(trainer.strategy.launcher),
        ):
            yield
    except Interrupted as error:
        if is_started():
            end_now(0)  # all have agreed to stop, and the main process reports it
        raise _reported(error) from error
    except RuntimeError as error:
        if "DataLoader worker (pid" in str(error):
            raise TrainingError(
                "a process that loads data was killed, mostly for lack of memory: lower "
                f"num_workers or batch_size, and resume with the same command ({one_line(error)})"
            ) from error
        if "loading state_dict" not in str(error):
            raise
        raise SnapshotError(f"the snapshot does not fit the network: {one_line(error)}") from error
    if signals.received:
        raise_signal(signals.received)  # too late for the loop: the next handler deals with it


def _reported(error: Interrupted) -> BaseException:
    """What a loop that a signal has ended raises; in a notebook, the cell reports it."""
    if error.signal == SIGINT and in_notebook():
        return TrainingStopped(_for_a_cell(error))
    if is_main():
        _log.warning("%s", error)
    requeue(error.signal)
    return TrainingStopped() if error.signal == SIGINT else SystemExit(error.exit_code)


def _for_a_cell(error: Interrupted) -> str:
    """What ended a loop, and what continues it in a notebook."""
    what, _, advice = str(error).partition(". Run the same command")
    continues = 'train(resume="auto") continues'
    return f"{what}; {continues if 'resume' in advice else 'run the cell again'}"


@contextmanager
def folder(settings: Settings, trainer: pl.Trainer) -> Iterator[None]:
    """Lock the run's folder, and remove what a killed run left half written."""
    with ExitStack() as stack:
        if not is_trial(trainer):
            make_folder(settings.run_dir)
            if is_main():
                stack.enter_context(lock(settings.run_dir))
                sweep(settings.run_dir)
                stack.enter_context(events_noted(settings.run_dir))
        yield


def logged(trainer: pl.Trainer, prefix: str) -> dict[str, float]:
    """The values that a loop has logged under a prefix, as Python numbers."""
    values = trainer.callback_metrics
    return {key: float(value) for key, value in values.items() if key.startswith(prefix)}


@contextmanager
def trial(module: SegmentationModule) -> Iterator[None]:
    """Try a network in evaluation mode, without a trace in it or in random generators."""
    training = module.model.training
    module.model.eval()
    try:
        with torch.no_grad(), isolate_rng(include_cuda=False):
            yield
    finally:
        module.model.train(training)
