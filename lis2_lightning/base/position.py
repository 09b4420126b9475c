"""Where in a run Lightning's loops are: which epoch, which batch, and whether an epoch is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import lightning.pytorch as pl


def inside_epoch(trainer: pl.Trainer) -> bool:
    """Whether an epoch has begun and its end has not yet been reported to the callbacks."""
    epochs = _epochs(trainer)
    return bool(epochs.started > epochs.processed)


def epochs_done(trainer: pl.Trainer) -> int:
    """How many epochs are done, which is also the number of the running epoch, counted from 0."""
    return int(_epochs(trainer).processed)


def batches_done(trainer: pl.Trainer) -> int:
    """How many training batches of the running epoch are done, in this process."""
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    return int(batches.processed)


def epoch_is_whole(trainer: pl.Trainer) -> bool:
    """Whether the running epoch has had its last batch.

    Where ``max_steps``, ``max_time`` or ``trainer.should_stop`` ends a run, it has not.
    """
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


def goes_on_inside_epoch(trainer: pl.Trainer) -> bool:
    """Whether a resumed run has not begun a batch yet, and its first one lies inside an epoch."""
    return trainer.fit_loop.restarting and inside_epoch(trainer)


def _epochs(trainer: pl.Trainer) -> Any:
    """Lightning counts epochs as started and as processed; its public type names neither."""
    return trainer.fit_loop.epoch_progress.current
