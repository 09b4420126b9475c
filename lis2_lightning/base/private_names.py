"""Every private name of another library that this package uses, and nothing else.

A release of that library may rename one without notice. Each function looks its name up before it
uses it, so that a rename is an ``AttributeError`` and never a silent change;
``tests/base/test_private_names.py`` fails by name then, and finds any private name elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import lightning.pytorch as pl


def leave_signals_alone(trainer: pl.Trainer) -> None:
    """Keep Lightning from installing signal handlers: ``Trainer._signal_connector``.

    Why: they end a process with code 0 and without a snapshot, talk to other processes from inside
    the handler, which hangs them, and have no switch. When it breaks: find what calls
    ``signal.signal`` in ``lightning.pytorch.trainer``.
    """
    _replace(trainer._signal_connector, "register_signal_handlers")  # noqa: SLF001 - see above


def never_broadcast_sigterm(trainer: pl.Trainer) -> None:
    """Skip an exchange in each step: ``_TrainingEpochLoop._broadcast_sigterm_tensor``.

    Why: every step would wait for Lightning's own flag, which hides that a process is gone, and
    our exchange of label counts carries the signals already. When it breaks: find what
    ``advance`` broadcasts before ``on_train_batch_start``.
    """
    _replace(trainer.fit_loop.epoch_loop, "_broadcast_sigterm_tensor")


def _replace(owner: object, method: str) -> None:
    """Have a method do nothing; an AttributeError if the object has no such method."""
    getattr(owner, method)
    setattr(owner, method, _do_nothing)


def _do_nothing() -> None:
    """Stand in for a method that is not wanted."""
