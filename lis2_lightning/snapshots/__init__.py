"""Snapshots: one file which LIS2 reads and Lightning resumes from."""

from lis2_lightning.snapshots.format import COMPILED, NAMES, from_snapshot, to_snapshot
from lis2_lightning.snapshots.header import Snapshot, newest_snapshot, peek, snapshots_in
from lis2_lightning.snapshots.loops import INSIDE_EPOCH, position, rewind, settle
from lis2_lightning.snapshots.overrides import differences
from lis2_lightning.snapshots.read import read_snapshot, read_weights
from lis2_lightning.snapshots.write import link_snapshot, write_snapshot

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
