"""Several hosts write and read one folder: where they do not share it, the run is refused."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

import lightning.pytorch as pl

from lis2_lightning.callbacks.run_folder import is_trial, make_folder
from lis2_lightning.errors import ConfigError
from lis2_lightning.parallel.exchange import of_all_processes

_PATIENCE_S: Final = 5.0  # a network file system may show a new file to other hosts a little later


class SharedFolder(pl.Callback):
    """Refuses a run of several hosts that do not see the same folder, before a snapshot is read.

    The main process would write into its own, and the others would resume from what is in theirs.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Have every process look for a file that the main one makes.

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
            name, main_host = trainer.strategy.broadcast((name, socket.gethostname()))
            # when this returns, every process has looked
            sees = of_all_processes((socket.gethostname(), _appears(self.folder / name)))
        if hosts := sorted({host for host, appears in sees if not appears}):
            raise ConfigError(
                f"{self.folder} of host {main_host} is not visible on {', '.join(hosts)}: set "
                "output_dir to a folder that all hosts share"
            )


def _appears(path: Path) -> bool:
    """Whether a file is there, or appears within a few seconds."""
    end = time.monotonic() + _PATIENCE_S
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
