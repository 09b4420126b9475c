"""The folder of a cross-validation, which holds the runs of one division into folds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from lis2_lightning.base.files import atomic, shown
from lis2_lightning.base.redaction import without_secrets
from lis2_lightning.callbacks.run_folder import make_folder
from lis2_lightning.errors import ConfigError
from lis2_lightning.parallel import is_main

CONFIG: Final = "config.yaml"
_RECORD: Final = "folds.json"


def check(folder: Path, folds: Mapping[str, Any]) -> None:
    """Refuse a folder that holds something else than these folds.

    Args:
        folder: The folder.
        folds: What decides how pixels are divided, as plain values.

    Raises:
        ConfigError: It holds a run, or other folds.
    """
    if (folder / "logs_train.csv").exists():
        raise ConfigError(
            f"{shown(folder)} holds a single run: choose another run_name for the folds"
        )
    path = folder / _RECORD
    if path.is_file() and path.read_text(encoding="utf-8") != _text(folds):
        raise ConfigError(
            f"{shown(folder)} holds a cross-validation of other data, folds or seeds: choose "
            "another run_name"
        )


def begin(folder: Path, config: Mapping[str, Any], folds: Mapping[str, Any]) -> None:
    """Write the configuration, without its passwords, into a folder that has been checked.

    Raises:
        ConfigError: It cannot be written.
    """
    if not is_main():
        return
    make_folder(folder)
    contents = yaml.safe_dump(without_secrets(config), sort_keys=False, allow_unicode=True)
    for name, content in ((_RECORD, _text(folds)), (CONFIG, contents)):
        with atomic(folder / name) as file:
            file.write(content.encode())


def _text(folds: Mapping[str, Any]) -> str:
    return json.dumps(folds, indent=2) + "\n"
