"""What a run folder says about its run: ``config.yaml`` and ``environment.json``."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl
import torch
import yaml

from lis2_lightning.base.files import atomic, make
from lis2_lightning.errors import ConfigError

_PACKAGES: Final = ("lis2-lightning", "lightning", "torch", "torchmetrics", "numpy", "jsonargparse")


class RunFolder(pl.Callback):
    """Writes the resolved configuration and the environment when training begins.

    Args:
        folder: The run's folder.
        config: The resolved configuration, plain values.
    """

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
            file.write(json.dumps(environment(trainer), indent=2).encode() + b"\n")


def is_trial(trainer: pl.Trainer) -> bool:
    """Whether ``lightning.fast_dev_run`` only tries the loops, and nothing is written."""
    return bool(getattr(trainer, "fast_dev_run", False))


def make_folder(folder: Path) -> None:
    """Make the run's folder.

    Raises:
        ConfigError: It cannot be made or written to.
    """
    try:
        make(folder)
        tempfile.TemporaryFile(dir=folder).close()  # it has no name, so nothing is left behind
    except OSError as error:
        raise ConfigError(
            f"the run folder {folder} cannot be written ({error.strerror}): "
            "choose another output_dir or run_name"
        ) from error


def environment(trainer: pl.Trainer) -> dict[str, Any]:
    """Versions, command, hardware and git commit, as plain values."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: text for name in _PACKAGES if (text := _version(name))},
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": type(trainer.accelerator).__name__,
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "world_size": trainer.world_size,
        "git_commit": _git_commit(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    head = subprocess.run(  # noqa: S603 - a fixed command
        [git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False, timeout=10
    )
    return head.stdout.strip() or None
