"""The classes of other programs that LIS2's own snapshots hold, as something harmless.

LIS2 writes a scheduler's state with everything that hangs on it: a logger, paths, a whole
configuration. These stand in their places, here and in torch's list of safe names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Final, Self


class Stub:
    """An object of another program: its attributes, and no behaviour."""

    attributes: dict[str, Any]

    def __new__(cls, name: str = "") -> Self:  # noqa: ARG004 - as logging.getLogger is called
        """Unpicklers do not call __init__."""
        stub = super().__new__(cls)
        stub.attributes = {}
        return stub

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the attributes."""
        if not isinstance(state, dict):
            raise TypeError(f"attributes of an object are a {type(state).__name__}")
        self.attributes = state


# where versions of LIS2 keep the class
_CONFIGS: Final = (
    "configurable.GlobalConfig",
    "configurable.configurable.GlobalConfig",
    "core.configurable.GlobalConfig",
    "lis2.configurable.GlobalConfig",
)
_POSIX: Final = ("Path", "PosixPath", "PurePath", "PurePosixPath")
_WINDOWS: Final = ("PureWindowsPath", "WindowsPath")

# what a snapshot of LIS2's may call besides what torch takes for safe
FOREIGN: Final[Mapping[str, Callable[..., Any]]] = {
    "logging.getLogger": Stub,
    **dict.fromkeys(_CONFIGS, Stub),
    **{
        f"{module}.{name}": kind
        for module in ("pathlib", "pathlib._local")  # the second is Python 3.13's
        for kind, names in ((PurePosixPath, _POSIX), (PureWindowsPath, _WINDOWS))
        for name in names
    },
}
