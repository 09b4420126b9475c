"""Where a run stands, in the progress counters of Lightning's loops as a checkpoint holds them.

Lightning 2.6 has counters for a batch or an epoch that is ready, started, processed and completed,
and infers from their differences at which hook a checkpoint was taken. What it infers inside an
epoch is not always true: it forgets a validation that was under way, and takes an epoch that
``max_steps`` cut short for a whole one. Here the counters are set so that nothing is left to infer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

INSIDE_EPOCH: Final = "inside_epoch"
_BATCHES: Final = "epoch_loop.batch_progress"
_VALIDATION: Final = "epoch_loop.val_loop.batch_progress"
_STEPS: Final = "epoch_loop.automatic_optimization.optim_progress"


def position(checkpoint: Mapping[str, Any]) -> tuple[int, int]:
    """The epoch at which a resumed run continues, and the batch inside it, both counted from 0."""
    fit = checkpoint["loops"]["fit_loop"]
    epochs = fit["epoch_progress"]["current"]
    inside = epochs["started"] > epochs["processed"]
    return epochs["processed"], fit[_BATCHES]["current"]["processed"] if inside else 0


def settle(loops: Mapping[str, Any], *, validate: bool) -> None:
    """Say of an epoch that is not over which batches are done, and that it is not over.

    Args:
        loops: A checkpoint's counters; they are changed.
        validate: Whether a validation was under way, which is to begin again.
    """
    fit = loops["fit_loop"]
    for counter in fit["epoch_progress"].values():
        counter["processed"] = counter["completed"]
    for name in ("total", "current"):
        counter = fit[_BATCHES][name]
        _set_all(counter, counter["processed"])
    if not validate:
        fit[_BATCHES]["is_last_batch"] = False  # Lightning sets it before the batch is trained
    else:
        for name in ("total", "current"):
            # one batch begun and not done: Lightning runs the validation again from there
            fit[_VALIDATION][name] = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        fit[_VALIDATION]["is_last_batch"] = False


def rewind(checkpoint: dict[str, Any]) -> None:
    """Let the epoch which a checkpoint is inside of begin again with its first batch."""
    fit = checkpoint["loops"]["fit_loop"]
    batches = fit[_BATCHES]
    _set_all(batches["total"], batches["total"]["processed"] - batches["current"]["processed"])
    _set_all(batches["current"], 0)
    batches["is_last_batch"] = False
    for counters in fit[_STEPS]["optimizer"].values():
        _set_all(counters["current"], 0)
    _set_all(fit[_VALIDATION]["total"], 0)
    _set_all(fit[_VALIDATION]["current"], 0)
    checkpoint.pop(INSIDE_EPOCH, None)
    # nothing is counted: the epoch begins, and does not continue
    for counter in fit["epoch_progress"].values():
        counter["ready"] = counter["started"] = counter["completed"]


def _set_all(counter: dict[str, int], value: int) -> None:
    for name in counter:
        counter[name] = value
