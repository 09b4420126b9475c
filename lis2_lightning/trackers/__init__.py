"""Where numbers go: CSV always, services on request.

The names are imported when they are asked for: the processes that talk to services live in this
room, too, and need neither torch nor Lightning.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lis2_lightning.trackers.csv import CsvLogger, CsvRows, read_rows
    from lis2_lightning.trackers.delivery import sync
    from lis2_lightning.trackers.guarded_logger import Guarded
    from lis2_lightning.trackers.named import Mlflow, TensorBoard, Wandb
    from lis2_lightning.trackers.tracker import Tracker

_LATE: Final = MappingProxyType(
    {
        "CsvLogger": "csv",
        "CsvRows": "csv",
        "Guarded": "guarded_logger",
        "Mlflow": "named",
        "TensorBoard": "named",
        "Tracker": "tracker",
        "Wandb": "named",
        "read_rows": "csv",
        "sync": "delivery",
    }
)

__all__ = [
    "CsvLogger",
    "CsvRows",
    "Guarded",
    "Mlflow",
    "TensorBoard",
    "Tracker",
    "Wandb",
    "read_rows",
    "sync",
]


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
