"""The Lightning trainer that runs the loops, and what of Lightning is put aside for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.plugins import LayerSync
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from lis2_lightning.assembly.settings import Settings
from lis2_lightning.callbacks import ProgressBars
from lis2_lightning.errors import ConfigError
from lis2_lightning.parallel.batchnorm import SharedBatchNorm
from lis2_lightning.parallel.devices import check_launch, left_to_launcher
from lis2_lightning.parallel.launcher import end_together
from lis2_lightning.parallel.notebook import refusal, strategy_here
from lis2_lightning.parallel.parent import watch_parent
from lis2_lightning.parallel.sharded import ShardedStrategy
from lis2_lightning.parallel.strategies import strategy_of
from lis2_lightning.snapshots import SnapshotIO
from lis2_lightning.trackers.tracker import start_all


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
        ConfigError: Lightning refuses an argument, or ``torchrun`` or SLURM have started other
            processes than it counts on.
    """
    watch_parent()  # the command line does it earlier; a user's script comes here first
    arguments = {**settings.lightning, **left_to_launcher(settings.lightning)}
    arguments["strategy"] = strategy_of(strategy_here(arguments.get("strategy") or "auto"))
    theirs = _as_list(arguments.pop("callbacks", None))
    shown = arguments.get("enable_progress_bar", True)
    ours = shown and not any(isinstance(callback, ProgressBar) for callback in theirs)
    bars = [ProgressBars()] if ours else []
    plugins = [*_as_list(arguments.pop("plugins", None)), io]
    plugins += shared_batchnorm(plugins, wanted=bool(arguments.get("sync_batchnorm")))
    described = config.get("trackers") or []
    loggers = start_all(settings.trackers, described, settings.run_dir, settings.run_name)
    fixed = {
        "max_epochs": settings.epochs,
        "default_root_dir": settings.run_dir,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
        # gathered weights outlive a validation, and could not be trained after it
        "inference_mode": not isinstance(arguments["strategy"], ShardedStrategy),
    }
    try:
        trainer = pl.Trainer(
            logger=loggers,
            callbacks=[*callbacks, *theirs, *bars],
            plugins=plugins,
            **{**fixed, **arguments},
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        told = " ".join(str(error).split())
        refused = refusal(error, arguments["strategy"])
        raise ConfigError(refused or f"lightning refuses its arguments: {told}") from error
    check_launch(settings.lightning, devices=trainer.num_devices, num_nodes=trainer.num_nodes)
    trainer._signal_connector = _NoHandlers(trainer)  # noqa: SLF001 - see there
    # Lightning's epoch would wait for its own flag in each step, and hide that a process is gone
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]  # noqa: SLF001 - it has no switch
    end_together(trainer.strategy)
    return trainer


def shared_batchnorm(plugins: Sequence[Any], *, wanted: bool) -> list[SharedBatchNorm]:
    """What synchronises batch normalisation, unless the user has a plugin for it."""
    is_theirs = any(isinstance(plugin, LayerSync) for plugin in plugins)
    return [] if is_theirs else [SharedBatchNorm("always" if wanted else "possible")]


class _NoHandlers(_SignalConnector):
    """Leaves the signals to us.

    Lightning's handlers end a process with code 0 and without a snapshot, talk to other processes
    inside the handler, which hangs them, and have no switch.
    """

    def register_signal_handlers(self) -> None:
        self.received_sigterm = False


def _nothing() -> None:
    """Stand for a method that is not wanted."""


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
