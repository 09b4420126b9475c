"""Hooks that do nothing are not called, all others are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import pytest

from lis2_lightning import Trainer
from lis2_lightning.callbacks.idle_hooks import skip_idle_hooks


class Counting(pl.Callback):
    def __init__(self) -> None:
        self.num = 0

    def on_train_batch_end(self, *_: Any) -> None:
        self.num += 1


class Derived(Counting):
    pass


def test_a_hook_of_a_class_of_its_parent_or_of_the_object_itself_stays() -> None:
    seen: list[str] = []
    own = pl.Callback()
    own.on_train_batch_end = lambda *_: seen.append("own")  # type: ignore[method-assign]
    callbacks = [Counting(), Derived(), own, pl.callbacks.LambdaCallback(setup=print)]
    skip_idle_hooks(callbacks)
    for callback in callbacks[:3]:
        callback.on_train_batch_end(None, None, None, None, 0)  # type: ignore[arg-type]
    assert [callbacks[0].num, callbacks[1].num, seen] == [1, 1, ["own"]]  # type: ignore[attr-defined]
    assert not any(callable(callback.on_before_zero_grad) for callback in callbacks)
    assert callable(callbacks[0].on_train_epoch_end)


@pytest.mark.usefixtures("no_pictures")
def test_a_callback_of_the_users_is_called_in_each_step(
    tiny: Callable[..., dict[str, Any]],
) -> None:
    counting = Derived()
    trainer = Trainer.from_config(tiny(epochs=2, lightning={"callbacks": [counting]}))
    trainer.train()
    assert counting.num == trainer.lightning.global_step > 0
    steps = [c for c in trainer.lightning.callbacks if callable(c.on_train_batch_end)]  # type: ignore[attr-defined]
    assert {type(c).__name__ for c in steps} >= {"Derived", "StopOnNonFiniteLoss"}
    assert len(steps) <= 5  # of some 15
