"""Where numbers go: CSV always, services on request.

Names are imported on first use: the processes that talk to services need neither torch nor
Lightning.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lis2_lightning.trackers.csv_rows import CsvRows, read_rows
    from lis2_lightning.trackers.journal_logger import JournalLogger
    from lis2_lightning.trackers.synchronise import sync
    from lis2_lightning.trackers.tracker import CsvLogger, Mlflow, TensorBoard, Tracker, Wandb

_MODULES: Final = MappingProxyType(
    {
        "csv_rows": ("CsvRows", "read_rows"),
        "journal_logger": ("JournalLogger",),
        "synchronise": ("sync",),
        "tracker": ("CsvLogger", "Mlflow", "TensorBoard", "Tracker", "Wandb"),
    }
)

__all__ = [
    "CsvLogger",
    "CsvRows",
    "JournalLogger",
    "Mlflow",
    "TensorBoard",
    "Tracker",
    "Wandb",
    "read_rows",
    "sync",
]


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
