"""Callbacks that have nothing to do in a step are not called in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import lightning.pytorch as pl

_IN_A_STEP: Final = (
    *(f"on_{loop}_batch_{end}" for loop in ("train", "validation", "test", "predict")
      for end in ("start", "end")),
    "on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step",
)  # fmt: skip


def skip_idle_hooks(callbacks: Iterable[pl.Callback]) -> None:
    """Take the empty hooks of a step away from callbacks.

    Lightning calls each hook of each callback inside a context of its profiler, also one that the
    callback does not define, and passes over what cannot be called: some 70 calls a step.
    """
    for callback in callbacks:
        for name in _IN_A_STEP:
            hook = getattr(getattr(callback, name), "__func__", None)
            if hook is getattr(pl.Callback, name):
                setattr(callback, name, None)
