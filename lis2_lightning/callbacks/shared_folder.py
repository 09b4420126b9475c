"""Several hosts write and read one folder: a run that they do not share is refused at its start."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

import lightning.pytorch as pl
from torch import distributed

from lis2_lightning.callbacks.run_folder import is_trial, make_folder
from lis2_lightning.errors import ConfigError

_PATIENCE_S: Final = 5.0  # a network file system may show a new file to other hosts a little later


class SharedFolder(pl.Callback):
    """Refuses a run of several hosts that do not see one folder, before a snapshot is read.

    The main process would write into its own, and the others would resume from and test what lies
    in theirs: other weights, or none.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Let every process look for a file that the main one makes.

        Raises:
            ConfigError: A host does not see it.
        """
        if trainer.num_nodes == 1 or stage == "validate" or is_trial(trainer):
            return  # a validation writes nothing
        with ExitStack() as stack:
            name = ""
            if trainer.is_global_zero:
                make_folder(self.folder)
                made = stack.enter_context(NamedTemporaryFile(dir=self.folder, prefix=".shared-"))
                name = Path(made.name).name
            name, host = trainer.strategy.broadcast((name, socket.gethostname()))
            blind = _gathered(None if _appears(self.folder / name) else socket.gethostname())
        if hosts := sorted({each for each in blind if each is not None}):
            raise ConfigError(
                f"{self.folder} of host {host} is not there on {', '.join(hosts)}: set output_dir "
                "to a folder that all hosts share"
            )


def _appears(path: Path) -> bool:
    """Whether a file is there, or comes within a few seconds."""
    end = time.monotonic() + _PATIENCE_S
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _gathered(value: str | None) -> list[str | None]:
    """The values of all processes; when it returns, each of them has looked."""
    values: list[str | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values
