"""The snapshot as a mapping: Lightning's checkpoint to LIS2's snapshot and back, without a file.

The layout is that of LIS2's ``Trainer`` page, with one entry of ours, ``LIGHTNING``, which holds
what Lightning needs to continue. All values are plain ones or tensors, so ``weights_only=True``
reads them. No key but the two in ``MODEL`` is called ``MODEL_CONFIG`` or ``MODEL_STATE``: LIS2
searches for these recursively.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Final

import numpy as np
import torch

from lis2_lightning._version import __version__
from lis2_lightning.errors import SnapshotError
from lis2_lightning.snapshots.foreign import Stub
from lis2_lightning.snapshots.outline import Note

FORMAT: Final = 1
MODEL_PREFIX: Final = "model."
COMPILED: Final = "_orig_mod."
NAMES: Final = "names"  # of the files that are to hold the same bytes
# what is where, and of which type; a note stands for a tensor that has not been read
_LIS2_TYPES: Final[Mapping[str, Any]] = {
    "MODEL": Mapping,
    "MODEL.MODEL_CONFIG": object,
    "MODEL.MODEL_STATE": Mapping,
    "TRAIN_INFO": Mapping,
    "TRAIN_INFO.EPOCHS_RUN": int,
    "TRAIN_INFO.BEST_LOSS": int | float | torch.Tensor | Note,
    "TRAIN_INFO.OPTIMIZER_STATE": Mapping | None,
    "TRAIN_INFO.SCHEDULER_STATE": Mapping | None,
    "GLOBAL_CONFIG": Mapping,
}
_OUR_TYPES: Final[Mapping[str, Any]] = {
    **_LIS2_TYPES,
    "LIGHTNING": Mapping,
    "LIGHTNING.format": int,
    "LIGHTNING.next_epoch": int,
    "LIGHTNING.next_batch": int,
    "LIGHTNING.other_state": Mapping,
    "LIGHTNING.checkpoint": Mapping,
    "LIGHTNING.checkpoint.loops": Mapping,
}
_MAX_COUNT: Final = 1 << 31
# what torch's safe reader builds besides numbers, text and tensors; MultiStepLR has a Counter
_READABLE: Final = frozenset(
    {bool, bytes, bytearray, complex, set, Counter, torch.dtype, torch.device, type(None)}
)
# SWALR of torch 2.6 has this function in its state; its constructor sets it anew, as newer ones do
_DERIVED: Final = "anneal_func"
_SPECIFIED: Final = frozenset({"state_dict", "optimizer_states", "lr_schedulers"})


def to_snapshot(
    checkpoint: Mapping[str, Any],
    *,
    model_config: Mapping[str, Any],
    global_config: Mapping[str, Any],
    best_loss: float,
    next_epoch: int,
    next_batch: int = 0,
) -> dict[str, Any]:
    """Turn Lightning's checkpoint into a snapshot; values must be plain or tensors.

    ``model_config`` is in LIS2's spelling; ``global_config`` builds the same trainer again. A
    resumed run continues with ``next_batch`` of ``next_epoch``, both counted from 0.

    >>> checkpoint = {"state_dict": {"model.w": torch.ones(1), "loss.k": torch.ones(1)},
    ...               "optimizer_states": [{"state": {}}], "lr_schedulers": [], "loops": {}}
    >>> snapshot = to_snapshot(checkpoint, model_config={"type": "unet"}, global_config={},
    ...                        best_loss=0.5, next_epoch=3)
    >>> snapshot["TRAIN_INFO"]["EPOCHS_RUN"], list(snapshot["MODEL"]["MODEL_STATE"])
    (2, ['w'])
    >>> from_snapshot(snapshot) == checkpoint
    True
    """
    state = checkpoint["state_dict"]
    weights = {
        name.removeprefix(MODEL_PREFIX).replace(COMPILED, ""): value
        for name, value in state.items()
        if name.startswith(MODEL_PREFIX)
    }
    schedulers = checkpoint.get("lr_schedulers", [])
    optimizers = checkpoint.get("optimizer_states", [])
    snapshot = {
        "MODEL": {"MODEL_CONFIG": dict(model_config), "MODEL_STATE": weights},
        "TRAIN_INFO": {
            "EPOCHS_RUN": next_epoch - 1,
            "BEST_LOSS": float(best_loss),
            "OPTIMIZER_STATE": optimizers[0] if optimizers else None,
            "SCHEDULER_STATE": schedulers[0] if schedulers else None,
        },
        "GLOBAL_CONFIG": dict(global_config),
        "LIGHTNING": {
            "format": FORMAT,
            "next_epoch": next_epoch,
            "next_batch": next_batch,
            "versions": {"lis2-lightning": __version__, "torch": str(torch.__version__)},
            "other_state": {k: v for k, v in state.items() if not k.startswith(MODEL_PREFIX)},
            "checkpoint": {k: v for k, v in checkpoint.items() if k not in _SPECIFIED},
        },
    }
    result: dict[str, Any] = plain(snapshot, "snapshot")
    return result


def from_snapshot(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a snapshot back into the checkpoint that Lightning resumes from."""
    check_content(snapshot, name="the snapshot", is_lis2=False)
    ours, info = snapshot["LIGHTNING"], snapshot["TRAIN_INFO"]
    state = {
        f"{MODEL_PREFIX}{name}": value for name, value in snapshot["MODEL"]["MODEL_STATE"].items()
    }
    optimizer, scheduler = info["OPTIMIZER_STATE"], info["SCHEDULER_STATE"]
    return {
        "state_dict": {**state, **ours["other_state"]},
        "optimizer_states": [] if optimizer is None else [optimizer],
        "lr_schedulers": [] if scheduler is None else [scheduler],
        **ours["checkpoint"],
    }


def check_content(content: Any, *, name: str, is_lis2: bool) -> None:
    """Refuse what is no snapshot, or one of a newer format; files of LIS2 have no entry of ours.

    >>> check_content({"MODEL": {}}, name="last.pt", is_lis2=True)
    Traceback (most recent call last):
    lis2_lightning.errors.SnapshotError: last.pt is no snapshot: MODEL_CONFIG is missing
    """
    for place, types in (_LIS2_TYPES if is_lis2 else _OUR_TYPES).items():
        value = content
        for key in place.split("."):
            if not isinstance(value, Mapping) or key not in value:
                raise SnapshotError(f"{name} is no snapshot: {key} is missing")
            value = value[key]
        lowest = -1 if key == "EPOCHS_RUN" else 0
        if not isinstance(value, types) or (types is int and not lowest <= value < _MAX_COUNT):
            raise SnapshotError(f"{name} is no snapshot: {place} is {repr(value)[:20]}")
    for key in (*content["GLOBAL_CONFIG"], *content["MODEL"]["MODEL_STATE"]):
        if not isinstance(key, str):
            raise SnapshotError(f"{name} is no snapshot: it has the key {str(key)[:20]}")
    version = FORMAT if is_lis2 else content["LIGHTNING"]["format"]
    if version != FORMAT:
        raise SnapshotError(
            f"{name} has snapshot format {version}, this version reads {FORMAT}: "
            "update lis2-lightning"
        )


def checkpoint_state(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """``monitor``, ``mode``, ``best_loss``, the log's last ``row``, and ``names`` of files.

    The first three are null where it has none.
    """
    callbacks = checkpoint.get("callbacks") or {}
    nothing = {"monitor": None, "mode": None, "best_loss": None}
    return {
        **nothing,
        **callbacks.get("BestSnapshot", {}),
        "row": callbacks.get("EpochLog", {}).get("row", {}),
        NAMES: checkpoint.get(NAMES, ()),
    }


def plain(value: Any, path: str) -> Any:
    """The value without objects of LIS2's, with paths as text; anything odd is refused."""
    if isinstance(value, Stub):
        value = value.attributes
    if isinstance(value, Mapping) and not isinstance(value, Counter):
        kept = {k: v for k, v in value.items() if k != _DERIVED and not isinstance(v, Stub)}
        return {plain(key, path): plain(item, f"{path}.{key}") for key, item in kept.items()}
    if isinstance(value, list | tuple):
        items = [plain(item, f"{path}[{i}]") for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    return _leaf(value, path)


def _leaf(value: Any, path: str) -> Any:
    """A value of exactly the type that is read back: no subclass of it, such as an ``IntEnum``."""
    if isinstance(value, torch.Tensor):
        return value.detach().as_subclass(torch.Tensor)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Note) or type(value) in _READABLE:
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    raise SnapshotError(
        f"{path} is a {type(value).__name__}: a snapshot holds plain values and tensors only; "
        "keep such objects out of state_dict()"
    )
