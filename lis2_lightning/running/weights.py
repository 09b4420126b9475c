"""The weights that a network starts from, and what of them it took."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from lis2_lightning.base.files import shown
from lis2_lightning.errors import SnapshotError
from lis2_lightning.snapshots import COMPILED, Snapshot, read_weights

_log = logging.getLogger("lis2_lightning")
_SHOWN = 3  # names of tensors in a sentence


def restore(model: nn.Module, snapshot: Snapshot) -> None:
    """Give a network the weights of a snapshot, all of which must fit.

    Raises:
        SnapshotError: The file is damaged, or of another network.
    """
    stored: Mapping[str, Tensor] = snapshot.take()["MODEL"]["MODEL_STATE"]
    if misfits := _take(model, stored):
        raise SnapshotError(f"the snapshot {snapshot} does not fit the network: {misfits}")


def start_from(model: nn.Module, path: Path) -> None:
    """Give a network whatever fits it of a file's weights, and report what did not.

    Names in the file may have a prefix, such as ``model.`` or ``module.``.

    Raises:
        SnapshotError: The file is missing, damaged, or nothing in it fits.
    """
    stored = read_weights(path)
    own = _plain_names(model)
    prefix = _prefix(stored, own)
    renamed = {
        name.removeprefix(prefix) if name.startswith(prefix) else name: value
        for name, value in stored.items()
    }
    misfits = _take(model, renamed)
    num = sum(_fits(renamed, name, value) for name, value in own.items())
    if not num:
        raise SnapshotError(f"no tensor of {shown(path)} fits the network: {misfits}")
    _log.info(
        "starting from %d of %d tensors of %s%s",
        num,
        len(own),
        shown(path),
        f": {misfits}" if misfits else "",
    )


def _plain_names(model: nn.Module) -> dict[str, Tensor]:
    """A network's tensors by the names that they have in a snapshot, compiled or not."""
    return {name.replace(COMPILED, ""): value for name, value in model.state_dict().items()}


def _prefix(stored: Iterable[str], own: Collection[str]) -> str:
    """What stands before the names of the most tensors of the network."""
    prefixes: Counter[str] = Counter()
    for name in stored:
        parts = name.split(".")
        for i in range(len(parts)):
            if ".".join(parts[i:]) in own:
                prefixes[name[: len(name) - len(".".join(parts[i:]))]] += 1
    return max(prefixes, key=lambda prefix: (prefixes[prefix], -len(prefix)), default="")


def _fits(stored: Mapping[str, Tensor], name: str, value: Tensor) -> bool:
    return name in stored and stored[name].shape == value.shape


def _take(model: nn.Module, stored: Mapping[str, Tensor]) -> str:
    """Give a network the tensors that fit it; the others in words, empty where there are none."""
    own = _plain_names(model)
    state = {
        name: stored[plain]
        for name in model.state_dict()
        if _fits(stored, plain := name.replace(COMPILED, ""), own[plain])
    }
    model.load_state_dict(state, strict=False)
    shapes = [
        f"{name} ({list(stored[name].shape)}, in the network {list(own[name].shape)})"
        for name in own
        if name in stored and not _fits(stored, name, own[name])
    ]
    reasons = {
        "missing": [name for name in own if name not in stored],
        "not in the network": [name for name in stored if name not in own],
        "of another shape": shapes,
    }
    return "; ".join(f"{reason}: {_listed(names)}" for reason, names in reasons.items() if names)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
