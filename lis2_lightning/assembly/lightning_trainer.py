"""The Lightning trainer that runs the loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.plugins import LayerSync

from lis2_lightning.assembly.settings import Settings
from lis2_lightning.base.private_names import leave_signals_alone, never_broadcast_sigterm
from lis2_lightning.callbacks import ProgressBars
from lis2_lightning.errors import ConfigError
from lis2_lightning.parallel.batchnorm import SharedBatchNorm
from lis2_lightning.parallel.children import watch_parent
from lis2_lightning.parallel.devices import (
    check_processes,
    check_strategy,
    left_to_launcher,
    needs_a_script,
)
from lis2_lightning.snapshots import SnapshotIO
from lis2_lightning.trackers.journal_logger import start_all


def build_lightning(
    settings: Settings,
    config: Mapping[str, Any],
    callbacks: Sequence[pl.Callback],
    io: SnapshotIO,
) -> pl.Trainer:
    """The Lightning trainer.

    Args:
        settings: The documented keys.
        config: The same as plain values.
        callbacks: Ours; the user's come after them.
        io: Writes and reads snapshots.

    Raises:
        ConfigError: Lightning refuses an argument, or the processes are others than it counts on.
    """
    watch_parent()  # the command line does it earlier; a user's script comes here first
    arguments = {**settings.lightning, **left_to_launcher(settings.lightning)}
    arguments["strategy"] = arguments.get("strategy") or "auto"
    check_strategy(arguments["strategy"])
    theirs = _as_list(arguments.pop("callbacks", None))
    shown = arguments.get("enable_progress_bar", True)
    ours = shown and not any(isinstance(callback, ProgressBar) for callback in theirs)
    bars = [ProgressBars()] if ours else []
    plugins = [*_as_list(arguments.pop("plugins", None)), io]
    plugins += shared_batchnorm(plugins, always=bool(arguments.get("sync_batchnorm")))
    plain = config.get("trackers") or []
    loggers = start_all(settings.trackers, plain, settings.run_dir, settings.run_name)
    fixed = {
        "max_epochs": settings.epochs,
        "default_root_dir": settings.run_dir,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    }
    try:
        trainer = pl.Trainer(
            logger=loggers,
            callbacks=[*callbacks, *theirs, *bars],
            plugins=plugins,
            **{**fixed, **arguments},
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        if "not compatible with an interactive" in str(error):
            raise ConfigError(needs_a_script(settings.run_dir)) from error
        reason = " ".join(str(error).split())
        raise ConfigError(f"lightning refuses its arguments: {reason}") from error
    check_strategy(trainer.strategy)
    check_processes(settings.lightning, trainer, settings.run_dir)
    leave_signals_alone(trainer)
    never_broadcast_sigterm(trainer)
    return trainer


def shared_batchnorm(plugins: Sequence[Any], *, always: bool) -> list[SharedBatchNorm]:
    """What synchronises batch normalisation, unless the user has a plugin for it."""
    is_theirs = any(isinstance(plugin, LayerSync) for plugin in plugins)
    return [] if is_theirs else [SharedBatchNorm("always" if always else "possible")]


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
