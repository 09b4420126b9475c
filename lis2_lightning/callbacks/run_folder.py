"""The run folder: made, shared by all hosts, with ``config.yaml`` and ``environment.json``."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl
import torch
import yaml

from lis2_lightning._version import __version__
from lis2_lightning.base.files import atomic, make, shown
from lis2_lightning.base.redaction import without_secret_words
from lis2_lightning.errors import ConfigError, TrainingError
from lis2_lightning.parallel.exchange import of_all_processes

_PACKAGES: Final = ("lightning", "torch", "torchmetrics", "numpy", "jsonargparse")
_GIT_S: Final = 2.0  # a repository on a dead network file system hangs
_PATIENCE_S: Final = 5.0  # a network file system may show a new file to other hosts a little later


class RunFolder(pl.Callback):
    """Writes the resolved configuration and the environment when training begins."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.folder = folder
        self.config = config

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write both files."""
        if not trainer.is_global_zero or is_trial(trainer):
            return
        make_folder(self.folder)
        text = yaml.safe_dump(dict(self.config), sort_keys=False, allow_unicode=True)
        with atomic(self.folder / "config.yaml") as file:
            file.write(text.encode())
        with atomic(self.folder / "environment.json") as file:
            file.write(json.dumps(_environment(trainer), indent=2).encode() + b"\n")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop where the folder is gone, in place of writing the rest of a run into a new one."""
        if not trainer.is_global_zero or is_trial(trainer):
            return
        # a snapshot inside the epoch may have made it again, without what on_fit_start wrote
        if not any((self.folder / name).is_file() for name in ("config.yaml", "environment.json")):
            raise TrainingError(
                f"the run folder {shown(self.folder)} was removed or moved while the run trained, "
                "and its files with it: start the run again"
            )


class SharedFolder(pl.Callback):
    """Refuses a run of several hosts that do not see the same folder, before a snapshot is read.

    The main process would write into its own, and the others would resume from theirs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Have every process look for a file that the main one makes."""
        if trainer.num_nodes == 1 or stage == "validate" or is_trial(trainer):
            return  # a validation writes nothing
        with ExitStack() as stack:
            name = ""
            if trainer.is_global_zero:
                make_folder(self.folder)
                made = stack.enter_context(
                    tempfile.NamedTemporaryFile(dir=self.folder, prefix=".shared-")
                )
                name = Path(made.name).name
            name, main_host = trainer.strategy.broadcast((name, socket.gethostname()))
            # when this returns, every process has looked
            sees = of_all_processes((socket.gethostname(), _appears(self.folder / name)))
        if hosts := sorted({host for host, appears in sees if not appears}):
            raise ConfigError(
                f"{self.folder} of host {main_host} is not visible on {', '.join(hosts)}: set "
                "output_dir to a folder that all hosts share"
            )


def is_trial(trainer: pl.Trainer) -> bool:
    """Whether ``lightning.fast_dev_run`` only tries the loops, and nothing is written."""
    return bool(getattr(trainer, "fast_dev_run", False))


def make_folder(folder: Path) -> None:
    """Make the run's folder, or raise a ConfigError where it cannot be written."""
    try:
        make(folder)
        tempfile.TemporaryFile(dir=folder).close()  # it has no name, so nothing is left behind
    except OSError as error:
        raise ConfigError(
            f"the run folder {folder} cannot be written ({error.strerror}): "
            "choose another output_dir or run_name"
        ) from error


def _environment(trainer: pl.Trainer) -> dict[str, Any]:
    # platform.platform() starts a program, after which Python repeats warnings
    system = platform.uname()
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": without_secret_words(sys.argv),
        "python": platform.python_version(),
        "platform": f"{system.system}-{system.release}-{system.machine}",
        "packages": {"lis2-lightning": __version__, **{name: version(name) for name in _PACKAGES}},
        "processor": system.machine,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": type(trainer.accelerator).__name__,
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "world_size": trainer.world_size,
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """The commit of the working folder; null without git, or where it fails or hangs."""
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_GIT_S)  # noqa: S603 - a fixed command
    except (OSError, subprocess.TimeoutExpired):
        return None
    head = done.stdout.decode("ascii", errors="replace").strip()
    return head if re.fullmatch(r"[0-9a-f]{40,64}", head) else None


def _appears(path: Path) -> bool:
    """Whether a file is there, or appears within a few seconds."""
    end = time.monotonic() + _PATIENCE_S
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.1)
    return path.exists()
