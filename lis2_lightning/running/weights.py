"""The weights that a network starts from, and what of them it took."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from torch import Tensor, nn

from lis2_lightning.base.files import shown
from lis2_lightning.errors import SnapshotError
from lis2_lightning.snapshots import COMPILED, Snapshot, read_weights
from lis2_lightning.snapshots.compare import printable

_log = logging.getLogger("lis2_lightning")
_SHOWN: Final = 3  # names of tensors in a sentence


def restore(model: nn.Module, snapshot: Snapshot) -> None:
    """Give a network the weights of a snapshot, all of which must fit.

    Raises:
        SnapshotError: The file is damaged, or of another network.
    """
    _, misfits = _take(model, snapshot.take()["MODEL"]["MODEL_STATE"])
    if misfits:
        raise SnapshotError(f"the snapshot {snapshot} does not fit the network: {misfits}")


def prepare(model: nn.Module, origin: Snapshot | None, path: Path | None) -> None:
    """Report that a network has the weights of its snapshot, or start it from those of a file."""
    if origin is not None:
        _log.info("using the weights of %s", origin)
    elif path is not None:
        start_from(model, path)


def start_from(model: nn.Module, path: Path) -> None:
    """Give a network whatever fits it of a file's weights, and report what does not.

    Names in the file may have a prefix, such as ``model.`` or ``module.``.

    Raises:
        SnapshotError: The file is missing, damaged, or nothing in it fits.
    """
    stored = read_weights(path)
    prefix = _prefix(stored, {_plain(name) for name in model.state_dict()})
    num, misfits = _take(model, {k.removeprefix(prefix): value for k, value in stored.items()})
    if not num:
        raise SnapshotError(f"no tensor of {shown(path)} fits the network: {misfits}")
    rest = f": {misfits}" if misfits else ""
    total = len(model.state_dict())
    _log.info("starting from %d of %d tensors of %s%s", num, total, shown(path), rest)


def _plain(name: str) -> str:
    """The name that a tensor of a network has in a snapshot, whether that is compiled or not."""
    return name.replace(COMPILED, "")


def _prefix(stored: Iterable[str], own: Collection[str]) -> str:
    """What stands before the names of the most tensors of the network."""
    prefixes: Counter[str] = Counter()
    for name in stored:
        starts = [0, *(match.end() for match in re.finditer(r"\.", name))]
        prefixes.update(name[:start] for start in starts if name[start:] in own)
    return max(prefixes, key=lambda prefix: (prefixes[prefix], -len(prefix)), default="")


def _take(model: nn.Module, stored: Mapping[str, Tensor]) -> tuple[int, str]:
    """Give a network the tensors that fit it: how many, and the others in words."""
    own = model.state_dict()
    names = {_plain(name): name for name in own}
    common = [name for name in names if name in stored]
    fits = [name for name in common if stored[name].shape == own[names[name]].shape]
    model.load_state_dict({names[name]: stored[name] for name in fits}, strict=False)
    misfits = {
        "missing": [name for name in names if name not in stored],
        "not in the network": [name for name in stored if name not in names],
        "of another shape": [
            f"{name} ({list(stored[name].shape)}, in the network {list(own[names[name]].shape)})"
            for name in common
            if name not in fits
        ],
    }
    return len(fits), "; ".join(
        f"{why}: {_listed(those)}" for why, those in misfits.items() if those
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(printable(name[:80]) for name in names[:_SHOWN]) + more
