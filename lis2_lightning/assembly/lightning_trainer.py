"""The Lightning trainer that runs the loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.plugins import LayerSync

from lis2_lightning.assembly.settings import FIXED, Settings
from lis2_lightning.base.private_names import leave_signals_alone, never_broadcast_sigterm
from lis2_lightning.callbacks import ProgressBars
from lis2_lightning.config import as_list
from lis2_lightning.errors import ConfigError, one_line
from lis2_lightning.parallel.batchnorm import SharedBatchNorm
from lis2_lightning.parallel.children import watch_parent
from lis2_lightning.parallel.devices import (
    check_processes,
    check_strategy,
    left_to_launcher,
    needs_a_script,
)
from lis2_lightning.snapshots import SnapshotIO
from lis2_lightning.trackers.tracker import start_all


def build_lightning(
    settings: Settings,
    config: Mapping[str, Any],
    callbacks: Sequence[pl.Callback],
    io: SnapshotIO,
) -> pl.Trainer:
    """The Lightning trainer; the user's callbacks come after ours.

    Raises:
        ConfigError: Lightning refuses an argument, or the processes are not those it expects.
    """
    watch_parent()  # the command line does it earlier; a user's script comes here first
    arguments = {**settings.lightning, **left_to_launcher(settings.lightning)}
    arguments["strategy"] = arguments.get("strategy") or "auto"
    check_strategy(arguments["strategy"])
    theirs = as_list(arguments.pop("callbacks", None))
    shown = arguments.get("enable_progress_bar", True)
    ours = shown and not any(isinstance(callback, ProgressBar) for callback in theirs)
    bars = [ProgressBars()] if ours else []
    plugins = [*as_list(arguments.pop("plugins", None)), io]
    if not any(isinstance(plugin, LayerSync) for plugin in plugins):
        plugins.append(SharedBatchNorm("always" if arguments.get("sync_batchnorm") else "possible"))
    described = config.get("trackers") or []
    loggers = start_all(settings.trackers, described, settings.run_dir, settings.run_name)
    try:
        trainer = pl.Trainer(
            logger=loggers,
            callbacks=[*callbacks, *theirs, *bars],
            plugins=plugins,
            max_epochs=settings.epochs,
            default_root_dir=settings.run_dir,
            **{**FIXED, **arguments},
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        if "not compatible with an interactive" in str(error):
            raise ConfigError(needs_a_script(settings.run_dir)) from error
        raise ConfigError(f"lightning refuses its arguments: {one_line(error)}") from error
    check_strategy(trainer.strategy)
    check_processes(settings.lightning, trainer, settings.run_dir)
    leave_signals_alone(trainer)
    never_broadcast_sigterm(trainer)
    return trainer
