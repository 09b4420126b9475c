"""What is in a snapshot, as values and as text.

What a file says is not trusted: text from it is shown without control characters.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from lis2_lightning.base.files import size_text
from lis2_lightning.errors import SnapshotError
from lis2_lightning.snapshots.compare import dtype_name, printable
from lis2_lightning.snapshots.format import checkpoint_state
from lis2_lightning.snapshots.read import read_as_ours


def summary(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a snapshot says of itself, after it has been verified; null what it does not say.

    ``size`` is in bytes, ``last_epoch`` is null before the first, ``last_row`` is that of the log,
    ``threshold`` has the best Dice on the validation pixels, and ``weights`` count buffers too.
    """
    snapshot, dropped = read_as_ours(path)
    origin = f"lis2_lightning {snapshot['LIGHTNING']['format']}" if dropped is None else "LIS2"
    try:
        facts = _facts(snapshot)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise SnapshotError(f"{path} is no snapshot of a training: {error!r}") from error
    return {"file": str(path), "size": Path(path).stat().st_size, "format": origin, **facts}


def _facts(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    ours, info, config = (snapshot[key] for key in ("LIGHTNING", "TRAIN_INFO", "GLOBAL_CONFIG"))
    checkpoint, done = ours["checkpoint"], info["EPOCHS_RUN"]
    best = checkpoint_state(checkpoint)
    return {
        "last_epoch": done if done >= 0 else None,
        "next_epoch": ours["next_epoch"],
        "next_batch": ours["next_batch"],
        "steps": checkpoint.get("global_step"),
        "best_loss": float(info["BEST_LOSS"]),
        "monitor": best["monitor"] or config.get("monitor"),
        "mode": best["mode"] or config.get("mode"),
        "threshold": checkpoint.get("threshold"),
        "last_row": dict(best["row"]),
        "weights": _weights(snapshot["MODEL"]["MODEL_STATE"]),
        "optimizer": _optimizer(info["OPTIMIZER_STATE"], config),
        "scheduler": _scheduler(info["SCHEDULER_STATE"], config),
        "versions": {
            **ours.get("versions", {}),
            "lightning": checkpoint.get("pytorch-lightning_version"),
        },
        "config": dict(config),
    }


def _weights(state: Mapping[str, Tensor]) -> dict[str, Any]:
    sizes: Counter[str] = Counter()
    for tensor in state.values():
        sizes[dtype_name(tensor)] += tensor.numel()
    return {"values": sizes.total(), "tensors": len(state), "dtypes": dict(sizes)}


def _optimizer(state: Mapping[str, Any] | None, config: Mapping[str, Any]) -> dict[str, Any] | None:
    if not state:
        return None
    groups = state.get("param_groups", [])
    return {
        "class": _class(config.get("optimizer")),
        "learning_rates": [float(group["lr"]) for group in groups if "lr" in group],
        "tensors": sum(len(group.get("params", [])) for group in groups),
    }


def _scheduler(state: Mapping[str, Any] | None, config: Mapping[str, Any]) -> dict[str, Any] | None:
    if not state:
        return None
    return {"class": _class(config.get("scheduler")), "steps": state.get("last_epoch")}


def _class(component: Any) -> str | None:
    """The class that a configuration names in one of its spellings, without its module."""
    spelled = component if isinstance(component, Mapping) else {}
    names = map(spelled.get, ("class_path", "type", "object"))
    return next((str(name).rpartition(".")[2] for name in names if name), None)


def render(facts: Mapping[str, Any]) -> str:
    """A summary as YAML, below the name of the file."""
    rows = {**facts, "size": size_text(facts["size"])}
    file = printable(rows.pop("file"))
    plain = json.loads(json.dumps(rows, default=str, skipkeys=True))
    return f"{file}\n{yaml.safe_dump(plain, sort_keys=False, width=96)}".rstrip()
