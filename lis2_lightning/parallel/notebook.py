"""Strategies in a notebook: its processes can only be forked from the kernel's."""

from __future__ import annotations

import logging
import multiprocessing
import sys
from collections.abc import Mapping
from typing import Any, Final

import lightning.pytorch as pl
from lightning.fabric.utilities import imports
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher

from lis2_lightning.base.signals import Signals
from lis2_lightning.errors import ConfigError
from lis2_lightning.parallel.fork import ForkLauncher, Handover

_log = logging.getLogger("lis2_lightning")
_FORKED: Final[Mapping[str, str]] = {
    f"ddp{suffix}": f"ddp_notebook{suffix}"
    for suffix in ("", "_find_unused_parameters_false", "_find_unused_parameters_true")
}
# those which only a script can start, by a part of their names
_SCRIPTED: Final = ("fsdp", "deepspeed", "model_parallel", "spawn")
_OR_ELSE: Final = "write the notebook's code to a script, or use lis2 fit"


def is_notebook() -> bool:
    """Whether this is a notebook or a Python prompt, where Lightning starts no scripts."""
    return bool(imports._IS_INTERACTIVE)  # noqa: SLF001 - the very flag it goes by


def strategy_here(strategy: Any) -> Any:
    """The strategy to use: outside a notebook the one that was asked for.

    Args:
        strategy: As for Lightning's trainer.

    Raises:
        ConfigError: It cannot start its processes from a notebook.
    """
    if not is_notebook() or not isinstance(strategy, str):
        return strategy
    name = strategy.lower()
    if any(part in name for part in _SCRIPTED):
        raise ConfigError(_refusal(name))
    if name not in _FORKED:
        return strategy
    if not _can_fork():
        raise ConfigError(_no_forks())
    _log.info("strategy %r starts scripts: in a notebook %r takes its place", name, _FORKED[name])
    return _FORKED[name]


def refusal(error: Exception, strategy: Any) -> str | None:
    """One sentence for what Lightning refuses because this is a notebook, or null.

    Args:
        error: What Lightning has raised.
        strategy: The strategy it was given.
    """
    if not is_notebook():
        return None
    if "not compatible with an interactive" in str(error):
        return _refusal(type(strategy).__name__ if not isinstance(strategy, str) else strategy)
    return _no_forks() if "process forking is not supported" in str(error) else None


def _refusal(name: str) -> str:
    return (
        f"strategy {name!r} cannot start its processes from a notebook: set lightning.strategy to "
        f"ddp_notebook, or {_OR_ELSE}"
    )


def _can_fork() -> bool:
    return "fork" in multiprocessing.get_all_start_methods()


def _no_forks() -> str:
    return (
        f"several devices in a notebook need forked processes, which {sys.platform} has not: set "
        f"lightning.devices to 1, or {_OR_ELSE}"
    )


def launch_by_forks(trainer: pl.Trainer, signals: Signals, handover: Handover) -> None:
    """Put our launcher in the place of Lightning's one that forks.

    Args:
        trainer: The trainer.
        signals: Notes the signals.
        handover: Knows what is to come back from the workers.

    Raises:
        ConfigError: The strategy spawns its processes.
    """
    strategy = trainer.strategy
    launcher = strategy.launcher
    if type(launcher) is not _MultiProcessingLauncher:
        return
    if launcher._start_method != "fork":  # noqa: SLF001 - there is no other way to know
        raise ConfigError(
            "a strategy that spawns its processes brings no results back from them: set "
            "lightning.strategy to ddp, or to ddp_notebook for forked processes"
        )
    strategy._launcher = ForkLauncher(launcher._strategy, signals, handover)  # noqa: SLF001 - same
