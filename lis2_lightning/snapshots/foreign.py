"""The classes of other programs that LIS2's own snapshots hold, as something harmless.

LIS2 writes a scheduler's state with everything that hangs on it: a logger, paths, a whole
configuration. Paths become text, the others stubs which hold attributes and do nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any, Final

from lis2_lightning.snapshots.directory import Refusal
from lis2_lightning.snapshots.notes import Maker, Stub


def _path(kind: type[PurePath], *parts: Any) -> str:
    if not all(type(part) is str for part in parts):
        raise Refusal("cannot be read safely: a path is not as Python writes it")
    return str(kind(*parts))


def _logger(*name: Any) -> Stub:
    if len(name) > 1 or not all(type(part) is str for part in name):
        raise Refusal("cannot be read safely: a logger is not as Python writes it")
    return Stub("logging.Logger")


def _stub(path: str) -> Stub:
    return Stub(path)


_PATHS: Final[Mapping[str, type[PurePath]]] = {
    "Path": PurePosixPath,
    "PosixPath": PurePosixPath,
    "PurePath": PurePosixPath,
    "PurePosixPath": PurePosixPath,
    "PureWindowsPath": PureWindowsPath,
    "WindowsPath": PureWindowsPath,
}
# where versions of LIS2 keep the class
_CONFIGS: Final = (
    "configurable.GlobalConfig",
    "configurable.configurable.GlobalConfig",
    "core.configurable.GlobalConfig",
    "lis2.configurable.GlobalConfig",
)

# what a snapshot of LIS2's may call besides what ours may
FOREIGN: Final[Mapping[str, Maker]] = {
    "logging.getLogger": _logger,
    **{path: partial(_stub, path) for path in _CONFIGS},
    **{
        f"{module}.{name}": partial(_path, kind)
        for module in ("pathlib", "pathlib._local")  # the second is Python 3.13's
        for name, kind in _PATHS.items()
    },
}
