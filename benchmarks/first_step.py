"""A callback that ends a process after its first training step."""

import os
from typing import Any

import lightning.pytorch as pl


class Stop(pl.Callback):
    """End the process: what a trainer does at its end takes no part in a time."""

    def on_train_batch_end(self, *_: Any) -> None:
        """End it."""
        os._exit(0)
