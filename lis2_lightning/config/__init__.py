"""Files and mappings → checked keys → objects: the one schema in its three spellings."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lis2_lightning.config.arguments import read_arguments
from lis2_lightning.config.loading import CHECKPOINT, load_config, merge
from lis2_lightning.config.spelling import to_class_paths, to_lis2

if TYPE_CHECKING:
    from lis2_lightning.config.schema import Schema, describe

_LATE = frozenset({"Schema", "describe"})  # these bring Lightning with them

__all__ = [
    "CHECKPOINT",
    "Schema",
    "describe",
    "load_config",
    "merge",
    "read_arguments",
    "to_class_paths",
    "to_lis2",
]


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("lis2_lightning.config.schema"), name)
