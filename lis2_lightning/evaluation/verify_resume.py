"""Whether resuming is exact for a user's own configuration: tried, not promised."""

from __future__ import annotations

import logging
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import lightning.pytorch as pl
import torch

from lis2_lightning.errors import ConfigError
from lis2_lightning.running import around_loop
from lis2_lightning.snapshots import read_snapshot
from lis2_lightning.snapshots.compare import Difference, differences
from lis2_lightning.trackers.csv_rows import read_rows
from lis2_lightning.trainer import Trainer

_log = logging.getLogger("lis2_lightning")
EPOCHS: Final = 2


class _Stops(pl.Callback):
    """Sends the process a signal before one batch of the first epoch."""

    def __init__(self, batch: int) -> None:
        self._batch = batch

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002 - Lightning's hook
        batch: Any,  # noqa: ARG002 - Lightning's hook
        batch_idx: int,
    ) -> None:
        """Send it."""
        if (trainer.current_epoch, batch_idx) == (0, self._batch):
            signal.raise_signal(signal.SIGTERM)


def verify_resume(config: Mapping[str, Any], *, batches: int = 4) -> list[Difference]:
    """Train a few batches twice, once interrupted in the middle of an epoch, and compare.

    Two epochs of a few batches each are trained in a temporary folder, with two batches of
    validation. Nothing is written elsewhere, and no tracker receives anything.

    Args:
        config: A configuration, as for :meth:`Trainer.from_config`.
        batches: Batches of an epoch; as many accumulated steps where gradients are accumulated.

    Returns:
        What differs between the two last snapshots and the two logs; empty where resuming is exact.

    Raises:
        ConfigError: The configuration trains in several processes.
    """
    accumulated = int((config.get("lightning") or {}).get("accumulate_grad_batches") or 1)
    with TemporaryDirectory(prefix="lis2-verify-resume-") as folder:
        short = _short(config, folder, batches * accumulated)
        _log.info("training %d epochs of %d batches", EPOCHS, batches * accumulated)
        undisturbed = Trainer.from_config(short, run_name="whole")
        _check_alone(undisturbed)
        undisturbed.check()
        undisturbed.fit()
        # an epoch may have fewer batches than were asked for
        middle = int(undisturbed.lightning.num_training_batches) // 2 // accumulated * accumulated
        _log.info("the same once more, interrupted before batch %d of the first epoch", middle)
        _interrupt(Trainer.from_config(short, run_name="parts"), middle)
        torch.rand(3)  # what is drawn in between must not matter
        _log.info("resuming")
        Trainer.from_config(short, run_name="parts").fit(Path(folder) / "parts" / "last.pt")
        whole, parts = (_contents(Path(folder) / name) for name in ("whole", "parts"))
        return differences(whole, parts)


def _check_alone(trainer: Trainer) -> None:
    num = trainer.lightning.world_size
    if num > 1:
        raise ConfigError(
            f"verify-resume tries one process, and this would be {num}: add --lightning.devices 1 "
            "--lightning.num_nodes 1, and start it without torchrun or srun"
        )


def _interrupt(trainer: Trainer, batch: int) -> None:
    loops: Any = trainer.lightning  # its callbacks are no typed attribute
    loops.callbacks.append(_Stops(batch))
    with around_loop.muted(), suppress(SystemExit):  # how to resume is no news here
        trainer.fit()


def _short(config: Mapping[str, Any], folder: str, batches: int) -> dict[str, Any]:
    limits = {"limit_train_batches": batches, "limit_val_batches": 2, "max_steps": -1}
    seed = 0 if config.get("seed") is None else config["seed"]
    return {
        **config,
        "output_dir": folder,
        "epochs": EPOCHS,
        "seed": seed,
        "resume": False,
        "save_last": True,
        "trackers": [],
        "test_dataset": None,
        "lightning": {**(config.get("lightning") or {}), **limits, "enable_progress_bar": False},
    }


def _contents(folder: Path) -> dict[str, Any]:
    snapshot = read_snapshot(folder / "last.pt")
    _, rows = read_rows(folder / "logs_train.csv")
    return {
        "MODEL_STATE": snapshot["MODEL"]["MODEL_STATE"],
        "TRAIN_INFO": snapshot["TRAIN_INFO"],
        "callbacks": snapshot["LIGHTNING"]["checkpoint"]["callbacks"],
        "logs_train.csv": rows,
    }
