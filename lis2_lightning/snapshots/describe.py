"""What is in a snapshot, as values and as text.

What a file says is not trusted: text from it is shown without control characters.
"""

from __future__ import annotations

import os
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from torch import Tensor

from lis2_lightning.base.files import size_text
from lis2_lightning.errors import SnapshotError
from lis2_lightning.snapshots.compare import dtype_name, printable
from lis2_lightning.snapshots.format import checkpoint_state
from lis2_lightning.snapshots.read import read_as_ours

_WIDTH: Final = 96
# what optimizers keep for each weight, the more telling ones first
_BY_STATE: Final = {
    "exp_avg_sq": "Adam or one of its kind",
    "square_avg": "RMSprop",
    "sum": "Adagrad",
    "momentum_buffer": "SGD",
}


def summary(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a snapshot says of itself, after it has been verified.

    Args:
        path: The file.

    Returns:
        Plain values: ``file``, ``size`` (bytes), ``format``, ``last_epoch`` (null before the
        first), ``next_epoch``, ``next_batch``, ``steps``, ``best_loss``, ``monitor``, ``mode``,
        ``last_row`` (of the log), ``weights`` (``values``, buffers among them, ``tensors``,
        ``dtypes``), ``optimizer`` (``class``, ``learning_rates``, ``tensors``) and ``scheduler``
        (``class``, ``steps``), null where there is none, ``versions`` and ``config``. What the
        file does not say is null.

    Raises:
        SnapshotError: The file is missing, damaged or no snapshot.
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
    log = _mapping(_mapping(checkpoint.get("callbacks")).get("EpochLog"))
    return {
        "last_epoch": done if done >= 0 else None,
        "next_epoch": ours["next_epoch"],
        "next_batch": ours["next_batch"],
        "steps": checkpoint.get("global_step"),
        "best_loss": float(info["BEST_LOSS"]),
        "monitor": best["monitor"] or config.get("monitor"),
        "mode": best["mode"] or config.get("mode"),
        "last_row": dict(_mapping(log.get("row"))),
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
    kept = {key for value in _mapping(state.get("state")).values() for key in value}
    guess = next((name for key, name in _BY_STATE.items() if key in kept), None)
    return {
        "class": _class(config.get("optimizer")) or guess,
        "learning_rates": [float(group["lr"]) for group in groups if "lr" in group],
        "tensors": sum(len(group.get("params", [])) for group in groups),
    }


def _scheduler(state: Mapping[str, Any] | None, config: Mapping[str, Any]) -> dict[str, Any] | None:
    if not state:
        return None
    return {"class": _class(config.get("scheduler")), "steps": state.get("last_epoch")}


def _class(component: Any) -> str | None:
    """The class that a configuration names in one of its spellings, without its module."""
    names = map(_mapping(component).get, ("class_path", "type", "object"))
    return next((str(name).rpartition(".")[2] for name in names if name), None)


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def render(facts: Mapping[str, Any]) -> str:
    """A summary as lines of at most about 100 characters, the configuration as YAML below.

    Args:
        facts: What :func:`summary` gives.
    """
    rows = {printable(name): printable(value) for name, value in _rows(facts) if value}
    width = max(map(len, rows)) + 2
    lines = [printable(facts["file"])]
    for name, value in rows.items():
        hanging = " " * (width + 2)
        lines += textwrap.wrap(
            value, _WIDTH, initial_indent=f"  {name:<{width}}", subsequent_indent=hanging
        )
    config = yaml.safe_dump(_plain(facts["config"]), sort_keys=False, width=_WIDTH)
    return "\n".join([*lines, "", "configuration", textwrap.indent(config, "  ")])


def _rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "size", size_text(facts["size"])
    yield "format", facts["format"]
    last = facts["last_epoch"]
    yield "last epoch", "none is finished" if last is None else f"{last}, counted from 0"
    inside = f", batch {facts['next_batch']}" if facts["next_batch"] else ""
    yield "continues with", f"epoch {facts['next_epoch']}{inside}"
    yield "steps", "" if facts["steps"] is None else str(facts["steps"])
    yield f"best {facts['monitor'] or 'loss'}", f"{facts['best_loss']:.6g}"
    row = facts["last_row"].items()
    yield "log", ", ".join(f"{k} {v:.5g}" for k, v in row if isinstance(v, int | float))
    weights = facts["weights"]
    dtypes = ", ".join(f"{size:,} {dtype}" for dtype, size in weights["dtypes"].items())
    yield "weights", f"{weights['values']:,} values in {weights['tensors']} tensors: {dtypes}"
    yield "optimizer", _optimizer_text(facts["optimizer"])
    yield "scheduler", _scheduler_text(facts["scheduler"])
    yield "versions", ", ".join(f"{name} {v}" for name, v in facts["versions"].items() if v)


def _optimizer_text(optimizer: Mapping[str, Any] | None) -> str:
    if optimizer is None:
        return "no state"
    rates = ", ".join(f"{rate:g}" for rate in dict.fromkeys(optimizer["learning_rates"]))
    name = optimizer["class"] or "unknown"
    return f"{name}, learning rate {rates}, {optimizer['tensors']} tensors"


def _scheduler_text(scheduler: Mapping[str, Any] | None) -> str:
    if scheduler is None:
        return "no state"
    steps = scheduler["steps"]
    return (scheduler["class"] or "unknown") + ("" if steps is None else f", stepped {steps} times")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
