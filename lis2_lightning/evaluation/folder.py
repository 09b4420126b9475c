"""The folder of many runs: of a cross-validation, or of a study."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from lis2_lightning.base.files import atomic, shown
from lis2_lightning.base.redaction import without_secrets
from lis2_lightning.callbacks.run_folder import make_folder
from lis2_lightning.config import Schema, merge
from lis2_lightning.errors import ConfigError
from lis2_lightning.parallel import is_main
from lis2_lightning.trainer import Trainer

CONFIG: Final = "config.yaml"
FOLDS: Final = "folds.json"
STUDY: Final = "study.json"
# what each of these records is of
_KINDS: Final = {
    FOLDS: "a cross-validation of other data, folds or seeds",
    STUDY: "a study of another space, configuration or number of folds",
}


def own_number(config: dict[str, Any], name: str, given: int | None) -> int | None:
    """A whole number, or the configuration's where none is given; its key is no trainer's.

    Raises:
        ConfigError: It is something else.
    """
    configured = config.pop(name, None)
    number = configured if given is None else given
    if isinstance(number, bool) or not isinstance(number, int | None):
        raise ConfigError(f"{name} must be a whole number, got {number!r}")
    return number


def check(folder: Path, record: Mapping[str, Any], name: str = FOLDS) -> None:
    """Refuse a folder that holds something else than these runs.

    Args:
        folder: The folder.
        record: What all runs have in common, as plain values: how pixels are divided, what varies.
        name: The file of the record.

    Raises:
        ConfigError: It holds a run, or others.
    """
    if (folder / "logs_train.csv").exists():
        raise ConfigError(
            f"{shown(folder)} holds a single run: choose another run_name for several"
        )
    for known, kind in _KINDS.items():
        path = folder / known
        is_same = known == name and path.is_file() and path.read_text("utf-8") == _text(record)
        if path.is_file() and not is_same:
            raise ConfigError(f"{shown(folder)} holds {kind}: choose another run_name")


def begin(
    folder: Path, config: Mapping[str, Any], record: Mapping[str, Any], name: str = FOLDS
) -> None:
    """Write the configuration, without its passwords, into a folder that has been checked.

    Raises:
        ConfigError: It cannot be written.
    """
    if not is_main():
        return
    make_folder(folder)
    contents = as_yaml(config)
    for path, content in ((folder / name, _text(record)), (folder / CONFIG, contents)):
        with atomic(path) as file:
            file.write(content.encode())


def as_yaml(config: Mapping[str, Any]) -> str:
    """A configuration as YAML, without its passwords."""
    text: str = yaml.safe_dump(without_secrets(config), sort_keys=False, allow_unicode=True)
    return text


def resolved(config: Mapping[str, Any], *, what: str, **overrides: Any) -> dict[str, Any]:
    """A configuration of which each of several runs builds its own trainer.

    Args:
        config: As :func:`load_config` returns it.
        what: What trains the runs, and what they are.
        overrides: Keys that win over it.

    Raises:
        ConfigError: A key or a value is wrong, or a component is an object.
    """
    parsed = Schema(Trainer).parse(merge(config, overrides))
    if objects := [*parsed.objects, *parsed.lightning]:
        raise ConfigError(
            f"{what}, and {', '.join(objects)} is an object, which they would share: describe it "
            "by its class_path and init_args"
        )
    return parsed.config


def _text(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=2) + "\n"
