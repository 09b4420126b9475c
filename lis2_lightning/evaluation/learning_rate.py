"""A learning rate to start from, by Lightning's tuner."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import lightning.pytorch as pl
from lightning.pytorch.tuner.tuning import Tuner

from lis2_lightning.assembly.settings import FIXED
from lis2_lightning.errors import ConfigError, TrainingError
from lis2_lightning.report.pictures import new_figure, save
from lis2_lightning.running import around_loop
from lis2_lightning.trainer import Trainer

UNUSED: Final = ("callbacks", "max_steps", "max_time")
"""What has no use in a short trial, or would end it."""
_PICTURE: Final = "learning_rate.png"


def suggest_lr(
    source: str | os.PathLike[str] | Mapping[str, Any],
    output: str | os.PathLike[str] | None = None,
    *,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
) -> tuple[float, Path]:
    """Raise the learning rate from step to step, and find where the loss falls fastest.

    Nothing stays but a picture of the losses; no tracker receives anything.

    Args:
        source: A configuration, as for :meth:`~lis2_lightning.Trainer.from_config`.
        output: The picture; by default ``learning_rate.png`` in ``output_dir``.
        low: The first rate.
        high: The last rate, which is not reached where the loss diverges before.
        steps: How many rates to try.

    Returns:
        The rate, and the path of the picture.

    Raises:
        ConfigError: The configuration is wrong, or would train in several processes.
        TrainingError: The loss falls nowhere.
    """
    with TemporaryDirectory(prefix="lis2-find-lr-") as folder:
        trainer = Trainer.from_config(source, trackers=[], resume=False)
        path = Path(output or Path(trainer.output_dir, _PICTURE))
        figure = new_figure(5, 3.5)
        if path.suffix[1:].lower() not in figure.canvas.get_supported_filetypes():
            raise ConfigError(f"{path} is no picture: end its name with .png, .svg or .pdf")
        trainer.check()
        finder = _find(trainer, folder, min_lr=low, max_lr=high, num_training=steps)
    rate = finder.suggestion()
    if rate is None or not math.isfinite(rate):
        raise TrainingError("the loss falls at no learning rate: look at data, target and loss")
    finder.plot(suggest=True, ax=figure.subplots())
    return float(rate), save(figure, path)


def _find(trainer: Trainer, folder: str, **options: Any) -> Any:
    """Run Lightning's search with the network and the data of a trainer, and no more of it."""
    arguments = trainer.lightning_arguments
    silent: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    kept = {key: value for key, value in arguments.items() if key not in UNUSED}
    with around_loop.quiet(), around_loop.seeded(trainer.global_config["seed"]):
        alone = pl.Trainer(
            **{**FIXED, **kept, **silent, "default_root_dir": folder, "max_epochs": -1}
        )
        if alone.world_size > 1:
            raise ConfigError("find-lr tries one process: add --lightning.devices 1")
        return Tuner(alone).lr_find(
            trainer.module, datamodule=trainer.data, update_attr=False, **options
        )
