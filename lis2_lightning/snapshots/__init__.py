"""Snapshots: one file which LIS2 reads and Lightning resumes from."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from lis2_lightning.snapshots.format import COMPILED, NAMES, from_snapshot, to_snapshot
from lis2_lightning.snapshots.header import Snapshot, newest_snapshot, peek, snapshots_in
from lis2_lightning.snapshots.loops import INSIDE_EPOCH, position, rewind, settle
from lis2_lightning.snapshots.read import read_snapshot, read_weights
from lis2_lightning.snapshots.write import link_snapshot, write_snapshot

if TYPE_CHECKING:
    from lis2_lightning.snapshots.overrides import differences

# Lightning takes seconds to import, and `lis2 info` does without
_LATE: Final = {"differences": "overrides"}

__all__ = [
    "COMPILED",
    "INSIDE_EPOCH",
    "NAMES",
    "Snapshot",
    "differences",
    "from_snapshot",
    "link_snapshot",
    "newest_snapshot",
    "peek",
    "position",
    "read_snapshot",
    "read_weights",
    "rewind",
    "settle",
    "snapshots_in",
    "to_snapshot",
    "write_snapshot",
]


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
